use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use ext4_view::Ext4Read;

use super::table::Partition;

/// A part of an image as if it were a file of its own, which is what file systems are read through.
#[derive(Debug)]
pub struct Window {
    file: File,
    start: u64,
    length: u64,
    at: u64,
}

impl Window {
    /// A partition of an image.
    pub fn new(file: File, partition: &Partition) -> Self {
        Window { file, start: partition.start, length: partition.length, at: 0 }
    }

    fn room(&self, wanted: usize) -> usize {
        self.length.saturating_sub(self.at).min(wanted as u64) as usize
    }
}

impl Read for Window {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = self.room(into.len());
        let count = self.file.read_at(&mut into[..room], self.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Window {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let room = self.room(from.len());
        let count = self.file.write_at(&from[..room], self.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl Ext4Read for Window {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let end = start.checked_add(into.len() as u64).filter(|end| *end <= self.length);
        end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(self.file.read_exact_at(into, self.start + start)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_or_written_outside() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(b"0123456789", 0).expect("written");
        let partition = Partition { number: 1, start: 2, length: 5, uuid: String::new() };
        let mut window = Window::new(file.try_clone().expect("a handle"), &partition);
        let mut text = String::new();
        window.read_to_string(&mut text).expect("read");
        assert_eq!(text, "23456");
        window.seek(SeekFrom::End(-2)).expect("inside");
        assert!(window.write_all(b"abc").is_err(), "one byte too many");
        assert!(Ext4Read::read(&mut window, 3, &mut [0; 3]).is_err());
        let mut all = [0; 10];
        file.read_exact_at(&mut all, 0).expect("read");
        assert_eq!(&all, b"01234ab789");
    }
}
