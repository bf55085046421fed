//! Log files in CRI's format: `2016-10-06T00:17:09.669794202Z stdout F line`.
//!
//! `F` marks a whole line, `P` a part of a longer one. The shim writes and rotates them, so that
//! logs go on while the agent is away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest line in one entry; longer ones are split. CRI's usual value.
pub const LINE_LIMIT_BYTES: usize = 16 << 10;
/// Entries are gathered up to this before they are written.
const BATCH_LIMIT_BYTES: usize = 32 << 10;

/// Logs may hold secrets: not for everyone on the machine.
const FILE_MODE: u32 = 0o640;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A log file with its limits.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    limit_bytes: u64,
    files: u32,
}

impl Log {
    /// Opens (appending) or makes the file. Failures leave a log that drops what it is given:
    /// a full disk must not stop the container.
    pub fn open(path: PathBuf, limit_bytes: u64, files: u32) -> Self {
        let mut log = Self { path, file: None, size: 0, limit_bytes, files };
        log.reopen();
        log
    }

    /// Opens the path anew, after someone moved the file away.
    pub fn reopen(&mut self) {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(FILE_MODE);
        self.file = options.open(&self.path).ok();
        self.size = self.file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
    }

    /// Takes a chunk of a stream. `pending` holds the stream's unfinished line between calls.
    pub fn write(&mut self, source: Source, pending: &mut Vec<u8>, mut chunk: &[u8]) {
        let mut batch = Vec::new();
        let now = timestamp(SystemTime::now());
        while !chunk.is_empty() {
            let room = LINE_LIMIT_BYTES - pending.len();
            let window = &chunk[..chunk.len().min(room)];
            match window.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    entry(&mut batch, &now, source, true, pending, &chunk[..end]);
                    pending.clear();
                    chunk = &chunk[end + 1..];
                }
                None if window.len() == room => {
                    // A line that is exactly as long as the limit is whole, not a part.
                    let whole = chunk.get(room) == Some(&b'\n');
                    entry(&mut batch, &now, source, whole, pending, window);
                    pending.clear();
                    chunk = &chunk[room + usize::from(whole)..];
                }
                None => {
                    pending.extend_from_slice(window);
                    chunk = &chunk[window.len()..];
                }
            }
            if batch.len() >= BATCH_LIMIT_BYTES {
                self.flush(&mut batch);
            }
        }
        self.flush(&mut batch);
        // An idle stream shall not keep a long line's memory.
        if pending.is_empty() {
            *pending = Vec::new();
        }
    }

    /// Writes what is left of a stream that ended without a newline: as a part, since whoever reads
    /// the log shall not see a newline that nobody wrote.
    pub fn finish(&mut self, source: Source, pending: &mut Vec<u8>) {
        if !pending.is_empty() {
            let mut batch = Vec::new();
            let now = timestamp(SystemTime::now());
            entry(&mut batch, &now, source, false, &std::mem::take(pending), &[]);
            self.flush(&mut batch);
        }
    }

    fn flush(&mut self, batch: &mut Vec<u8>) {
        if let Some(file) = &mut self.file
            && !batch.is_empty()
            && file.write_all(batch).is_ok()
        {
            self.size += batch.len() as u64;
        }
        batch.clear();
        if self.limit_bytes > 0 && self.size >= self.limit_bytes {
            // What cannot be rotated is written on: losing lines would be worse.
            let _ = rotate(&self.path, self.files);
            self.reopen();
        }
    }
}

/// Moves `x` to `x.1`, `x.1` to `x.2` and so on; the oldest goes.
fn rotate(path: &Path, files: u32) -> io::Result<()> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    for n in (1..files.saturating_sub(1)).rev() {
        match std::fs::rename(numbered(n), numbered(n + 1)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    if files > 1 { std::fs::rename(path, numbered(1)) } else { std::fs::remove_file(path) }
}

fn entry(batch: &mut Vec<u8>, now: &str, source: Source, whole: bool, head: &[u8], tail: &[u8]) {
    batch.extend_from_slice(now.as_bytes());
    batch.extend_from_slice(match (source, whole) {
        (Source::Stdout, true) => b" stdout F ".as_slice(),
        (Source::Stdout, false) => b" stdout P ",
        (Source::Stderr, true) => b" stderr F ",
        (Source::Stderr, false) => b" stderr P ",
    });
    batch.extend_from_slice(head);
    batch.extend_from_slice(tail);
    batch.push(b'\n');
}

/// RFC 3339 in UTC with nanoseconds. Not by a calendar library: the shim stays small.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_nanos()
    )
}

/// Days since 1970-01-01 to a date, by counting in years that begin in March (so that the leap
/// day is the last) within eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entries(chunks: &[&[u8]]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(path.clone(), 0, 5);
        let mut pending = Vec::new();
        for chunk in chunks {
            log.write(Source::Stdout, &mut pending, chunk);
        }
        log.finish(Source::Stdout, &mut pending);
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_are_joined_across_chunks() {
        assert_eq!(
            entries(&[b"one\ntw", b"o\n\nlast"]),
            ["stdout F one", "stdout F two", "stdout F ", "stdout P last"]
        );
    }

    #[test]
    fn long_lines_are_split() {
        let mut line = vec![b'x'; LINE_LIMIT_BYTES + 3];
        line.push(b'\n');
        let got = entries(&[&line[..100], &line[100..]]);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].len(), "stdout P ".len() + LINE_LIMIT_BYTES);
        assert!(got[0].starts_with("stdout P x"));
        assert_eq!(got[1], "stdout F xxx");
        let mut exact = vec![b'y'; LINE_LIMIT_BYTES];
        exact.push(b'\n');
        let got = entries(&[&exact]);
        assert_eq!(got.len(), 1);
        assert!(got[0].starts_with("stdout F y"));
    }

    #[test]
    fn rotation_keeps_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(path.clone(), 60, 3);
        for n in 0..8 {
            log.write(Source::Stderr, &mut Vec::new(), format!("line number {n}\n").as_bytes());
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let newest = std::fs::read_to_string(folder.path().join("log.1")).unwrap();
        assert!(newest.contains("line number 7"), "{newest}");
    }

    #[test]
    fn dates() {
        let at = |s: u64| timestamp(UNIX_EPOCH + Duration::new(s, 5));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000005Z");
    }
}
