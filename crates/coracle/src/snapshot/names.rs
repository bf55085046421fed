//! What snapshots are called: `<why>-<node>-<seconds since 1970>.snapshot`, and `.age` behind it
//! where it is encrypted. So a list needs no look inside.

use jiff::Timestamp;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// How names of scheduled ones begin unless told otherwise.
pub const SCHEDULED: &str = "scheduled";
/// How names of those begin that are taken before an upgrade; schedules never remove them.
pub const PRE_UPGRADE: &str = "pre-upgrade";
const ENDING: &str = ".snapshot";
const ENCRYPTED: &str = ".age";
/// What file systems and S3 have in common, with room for the endings.
const MAX_NAME_BYTES: usize = 200;

/// A snapshot as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its file's name.
    pub name: String,
    /// The file, or the URL of the object.
    pub location: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was taken.
    pub created: Timestamp,
    /// Whether it takes a passphrase.
    pub encrypted: bool,
}

/// The name of a new snapshot.
pub fn of_new(prefix: &str, node: &str, at: Timestamp, encrypted: bool) -> String {
    let encrypted = if encrypted { ENCRYPTED } else { "" };
    format!("{prefix}-{node}-{}{ENDING}{encrypted}", at.as_second())
}

/// Whether a file of this name is a snapshot.
pub fn is_snapshot(name: &str) -> bool {
    name.strip_suffix(ENCRYPTED).unwrap_or(name).ends_with(ENDING)
}

/// Whether a snapshot of this name takes a passphrase.
pub fn is_encrypted(name: &str) -> bool {
    name.ends_with(ENCRYPTED)
}

/// When a snapshot of this name was taken.
pub fn created(name: &str) -> Option<Timestamp> {
    let stem = name.strip_suffix(ENCRYPTED).unwrap_or(name).strip_suffix(ENDING)?;
    let seconds = stem.rsplit_once('-')?.1.parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// Checks the beginning of a name.
pub fn prefix(text: &str) -> Result<String, String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.len() <= MAX_NAME_BYTES
        && text.bytes().all(fine)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
    {
        true => Ok(text.to_owned()),
        false => Err("letters, digits, dots, dashes and underscores are needed".into()),
    }
}

/// Checks the name of a snapshot that is looked for.
pub fn of_present(text: &str) -> Outcome<String> {
    match prefix(text).is_ok() && is_snapshot(text) {
        true => Ok(text.to_owned()),
        false => Err(Failure::new(format!("{text:?} is the name of no snapshot"))
            .hint("`coracle snapshot list` shows what there is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_and_whether_encrypted() {
        let at = Timestamp::from_second(1_795_000_000).expect("a time");
        let name = of_new("on-demand", "pi-4", at, true);
        assert_eq!(name, "on-demand-pi-4-1795000000.snapshot.age");
        assert!(is_snapshot(&name) && is_encrypted(&name));
        assert_eq!(created(&name), Some(at));
        for other in ["store.db", "a.snapshot.part", "x.age"] {
            assert!(!is_snapshot(other), "{other}");
        }
        assert_eq!(created("mine.snapshot"), None);
    }

    #[test]
    fn names_lead_nowhere_else() {
        for wrong in ["../x.snapshot", "a/b.snapshot", ".x.snapshot", "", "x"] {
            assert!(of_present(wrong).is_err(), "{wrong}");
        }
        assert!(of_present("scheduled-pi-1.snapshot").is_ok());
    }
}
