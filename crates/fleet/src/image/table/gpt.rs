use std::io::{self, Read, Seek};

use super::{Partition, SECTOR_BYTES, sectors, u32_at, u64_at};

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Bytes of the header that its checksum is over, as every known writer has it.
const HEADER_BYTES: usize = 92;
/// Entries and their size where we make a table; what others made is kept.
const ENTRIES: usize = 128;
const ENTRY_BYTES: usize = 128;
/// More than this is no table but damage.
const MOST_ENTRY_BYTES: usize = 1024 * 1024;
/// The type "Linux filesystem data", in the order of bytes on the disk.
const LINUX: [u8; 16] = [
    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
];

/// A table in two copies, one at either end of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpt {
    /// The first sector, which tells those who know no GPT to keep off.
    protective: Vec<u8>,
    /// The first copy's header.
    header: Vec<u8>,
    entries: Vec<u8>,
    entry_bytes: usize,
}

impl Gpt {
    pub(super) fn read(disk: &mut (impl Read + Seek)) -> io::Result<Self> {
        let damaged = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let protective = sectors(disk, 0, 1)?;
        let header = sectors(disk, 1, 1)?;
        if &header[..8] != SIGNATURE {
            return Err(damaged("the GPT has no header"));
        }
        let header_bytes = u32_at(&header, 12) as usize;
        let mut summed = header.get(..header_bytes).unwrap_or_default().to_vec();
        if summed.len() < HEADER_BYTES {
            return Err(damaged("the GPT's header is too short"));
        }
        summed[16..20].fill(0);
        if crc32fast::hash(&summed) != u32_at(&header, 16) {
            return Err(damaged("the checksum of the GPT's header is wrong"));
        }
        let (count, entry_bytes) = (u32_at(&header, 80) as usize, u32_at(&header, 84) as usize);
        let length = count.saturating_mul(entry_bytes);
        if entry_bytes < ENTRY_BYTES || length > MOST_ENTRY_BYTES {
            return Err(damaged("the GPT's entries have no plausible size"));
        }
        let mut entries =
            sectors(disk, u64_at(&header, 72), (length as u64).div_ceil(SECTOR_BYTES))?;
        entries.truncate(length);
        match crc32fast::hash(&entries) == u32_at(&header, 88) {
            true => Ok(Gpt { protective, header, entries, entry_bytes }),
            false => Err(damaged("the checksum of the GPT's entries is wrong")),
        }
    }

    pub(super) fn empty(random: [u8; 16]) -> Self {
        let mut protective = vec![0; SECTOR_BYTES as usize];
        protective[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
        protective[454] = 1;
        protective[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut header = vec![0; SECTOR_BYTES as usize];
        header[..8].copy_from_slice(SIGNATURE);
        header[8..12].copy_from_slice(&[0, 0, 1, 0]);
        put_u32(&mut header, 12, HEADER_BYTES as u32);
        header[56..72].copy_from_slice(&versioned(random));
        put_u64(&mut header, 72, 2);
        put_u32(&mut header, 80, ENTRIES as u32);
        put_u32(&mut header, 84, ENTRY_BYTES as u32);
        Gpt {
            protective,
            header,
            entries: vec![0; ENTRIES * ENTRY_BYTES],
            entry_bytes: ENTRY_BYTES,
        }
    }

    pub(super) fn partitions(&self) -> Vec<Partition> {
        let numbered = self.entries.chunks_exact(self.entry_bytes).zip(1..);
        let used = numbered.filter(|(entry, _)| entry[..16] != [0; 16]);
        used.map(|(entry, number)| {
            let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
            let sectors = last.saturating_add(1).saturating_sub(first);
            Partition {
                number,
                start: first.saturating_mul(SECTOR_BYTES),
                length: sectors.saturating_mul(SECTOR_BYTES),
                uuid: printed(&entry[16..32]),
            }
        })
        .collect()
    }

    pub(super) fn resize(&mut self, number: u32, sectors: u64) {
        let at = (number as usize - 1) * self.entry_bytes;
        let last = u64_at(&self.entries, at + 32) + sectors - 1;
        put_u64(&mut self.entries, at + 40, last);
    }

    pub(super) fn add(&mut self, first: u64, sectors: u64, random: [u8; 16]) -> Option<u32> {
        let free =
            self.entries.chunks_exact(self.entry_bytes).position(|entry| entry[..16] == [0; 16])?;
        let at = free * self.entry_bytes;
        self.entries[at..at + 16].copy_from_slice(&LINUX);
        self.entries[at + 16..at + 32].copy_from_slice(&versioned(random));
        put_u64(&mut self.entries, at + 32, first);
        self.resize(free as u32 + 1, sectors);
        Some(free as u32 + 1)
    }

    /// What the second copy takes at the disk's end.
    pub(super) fn tail_bytes(&self) -> u64 {
        (self.entry_sectors() + 1) * SECTOR_BYTES
    }

    fn entry_sectors(&self) -> u64 {
        (self.entries.len() as u64).div_ceil(SECTOR_BYTES)
    }

    /// Both copies and the first sector, each with the place where it stands.
    pub(super) fn pieces(&self, disk_bytes: u64) -> Vec<(u64, Vec<u8>)> {
        let last = disk_bytes / SECTOR_BYTES - 1;
        let (own, entries_at) = (1, u64_at(&self.header, 72));
        let other_entries = last - self.entry_sectors();
        let mut protective = self.protective.clone();
        for at in (446..510).step_by(16).filter(|at| self.protective[at + 4] == 0xee) {
            put_u32(&mut protective, at + 12, u32::try_from(last).unwrap_or(u32::MAX));
        }
        let mut entries = self.entries.clone();
        entries.resize((self.entry_sectors() * SECTOR_BYTES) as usize, 0);
        // The second copy goes first: whenever it ends, one copy is whole.
        vec![
            (other_entries * SECTOR_BYTES, entries.clone()),
            (last * SECTOR_BYTES, self.header_of(last, own, other_entries, last)),
            (entries_at * SECTOR_BYTES, entries),
            (own * SECTOR_BYTES, self.header_of(own, last, entries_at, last)),
            (0, protective),
        ]
    }

    fn header_of(&self, own: u64, other: u64, entries_at: u64, last: u64) -> Vec<u8> {
        let mut header = self.header.clone();
        let first_usable = u64_at(&self.header, 72) + self.entry_sectors();
        put_u64(&mut header, 24, own);
        put_u64(&mut header, 32, other);
        // Where a table keeps more room before its first partition, that stays.
        put_u64(&mut header, 40, first_usable.max(u64_at(&self.header, 40)));
        put_u64(&mut header, 48, last - self.entry_sectors() - 1);
        put_u64(&mut header, 72, entries_at);
        put_u32(&mut header, 88, crc32fast::hash(&self.entries));
        put_u32(&mut header, 16, 0);
        let sum = crc32fast::hash(&header[..u32_at(&header, 12) as usize]);
        put_u32(&mut header, 16, sum);
        header
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Marks random bytes as a UUID of version 4; the third group stands on the disk in little endian.
fn versioned(mut random: [u8; 16]) -> [u8; 16] {
    random[7] = random[7] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    random
}

/// The first three groups stand on the disk in little endian.
fn printed(id: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (i, at) in ORDER.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", id[*at]));
    }
    text
}
