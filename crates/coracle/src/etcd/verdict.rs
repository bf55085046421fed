//! Why etcd ended: decided from its last words.

use std::time::Duration;

use super::process::Ended;

/// A run that lasted longer than this had opened its files and was fine.
const SETTLED: Duration = Duration::from_secs(60);

/// Why etcd ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The others have removed it from the cluster.
    Removed,
    /// It cannot work with its files.
    Damaged(String),
    /// Another program has its port.
    PortTaken,
    /// The disk is full.
    DiskFull,
    /// Something else; it may be fine the next time.
    Other,
}

/// What a line of etcd contains, and what it means.
type Sign = (&'static str, fn(&str) -> Verdict);

/// What etcd 3.4 and later write before they end, and what that means. The first that is found
/// counts.
const SIGNS: &[Sign] = &[
    ("no space left on device", |_| Verdict::DiskFull),
    ("address already in use", |_| Verdict::PortTaken),
    // A trace of it names whatever was under way.
    ("out of memory", |_| Verdict::Other),
    ("permanently removed from the cluster", |_| Verdict::Removed),
    ("the member has been removed", |_| Verdict::Removed),
    ("crc mismatch", damaged),
    ("invalid database", damaged),
    ("failed to recover v3 backend", damaged),
    ("failed to open database", damaged),
    ("unexpected fault address", damaged),
    ("freepages:", damaged),
    ("bbolt", damaged),
    ("cannot use none as id", damaged),
    ("is out of range [lastIndex", damaged),
    ("failed to read WAL", damaged),
    ("fileutil: file already locked", |_| Verdict::Other),
];

fn damaged(line: &str) -> Verdict {
    Verdict::Damaged(line.to_owned())
}

/// Judges a run.
pub fn judge(ended: &Ended) -> Verdict {
    for (sign, verdict) in SIGNS {
        let Some(line) = ended.tail.iter().find(|line| line.contains(sign)) else { continue };
        return match verdict(&in_short(line)) {
            // Whatever made it stumble after so long, its files had been good: it gets another
            // chance with them, and if they are not, that run is short.
            Verdict::Damaged(_) if ended.lived > SETTLED => Verdict::Other,
            verdict => verdict,
        };
    }
    Verdict::Other
}

/// What a line of etcd's log says, without where in the program it was said.
fn in_short(line: &str) -> String {
    let Ok(fields) = serde_json::from_str::<serde_json::Value>(line) else {
        return line.to_owned();
    };
    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
    match (text("msg"), text("error")) {
        (message, error) if error.is_empty() => message,
        (message, error) => format!("{message}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(tail: &[&str], lived: u64) -> Verdict {
        let tail = tail.iter().map(|line| (*line).to_owned()).collect();
        judge(&Ended { status: "exit code 2".into(), tail, lived: Duration::from_secs(lived) })
    }

    /// As etcd 3.4.23 wrote it, each after its files had been treated so.
    #[test]
    fn torn_files_are_known_by_what_etcd_says() {
        for (treatment, said, expected) in [
            (
                "bytes of the log flipped",
                r#"{"level":"fatal","caller":"etcdmain/etcd.go:271","msg":"discovery failed","error":"walpb: crc mismatch"}"#,
                "discovery failed: walpb: crc mismatch",
            ),
            ("log emptied", "panic: cannot use none as id", "panic: cannot use none as id"),
            (
                "database cut",
                "unexpected fault address 0x7f77c401d000",
                "unexpected fault address 0x7f77c401d000",
            ),
            (
                "database emptied",
                r#"{"level":"panic","msg":"failed to recover v3 backend from snapshot","error":"failed to find database snapshot file"}"#,
                "failed to recover v3 backend from snapshot: failed to find database snapshot file",
            ),
            (
                "first pages overwritten",
                r#"{"level":"panic","msg":"failed to open database","error":"invalid database"}"#,
                "failed to open database: invalid database",
            ),
            (
                "pages overwritten",
                "panic: freepages: failed to get all reachable pages (page 5: out of bounds: 30)",
                "panic: freepages: failed to get all reachable pages (page 5: out of bounds: 30)",
            ),
        ] {
            assert_eq!(judged(&[said], 1), Verdict::Damaged(expected.into()), "{treatment}");
        }
    }

    #[test]
    fn what_is_no_damage_is_not_taken_for_it() {
        for (said, lived, expected) in [
            ("listen tcp 127.0.0.1:2379: bind: address already in use", 0, Verdict::PortTaken),
            ("panic: write wal: no space left on device", 500, Verdict::DiskFull),
            ("the member has been permanently removed from the cluster", 500, Verdict::Removed),
            ("panic: freepages: odd", 3600, Verdict::Other),
            ("fatal error: runtime: out of memory\\ngo.etcd.io/bbolt.mmap", 1, Verdict::Other),
            ("killed", 1, Verdict::Other),
        ] {
            assert_eq!(judged(&["first line", said], lived), expected, "{said}");
        }
    }
}
