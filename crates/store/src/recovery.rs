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
    /// The last run ended without closing; all acknowledged writes are there.
    Unclean,
    /// The database was damaged and a verified copy took its place.
    Restored {
        /// What the check found.
        reason: String,
        /// The copy.
        copy: PathBuf,
        /// When the copy was made.
        taken: SystemTime,
        /// Where the damaged files were put.
        damaged: PathBuf,
    },
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fresh => f.write_str("new store"),
            Self::Clean => f.write_str("store opened, it was closed properly"),
            Self::Unclean => f.write_str(
                "store opened after a crash or power cut, every acknowledged write is there",
            ),
            Self::Restored { reason, copy, taken, damaged } => {
                let age = taken.elapsed().unwrap_or(Duration::ZERO);
                write!(
                    f,
                    "the database was damaged ({reason}); restored the verified copy {} made {} ago, \
                     changes since then are lost; the damaged files are in {}",
                    copy.display(),
                    span(age),
                    damaged.display()
                )
            }
        }
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
