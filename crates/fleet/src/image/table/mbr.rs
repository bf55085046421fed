use super::{Partition, SECTOR_BYTES, u32_at};

/// What its 32-bit sector numbers reach.
pub(super) const MOST_BYTES: u64 = u32::MAX as u64 * SECTOR_BYTES;
/// Where the four entries stand.
const ENTRIES: usize = 446;
const ENTRY_BYTES: usize = 16;
/// Entries of this kind stand for a GPT.
const PROTECTIVE: u8 = 0xee;
const LINUX: u8 = 0x83;
/// Instead of cylinders, heads and sectors, which nobody reads any more.
const NO_GEOMETRY: [u8; 3] = [0xfe, 0xff, 0xff];

/// A table in the disk's first sector, of which all other bytes stay what they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mbr {
    sector: Vec<u8>,
}

impl Mbr {
    pub(super) fn read(sector: &[u8]) -> Option<Self> {
        let signed = sector.len() == SECTOR_BYTES as usize && sector[510..] == [0x55, 0xaa];
        let mbr = Mbr { sector: sector.to_vec() };
        // The first sector of a FAT file system is signed, too; its text stands where entries would.
        let plausible = (0..4).all(|i| mbr.entry(i)[0] & 0x7f == 0);
        (signed && plausible && !mbr.partitions().is_empty()).then_some(mbr)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.sector
    }

    pub(super) fn is_protective(&self) -> bool {
        (0..4).any(|i| self.entry(i)[4] == PROTECTIVE)
    }

    pub(super) fn partitions(&self) -> Vec<Partition> {
        let signature = u32_at(&self.sector, 440);
        let used = (0..4).filter(|i| self.entry(*i)[4] != 0);
        used.map(|i| Partition {
            number: i as u32 + 1,
            start: u64::from(u32_at(self.entry(i), 8)) * SECTOR_BYTES,
            length: u64::from(u32_at(self.entry(i), 12)) * SECTOR_BYTES,
            uuid: format!("{signature:08x}-{:02x}", i + 1),
        })
        .collect()
    }

    pub(super) fn resize(&mut self, number: u32, sectors: u64) {
        let at = ENTRIES + (number as usize - 1) * ENTRY_BYTES;
        self.sector[at + 5..at + 8].copy_from_slice(&NO_GEOMETRY);
        let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
        self.sector[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }

    pub(super) fn add(&mut self, first: u64, sectors: u64) -> Option<u32> {
        let free = (0..4).find(|i| self.entry(*i)[4] == 0)?;
        let at = ENTRIES + free * ENTRY_BYTES;
        let first = u32::try_from(first).ok()?;
        self.sector[at] = 0;
        self.sector[at + 1..at + 4].copy_from_slice(&NO_GEOMETRY);
        self.sector[at + 4] = LINUX;
        self.sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        self.resize(free as u32 + 1, sectors);
        Some(free as u32 + 1)
    }

    fn entry(&self, index: usize) -> &[u8] {
        let at = ENTRIES + index * ENTRY_BYTES;
        &self.sector[at..at + ENTRY_BYTES]
    }
}
