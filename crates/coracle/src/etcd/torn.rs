//! What is torn of a member's files, seen before etcd starts: etcd itself takes any log that ends
//! too early for one whose last write was under way, and goes on without what it had acknowledged.
//! A member that does so beside others votes for what they never agreed on.
//!
//! Two marks tell such a log: etcd reserves room behind its last record, so a file that ends with
//! or within a record was cut; and the database must not have seen what the log has forgotten. The
//! database is synced every few seconds: a card that loses less than that, and leaves zeros in its
//! place, is not found out here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use super::bolt;
use super::log::{self, End, Reached, Segment};

/// A file of the log that is so large may be full: etcd is about to begin the next.
const FULL_BYTES: u64 = 64_000_000;
/// Where a member keeps its log, its database and its snapshots.
const LOG: &str = "member/wal";
const SNAPSHOTS: &str = "member/snap";
const DATABASE: &str = "member/snap/db";

/// A member's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The files of the log, as far as they are whole; how far each is; the last entry by then.
    log: Vec<(Segment, End, u64)>,
    /// Bytes of the last of these.
    bytes: u64,
    /// Whether etcd has cut that one itself, mending it after a crash.
    mended: bool,
    /// Whether the log's first entry is in these files.
    from_the_first: bool,
    /// The last entry that was applied to the database, 0 where it does not say; none where it is
    /// no database.
    applied: Option<u64>,
}

/// How a member without others gets going again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// The log is cut behind its last whole entry, which is this one.
    Shorten(u64),
    /// The database is made anew from the log, which holds everything.
    Replay,
    /// A new member is made of the database, which has this entry.
    Rebuild(u64),
}

