use super::{Verdict, Verdicts};

/// Measures what the data's disk does: small writes that are durable one by one, and a long one. It
/// writes 17 MiB in all, and removes them.
pub const MEASURE: &str = r#"
folder=/var/lib/coracle
[ -d "$folder" ] || folder=/var/lib
file=$folder/.coracle-check.$$
trap 'rm -f "$file"' EXIT
now() { date +%s%N; }
writes=50
begin=$(now)
dd if=/dev/zero of="$file" bs=4k count=$writes oflag=dsync 2>/dev/null || exit 1
end=$(now)
echo "sync_ns=$(((end - begin) / writes))"
begin=$(now)
dd if=/dev/zero of="$file" bs=1M count=16 conv=fsync 2>/dev/null || exit 1
end=$(now)
echo "sequential_ns=$(((end - begin) / 16))"
"#;

/// Writes a second that a loaded etcd wants, and the least with which it stays in step.
const ETCD_GOOD: f64 = 500.0;
const ETCD_MIN: f64 = 50.0;
/// The same for SQLite, where one write makes all durable that wait.
const SQLITE_GOOD: f64 = 30.0;
const SQLITE_MIN: f64 = 5.0;
/// MiB a second with which images are unpacked in bearable time.
const SEQUENTIAL_GOOD: f64 = 10.0;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disk {
    /// Durable writes a second, one after the other.
    pub writes: f64,
    /// MiB a second.
    pub sequential: f64,
}

impl Disk {
    /// Reads what [`MEASURE`] printed.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            line.parse::<f64>().ok().filter(|nanos| *nanos > 0.0)
        };
        Some(Self { writes: 1e9 / value("sync_ns")?, sequential: 1e9 / value("sequential_ns")? })
    }
}

/// Whether a disk is fast enough; `etcd`: for a server that runs one, none: for an agent.
pub fn check_disk(board: &str, disk: Disk, etcd: Option<bool>) -> Vec<Verdict> {
    let mut verdicts = Verdicts::of(board);
    let Disk { writes, sequential } = disk;
    let latency = 1000.0 / writes;
    let figures = format!("{writes:.0} durable writes a second ({latency:.1} ms each)");
    let (engine, good, least) = match etcd {
        Some(true) => ("etcd", ETCD_GOOD, ETCD_MIN),
        Some(false) => ("SQLite", SQLITE_GOOD, SQLITE_MIN),
        None => ("pods", 0.0, 0.0),
    };
    let next = "put /var/lib/coracle on an SSD (`data`)";
    if writes < least {
        let what = format!("{figures}: too slow for {engine}, which needs {least:.0}");
        verdicts.fail("disk writes", what, next);
    } else if writes < good {
        let what =
            format!("{figures}: enough for {engine} while little is written ({good:.0} are good)");
        verdicts.warn("disk writes", what, next);
    } else {
        verdicts.ok("disk writes", format!("{figures}: good for {engine}"));
    }
    let what = format!("{sequential:.0} MiB a second");
    match sequential < SEQUENTIAL_GOOD {
        true => verdicts.warn("disk speed", format!("{what}: images unpack slowly"), next),
        false => verdicts.ok("disk speed", what),
    }
    verdicts.list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn the_same_card_is_enough_for_sqlite_and_not_for_etcd() {
        let disk = Disk::parse("sync_ns=25000000\nsequential_ns=50000000\n").expect("figures");
        assert_eq!(disk, Disk { writes: 40.0, sequential: 20.0 });
        let level = |disk, etcd| check_disk("pi", disk, etcd)[0].level;
        assert_eq!(level(disk, Some(false)), Level::Ok);
        assert_eq!(level(disk, Some(true)), Level::Fail);
        assert_eq!(level(disk, None), Level::Ok);
        let faster = |writes| Disk { writes, ..disk };
        assert_eq!(level(faster(50.0), Some(true)), Level::Warn);
        assert_eq!(level(faster(499.0), Some(true)), Level::Warn);
        assert_eq!(level(faster(500.0), Some(true)), Level::Ok);
        assert_eq!(level(faster(4.0), Some(false)), Level::Fail);
    }
}
