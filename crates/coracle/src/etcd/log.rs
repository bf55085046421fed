//! The member's log on disk, read as etcd reads it: how far it is whole, and which entry is its last.
//!
//! etcd takes a log that ends too early for one whose last write was cut short, drops the rest and
//! goes on. A member that has forgotten what it acknowledged must not vote as if it had not, so
//! this side looks first.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes of the number before each record: its length, and in the highest one the padding.
const HEAD_BYTES: u64 = 8;
const LENGTH_MASK: u64 = (1 << 56) - 1;
/// A record that says it is longer than this is none; etcd takes requests of 1.5 MiB.
const RECORD_MAX_BYTES: u64 = 32 << 20;
/// Kinds of records.
const ENTRY: u64 = 2;
const SUM: u64 = 4;
const SNAPSHOT: u64 = 5;

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its path.
    pub path: PathBuf,
    /// Its number; each goes on where the one before ended.
    pub number: u64,
}

/// The files of the log in `folder`, in order.
pub fn segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.strip_suffix(".wal").and_then(|name| name.split_once('-'));
        if let Some(number) = number.and_then(|(number, _)| u64::from_str_radix(number, 16).ok()) {
            segments.push(Segment { path, number });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// How far a log has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Its first entry; 0 before there was one.
    pub first: u64,
    /// Its last entry.
    pub last: u64,
    sum: u32,
}

/// Where a file of the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After a whole record, at this byte, with room behind it that was reserved and never used:
    /// as etcd leaves a file that it writes to.
    Reserved(u64),
    /// After a whole record with nothing behind it: as etcd leaves a file that is full.
    Full(u64),
    /// At this byte, within a record.
    Cut(u64),
    /// At this byte, where something stands that was not written so.
    Altered(u64),
}

/// Reads a file of the log from where the one before it ended.
pub fn read(file: &mut impl Read, reached: &mut Reached) -> io::Result<End> {
    let mut at = 0;
    let mut record = Vec::new();
    loop {
        record.clear();
        let got = file.by_ref().take(HEAD_BYTES).read_to_end(&mut record)? as u64;
        if record.iter().all(|byte| *byte == 0) {
            return Ok(if got == 0 { End::Full(at) } else { End::Reserved(at) });
        }
        let Ok(head) = <[u8; 8]>::try_from(&record[..]).map(u64::from_le_bytes) else {
            return Ok(End::Cut(at));
        };
        let padding = if head >> 63 == 1 { (head >> 56) & 7 } else { 0 };
        let length = head & LENGTH_MASK;
        if length > RECORD_MAX_BYTES {
            return Ok(End::Altered(at));
        }
        record.clear();
        let got = file.by_ref().take(length + padding).read_to_end(&mut record)? as u64;
        if got < length {
            return Ok(End::Cut(at));
        }
        record.truncate(length as usize);
        let Some(next) = take(&record, *reached) else { return Ok(End::Altered(at)) };
        *reached = next;
        at += HEAD_BYTES + length + padding;
    }
}

/// Takes one record; none if it is not what was written.
fn take(record: &[u8], mut reached: Reached) -> Option<Reached> {
    let (mut kind, mut sum, mut data) = (0, 0, &[][..]);
    for field in Fields(record) {
        match field? {
            (1, Value::Number(number)) => kind = number,
            (2, Value::Number(number)) => sum = u32::try_from(number).ok()?,
            (3, Value::Bytes(bytes)) => data = bytes,
            _ => {}
        }
    }
    if kind == SUM {
        // The first of a file repeats the sum of the file before it.
        let goes_on = reached.sum == 0 || reached.sum == sum;
        reached.sum = sum;
        return goes_on.then_some(reached);
    }
    reached.sum = castagnoli(reached.sum, data);
    if reached.sum != sum {
        return None;
    }
    match kind {
        // An entry takes the place of all that had its number or a higher one.
        ENTRY => {
            reached.last = number(data, 3)?;
            if reached.first == 0 {
                reached.first = reached.last;
            }
        }
        SNAPSHOT => reached.last = reached.last.max(number(data, 1)?),
        _ => {}
    }
    Some(reached)
}

