//! Partition tables, MBR and GPT: read, changed as data, and written back. Our own rather than a crate's,
//! since a board's first start changes the table of the disk that it runs from, and what is not
//! understood there must be left exactly as it was.

mod gpt;
mod mbr;

use std::io::{self, Read, Seek, SeekFrom, Write};

use self::gpt::Gpt;
use self::mbr::Mbr;
use super::error::{Doing, ImageError};

/// Sectors of images and of nearly all cards and disks.
pub const SECTOR_BYTES: u64 = 512;
/// What partitions begin at multiples of, as all current tools have it.
pub const ALIGNMENT_BYTES: u64 = 1024 * 1024;

/// A part of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// As in `/dev/sda1`.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// How many bytes it has.
    pub length: u64,
    /// What `PARTUUID=` in kernel command lines and fstab names.
    pub uuid: String,
}

impl Partition {
    /// The first byte behind it.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Mbr(Mbr),
    Gpt(Gpt),
}

/// The table of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    form: Form,
}

impl Table {
    /// Reads the table of a disk or an image of one.
    pub fn read(disk: &mut (impl Read + Seek)) -> Result<Self, ImageError> {
        let doing = || "reading the partition table".to_owned();
        let mbr = Mbr::read(&sectors(disk, 0, 1).doing(doing)?).ok_or_else(|| {
            ImageError::refused(
                "there is no partition table",
                "an image of a whole disk is needed, not of one partition or of an installer",
            )
        })?;
        if !mbr.is_protective() {
            return Ok(Table { form: Form::Mbr(mbr) });
        }
        let gpt = Gpt::read(disk).doing(doing)?;
        Ok(Table { form: Form::Gpt(gpt) })
    }

    /// The partitions, by their numbers.
    pub fn partitions(&self) -> Vec<Partition> {
        match &self.form {
            Form::Mbr(mbr) => mbr.partitions(),
            Form::Gpt(gpt) => gpt.partitions(),
        }
    }

    /// The partition of this number.
    pub fn partition(&self, number: u32) -> Option<Partition> {
        self.partitions().into_iter().find(|partition| partition.number == number)
    }

    /// Whether nothing lies behind this partition.
    pub fn is_last(&self, number: u32) -> bool {
        let last = self.partitions().into_iter().max_by_key(|partition| partition.start);
        last.is_some_and(|last| last.number == number)
    }

    /// The first byte that no partition may use on a disk of this size.
    pub fn limit(&self, disk_bytes: u64) -> u64 {
        let limit = match &self.form {
            Form::Mbr(_) => disk_bytes.min(mbr::MOST_BYTES),
            Form::Gpt(gpt) => disk_bytes.saturating_sub(gpt.tail_bytes()),
        };
        limit / SECTOR_BYTES * SECTOR_BYTES
    }

    /// Lets the last partition reach to `end`; whether that changed anything. It never shrinks one.
    pub fn grow(&mut self, number: u32, end: u64) -> bool {
        let Some(partition) = self.partition(number) else { return false };
        if !self.is_last(number) || end <= partition.end() {
            return false;
        }
        let sectors = (end - partition.start) / SECTOR_BYTES;
        match &mut self.form {
            Form::Mbr(mbr) => mbr.resize(number, sectors),
            Form::Gpt(gpt) => gpt.resize(number, sectors),
        }
        true
    }

    /// Adds a Linux partition; `None` where the table is full. `random` names it in a GPT.
    pub fn add(&mut self, start: u64, length: u64, random: [u8; 16]) -> Option<Partition> {
        let (first, sectors) = (start / SECTOR_BYTES, length / SECTOR_BYTES);
        let number = match &mut self.form {
            Form::Mbr(mbr) => mbr.add(first, sectors),
            Form::Gpt(gpt) => gpt.add(first, sectors, random),
        }?;
        self.partition(number)
    }

    /// An empty GPT, for a disk that has no table.
    pub fn empty(random: [u8; 16]) -> Self {
        Table { form: Form::Gpt(Gpt::empty(random)) }
    }

    /// Writes the table to a disk of this size: of a GPT both copies, the second at the disk's end.
    pub fn write(&self, disk: &mut (impl Write + Seek), disk_bytes: u64) -> Result<(), ImageError> {
        let pieces = match &self.form {
            Form::Mbr(mbr) => vec![(0, mbr.bytes().to_vec())],
            Form::Gpt(gpt) => gpt.pieces(disk_bytes),
        };
        for (start, bytes) in pieces {
            disk.seek(SeekFrom::Start(start))
                .and_then(|_| disk.write_all(&bytes))
                .doing(|| "writing the partition table".into())?;
        }
        disk.flush().doing(|| "writing the partition table".into())
    }
}

fn sectors(disk: &mut (impl Read + Seek), first: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; (count * SECTOR_BYTES) as usize];
    disk.seek(SeekFrom::Start(first * SECTOR_BYTES))?;
    disk.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
