use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What a file of this machine holds, and how much that is.
    Copy(PathBuf, u64),
}

impl Content {
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Copy(_, length) => *length,
        }
    }
}

/// More lines of a file than this are not shown.
const MOST_LINES: usize = 30;

/// Whose a file is: user and group.
pub type Owner = (u32, u32);

/// Root's.
pub const ROOT: Owner = (0, 0);

/// One difference between a stock image and a board's. Folders on the way are made where they are
/// missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file is as described, whatever was there.
    File {
        /// Where, as the running board will see it.
        path: String,
        /// What it holds.
        content: Content,
        /// Permissions.
        mode: u16,
        /// User and group.
        owner: Owner,
        /// It is not to be shown.
        secret: bool,
        /// What it held, where that was a text.
        before: Option<String>,
    },
    /// A folder is there.
    Folder {
        /// Where.
        path: String,
        /// Permissions.
        mode: u16,
        /// User and group.
        owner: Owner,
    },
    /// A symbolic link is there, whatever was in its place.
    Link {
        /// Where.
        path: String,
        /// What it says.
        target: String,
    },
    /// A file or link is gone.
    Remove {
        /// Where it was.
        path: String,
    },
}

impl Change {
    /// What it is about.
    pub fn path(&self) -> &str {
        match self {
            Change::File { path, .. }
            | Change::Folder { path, .. }
            | Change::Link { path, .. }
            | Change::Remove { path } => path,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::File { path, content, mode, owner: (user, group), secret, before } => {
                write!(f, "write  {path}  {mode:04o} {user}:{group}")?;
                match content {
                    _ if *secret => write!(f, "  (secret)"),
                    Content::Copy(from, length) => {
                        write!(f, "  {:.1} MB from {}", *length as f64 / 1e6, from.display())
                    }
                    Content::Bytes(bytes) => differences(f, before.as_deref().unwrap_or(""), bytes),
                }
            }
            Change::Folder { path, mode, owner: (user, group) } => {
                write!(f, "folder {path}  {mode:04o} {user}:{group}")
            }
            Change::Link { path, target } => write!(f, "link   {path} -> {target}"),
            Change::Remove { path } => write!(f, "remove {path}"),
        }
    }
}

/// Lines that go and lines that come. That a line has moved is not shown.
fn differences(f: &mut fmt::Formatter<'_>, before: &str, after: &[u8]) -> fmt::Result {
    let after = String::from_utf8_lossy(after);
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (before.lines().collect(), after.lines().collect());
    for line in before.lines().filter(|line| !new.contains(line)) {
        write!(f, "\n       - {line}")?;
    }
    let come: Vec<&str> = after.lines().filter(|line| !old.contains(line)).collect();
    for line in come.iter().take(MOST_LINES) {
        write!(f, "\n       + {line}")?;
    }
    match come.len().saturating_sub(MOST_LINES) {
        0 => Ok(()),
        more => write!(f, "\n         and {more} lines more"),
    }
}