/// A number of a message; 0 where it is left out.
fn number(message: &[u8], wanted: u64) -> Option<u64> {
    let mut found = 0;
    for field in Fields(message) {
        if let (field, Value::Number(number)) = field?
            && field == wanted
        {
            found = number;
        }
    }
    Some(found)
}

/// The fields of a protobuf message; `None` where it is none.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// CRC-32C of `data`, gone on with from the sum of what came before.
fn castagnoli(before: u32, data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    let step = |sum: u32, byte: &u8| TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8);
    !data.iter().fold(!before, step)
}

const fn table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { POLYNOMIAL ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(u8, &[u8])], numbers: &[(u8, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let varint = |bytes: &mut Vec<u8>, mut number: u64| {
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
        };
        for (field, number) in numbers {
            bytes.push(field << 3);
            varint(&mut bytes, *number);
        }
        for (field, content) in fields {
            bytes.push(field << 3 | 2);
            varint(&mut bytes, content.len() as u64);
            bytes.extend_from_slice(content);
        }
        bytes
    }

    /// A log of these entries, with reserved room behind it, and where each record begins.
    fn log(entries: &[u64]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins, mut sum) = (Vec::new(), Vec::new(), 0);
        let sums = std::iter::once((SUM, Vec::new()));
        let entries = entries.iter().map(|n| (ENTRY, message(&[(4, b"data")], &[(2, 1), (3, *n)])));
        for (kind, data) in sums.chain(entries) {
            sum = castagnoli(sum, &data);
            let record = message(&[(3, &data)], &[(1, kind), (2, sum.into())]);
            let padding = (8 - record.len() % 8) % 8;
            let head =
                record.len() as u64 | if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
            begins.push(bytes.len());
            bytes.extend_from_slice(&head.to_le_bytes());
            bytes.extend_from_slice(&record);
            bytes.resize(bytes.len() + padding, 0);
        }
        bytes.resize(bytes.len() + 100, 0);
        (bytes, begins)
    }

    fn read_all(mut bytes: &[u8]) -> (u64, End) {
        let mut reached = Reached::default();
        let end = read(&mut bytes, &mut reached).expect("bytes can be read");
        (reached.last, end)
    }

    #[test]
    fn the_sum_is_the_one_that_everybody_means() {
        assert_eq!(castagnoli(0, b"123456789"), 0xe306_9283);
        assert_eq!(castagnoli(castagnoli(0, b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn a_log_is_read_as_far_as_it_is_whole() {
        let (whole, begins) = log(&[1, 2, 3, 4]);
        let at = |record: usize| begins[record] as u64;
        let end = whole.len() as u64 - 100;
        assert_eq!(read_all(&whole), (4, End::Reserved(end)));
        assert_eq!(read_all(&whole[..begins[3]]), (2, End::Full(at(3))), "cut between records");
        assert_eq!(read_all(&whole[..begins[3] + 9]), (2, End::Cut(at(3))), "cut within one");
        assert_eq!(read_all(&whole[..begins[3] + 3]), (2, End::Cut(at(3))), "cut at its head");
        let mut altered = whole.clone();
        altered[begins[2] + 20] ^= 0x55;
        assert_eq!(read_all(&altered), (1, End::Altered(at(2))));
        assert_eq!(read_all(&[]), (0, End::Full(0)));
        let mut long = whole;
        long[begins[1]..begins[1] + 7].fill(0xff);
        assert_eq!(read_all(&long), (0, End::Altered(at(1))), "a length out of all measure");
    }

    #[test]
    fn what_a_new_leader_has_replaced_is_not_counted() {
        assert_eq!(read_all(&log(&[1, 2, 3, 4, 2]).0).0, 2);
    }
}