impl Files {
    /// Looks at the files in a member's folder.
    pub fn look(folder: &Path) -> io::Result<Files> {
        let mut files = Files {
            log: Vec::new(),
            bytes: 0,
            mended: false,
            from_the_first: false,
            applied: bolt::applied(&folder.join(DATABASE)),
        };
        let mut reached = Reached::default();
        let segments = match log::segments(&folder.join(LOG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
            segments => segments?,
        };
        for segment in segments {
            files.bytes = fs::metadata(&segment.path)?.len();
            files.mended = broken(&segment.path).exists();
            let end = log::read(&mut BufReader::new(File::open(&segment.path)?), &mut reached)?;
            files.log.push((segment, end, reached.last));
            files.from_the_first = reached.first == 1;
            if matches!(end, End::Cut(_) | End::Altered(_)) {
                break;
            }
        }
        Ok(files)
    }

    /// What the member has forgotten although it was acknowledged, in words.
    pub fn forgotten(&self) -> Option<String> {
        let Some((segment, end, last)) = self.log.last() else {
            return Some("its log is not there".into());
        };
        let name = segment.path.file_name().unwrap_or_default().display();
        if matches!(end, End::Full(_) | End::Cut(_)) && self.bytes < FULL_BYTES && !self.mended {
            return Some(format!("{name} was cut to {} bytes, behind entry {last}", self.bytes));
        }
        // What stands where nothing should is for etcd to find; it ends by itself then.
        match self.applied {
            None => Some("the database is not there, or is none".into()),
            Some(applied) if applied > *last => Some(format!(
                "the log ends with entry {last}, but the database has entry {applied}"
            )),
            Some(_) => None,
        }
    }

    /// What can be done without others, where etcd cannot go on with the files.
    pub fn mend(&self) -> Option<Mend> {
        let last = self.log.last().map_or(0, |(.., last)| *last);
        let all_applied = self.applied.is_none_or(|applied| applied <= last);
        match (self.log_is_torn(), self.applied) {
            (true, Some(_)) if all_applied => Some(Mend::Shorten(last)),
            (false, _) if all_applied && self.from_the_first => Some(Mend::Replay),
            (_, Some(applied)) if applied > 0 => Some(Mend::Rebuild(applied)),
            _ => None,
        }
    }

    /// Whether the log ends otherwise than etcd ends it.
    fn log_is_torn(&self) -> bool {
        match self.log.last() {
            Some((_, End::Cut(_) | End::Altered(_), _)) => true,
            Some((_, End::Full(_), _)) => self.bytes < FULL_BYTES && !self.mended,
            Some((_, End::Reserved(_), _)) => false,
            None => true,
        }
    }

    /// Cuts the log behind its last whole record, and reserves the room that etcd expects.
    pub fn shorten(&self, folder: &Path) -> io::Result<()> {
        let Some((torn, end, _)) = self.log.last() else { return Ok(()) };
        let (End::Reserved(at) | End::Full(at) | End::Cut(at) | End::Altered(at)) = *end;
        for later in log::segments(&folder.join(LOG))? {
            if later.number > torn.number {
                fs::remove_file(later.path)?;
            }
        }
        let file = OpenOptions::new().write(true).open(&torn.path)?;
        file.set_len(at)?;
        file.set_len(FULL_BYTES.max(at))?;
        file.sync_all()
    }

    /// Leaves nothing but the log, which everything is read from again.
    pub fn replay(folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(folder.join(SNAPSHOTS))?;
        fs::create_dir(folder.join(SNAPSHOTS))
    }
}

/// Where the database of a member is.
pub fn database(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// Where etcd keeps a file of the log as it was before it cut off a write that had been under way.
fn broken(segment: &Path) -> PathBuf {
    let mut name = segment.as_os_str().to_owned();
    name.push(".broken");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u64 = 64_000_000;

    /// A member whose log has these ends, of so many bytes, and whose database has an entry.
    fn member(end: End, bytes: u64, last: u64, applied: Option<u64>) -> Files {
        let segment = Segment { path: "member/wal/0-0.wal".into(), number: 0 };
        let log = vec![(segment, end, last)];
        Files { log, bytes, mended: false, from_the_first: true, applied }
    }

    #[test]
    fn what_is_torn_is_told_from_what_a_crash_leaves() {
        for (what, files, forgotten, mend) in [
            ("in order", member(End::Reserved(900), WHOLE, 9, Some(7)), None, Some(Mend::Replay)),
            (
                "cut between records",
                member(End::Full(500), 500, 8, Some(7)),
                Some("0-0.wal was cut to 500 bytes, behind entry 8"),
                Some(Mend::Shorten(8)),
            ),
            (
                "cut within a record, before what was applied",
                member(End::Cut(500), 510, 5, Some(7)),
                Some("0-0.wal was cut to 510 bytes, behind entry 5"),
                Some(Mend::Rebuild(7)),
            ),
            ("full", member(End::Full(WHOLE), WHOLE, 9, Some(7)), None, Some(Mend::Replay)),
            (
                "the last write under way at a crash",
                member(End::Altered(500), WHOLE, 8, Some(7)),
                None,
                Some(Mend::Shorten(8)),
            ),
            (
                "zeros in the place of the end",
                member(End::Reserved(300), WHOLE, 3, Some(7)),
                Some("the log ends with entry 3, but the database has entry 7"),
                Some(Mend::Rebuild(7)),
            ),
            (
                "no database",
                member(End::Reserved(900), WHOLE, 9, None),
                Some("the database is not there, or is none"),
                Some(Mend::Replay),
            ),
            (
                "neither",
                member(End::Cut(500), 510, 5, None),
                Some("0-0.wal was cut to 510 bytes, behind entry 5"),
                None,
            ),
        ] {
            assert_eq!(files.forgotten().as_deref(), forgotten, "{what}");
            assert_eq!(files.mend(), mend, "{what}");
        }
        let mended = Files { mended: true, ..member(End::Full(500), 500, 8, Some(7)) };
        assert_eq!(mended.forgotten(), None, "etcd has cut it itself");
        let later = Files { from_the_first: false, ..member(End::Reserved(9), WHOLE, 9, None) };
        assert_eq!(later.mend(), None, "the log does not have everything");
        let gone = Files { log: Vec::new(), ..member(End::Cut(0), 0, 0, Some(7)) };
        assert_eq!(gone.mend(), Some(Mend::Rebuild(7)), "no log");
    }
}
