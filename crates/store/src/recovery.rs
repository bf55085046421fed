//! What opening a store found.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How the data came back. Its `Display` is a sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// There was nothing: a new store.
    Fresh,
    /// The last run closed the store.
    Clean,
    /// A datastore elsewhere, which keeps itself.
    Joined {
        /// What and where it is.
        datastore: String,
        /// How many objects it holds.
        objects: usize,
    },
    /// The last run ended without closing; all acknowledged writes are there, volatile
    /// collections as of their last checkpoint.
    Unclean,
    /// The database was damaged and a verified copy took its place.
    Restored {
        /// What the check found.
        reason: String,
        /// The copy.
        copy: PathBuf,
        /// When the copy was made.
        taken: SystemTime,
        /// How many newer objects could still be read from the damaged database.
        salvaged: usize,
        /// Where the damaged files were put.
        damaged: PathBuf,
    },
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fresh => f.write_str("new store"),
            Self::Clean => f.write_str("store opened, it was closed properly"),
            Self::Joined { datastore, objects } => {
                write!(f, "store opened over {datastore}, which holds {objects} objects")
            }
            Self::Unclean => f.write_str(
                "store opened after a crash or power cut; every acknowledged write is there, \
                 volatile collections are as of their last checkpoint",
            ),
            Self::Restored { reason, copy, taken, salvaged, damaged } => {
                let age = taken.elapsed().unwrap_or(Duration::ZERO);
                write!(
                    f,
                    "the database was damaged ({reason}); restored the verified copy {} of {}, made \
                     {} ago, and {salvaged} newer objects of the damaged one; other changes since \
                     then are lost; the damaged files are in {}",
                    copy.display(),
                    clock(*taken),
                    span(age),
                    damaged.display()
                )
            }
        }
    }
}

/// A moment, in UTC.
fn clock(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => "an unknown time".into(),
    }
}

/// A duration as a person says it: its largest unit and the next.
fn span(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_restored_and_from_when() {
        let recovery = Recovery::Restored {
            reason: "file is not a database".into(),
            copy: "/data/copies/store-86400000.db".into(),
            taken: SystemTime::UNIX_EPOCH + Duration::from_secs(86_400),
            salvaged: 7,
            damaged: "/data/damaged".into(),
        };
        let text = recovery.to_string();
        let (before, after) = text.split_once(", made ").unwrap_or_default();
        assert_eq!(
            before,
            "the database was damaged (file is not a database); restored the verified copy \
             /data/copies/store-86400000.db of 1970-01-02 00:00:00 UTC"
        );
        assert!(
            after.ends_with("changes since then are lost; the damaged files are in /data/damaged")
        );
    }

    #[test]
    fn spans() {
        let texts = [5, 65, 3700, 90_000].map(|s| span(Duration::from_secs(s)));
        assert_eq!(texts, ["5 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
