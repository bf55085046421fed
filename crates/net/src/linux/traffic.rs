//! What went through the interfaces of this network namespace, from `/proc/net/dev`. That file follows
//! the process that reads it; `/sys/class/net` shows the namespace that was current when it was mounted.

use std::collections::BTreeMap;

/// What went through an interface since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What came in.
    pub received: Counts,
    /// What went out.
    pub sent: Counts,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were damaged.
    pub errors: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

impl Traffic {
    /// As the other end of the pair counts it.
    pub(crate) fn turned(self) -> Traffic {
        Traffic { received: self.sent, sent: self.received }
    }
}

/// The counters of all interfaces by name; none where the kernel says nothing.
pub(crate) fn of_interfaces() -> BTreeMap<String, Traffic> {
    // A thread may be in another namespace than the process, as ours are while they set up a pod.
    parse(&std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default())
}

/// Two lines of headings, then `name: ` with eight figures of each direction.
fn parse(text: &str) -> BTreeMap<String, Traffic> {
    const COLUMNS_EACH_WAY: usize = 8;
    let line = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let (received, sent) = figures.split_at_checked(COLUMNS_EACH_WAY)?;
        let traffic = Traffic { received: counts(received)?, sent: counts(sent)? };
        Some((name.trim().to_owned(), traffic))
    };
    text.lines().filter_map(line).collect()
}

fn counts(figures: &[u64]) -> Option<Counts> {
    let [bytes, packets, errors, dropped, ..] = *figures else { return None };
    Some(Counts { bytes, packets, errors, dropped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_table_is_read() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       1       2    0    0    0     0          0         0        1       2    0    0    0     0       0          0
cor1f:9000      90    1    2    0     0          0         7      500       5    3    4    0     0       0          0
broken: 1 2
";
        let one = |bytes, packets, errors, dropped| Counts { bytes, packets, errors, dropped };
        let read = parse(text);
        assert_eq!(read.len(), 2);
        let seen = Traffic { received: one(9000, 90, 1, 2), sent: one(500, 5, 3, 4) };
        assert_eq!(read["cor1f"], seen);
        assert_eq!(seen.turned(), Traffic { received: seen.sent, sent: seen.received });
    }
}
