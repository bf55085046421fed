//! What boards and parts take and hold: the table that plans are reckoned with. Every figure has its
//! source; what nobody published is called an estimate, and a file may say better under `hardware`.

use crate::config::{self, Architecture, Cluster};

/// A board or a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// What `model` and `parts` call it.
    pub name: &'static str,
    /// What a board computes with; parts have none.
    pub computer: Option<Computer>,
    /// What it takes on average.
    pub average_watts: f64,
    /// What it takes at the most.
    pub maximum_watts: f64,
    /// Where the watts are from.
    pub source: &'static str,
}

/// What a board computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Computer {
    /// Instruction set.
    pub architecture: Architecture,
    /// Memory.
    pub memory_mib: u64,
    /// Cores.
    pub cores: u32,
}

impl Known {
    /// Whether it is a board.
    pub const fn is_board(&self) -> bool {
        self.computer.is_some()
    }
}

/// A board or part as a plan uses it: from the table or from the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What a board computes with, as far as it is known.
    pub computer: Option<Computer>,
    /// What it takes on average.
    pub average_watts: f64,
    /// What it takes at the most.
    pub maximum_watts: f64,
    /// Where the watts are from.
    pub source: String,
}

/// Looks a name up: in the file first, then in the table.
pub fn find(cluster: &Cluster, name: &str) -> Option<Found> {
    let known = TABLE.iter().find(|known| known.name == name);
    let Some(own) = cluster.hardware.get(name) else {
        return known.map(|known| Found {
            computer: known.computer,
            average_watts: known.average_watts,
            maximum_watts: known.maximum_watts,
            source: known.source.to_owned(),
        });
    };
    let memory = own.memory.as_deref().and_then(config::bytes).map(|bytes| bytes >> 20);
    let base = known.and_then(|known| known.computer);
    let described = memory.is_some() || own.cores.is_some() || own.architecture.is_some();
    let computer = (described || base.is_some()).then(|| Computer {
        architecture: own
            .architecture
            .or(base.map(|base| base.architecture))
            .unwrap_or(Architecture::Arm64),
        memory_mib: memory.or(base.map(|base| base.memory_mib)).unwrap_or(0),
        cores: own.cores.or(base.map(|base| base.cores)).unwrap_or(0),
    });
    Some(Found {
        computer,
        average_watts: own.average_watts,
        maximum_watts: own.maximum_watts,
        source: own.source.clone().unwrap_or_else(|| "this file".into()),
    })
}

/// Raspberry Pi's documentation, "Power supply": typical active current of the bare board at 5 V;
/// at the most what the recommended supply gives beyond what USB devices may draw.
const DOCUMENTATION: &str = "Raspberry Pi documentation, power supply: typical current at 5 V; at \
                             most the recommended supply less the share of USB";
/// The same page has a stress test: 0.85 A on average and 1.34 A at the most for a Pi 3 B, 0.82 A at the
/// most for a Pi 2 B, 0.35 A for a Zero.
const TYPICAL_AND_STRESS: &str =
    "Raspberry Pi documentation, power supply: typical current at 5 V; at the most its stress test";
const STRESS: &str = "Raspberry Pi documentation, power supply: its stress test at 5 V";
/// A Zero 2 W under stress took 1.4 W more than a Zero W (andrejacobs.org, by a meter).
const ZERO_W: &str = "Raspberry Pi documentation, power supply: typical current at 5 V; at the most an \
                      estimate, by the stress test of the Zero";
const ZERO_2: &str = "Raspberry Pi documentation, power supply: typical current at 5 V; at the most an \
                      estimate: 1.4 W above a Zero W, as measured by andrejacobs.org";
/// The announcement of the Pi 5 compares the peaks of both. A Pi 4 in the documentation's stress test takes
/// 6.25 W at the most, and 6.3 W at the wall by chipwired.com: the peak is the careful figure.
const ANNOUNCEMENT: &str = "Raspberry Pi documentation, power supply: typical current at 5 V; peak \
                            from the announcement of the Pi 5 (12 W, and 8 W for the 4)";
/// Figures of the maker under load, as a builder of five boards collected them. Those of the boards are the
/// Pi 3 B's in the stress test of Raspberry Pi's documentation.
const FIVE_BOARDS: &str =
    "makers' figures under load, collected in ttt.io/anatomy-of-my-kubernetes-cluster";
const POE: &str = "estimate: 85 % of what the standard lets a device take reach the board";
const USB2: &str = "estimate; at most what a port of USB 3.0 gives is 4.5 W";
const ESTIMATE: &str = "estimate";

const fn board(
    name: &'static str,
    architecture: Architecture,
    memory_mib: u64,
    cores: u32,
    watts: (f64, f64),
    source: &'static str,
) -> Known {
    let computer = Some(Computer { architecture, memory_mib, cores });
    Known { name, computer, average_watts: watts.0, maximum_watts: watts.1, source }
}

const fn part(name: &'static str, watts: (f64, f64), source: &'static str) -> Known {
    Known { name, computer: None, average_watts: watts.0, maximum_watts: watts.1, source }
}

/// The boards and parts that are known.
pub const TABLE: &[Known] = {
    use Architecture::{Amd64, Arm64, Armv6, Armv7};
    const PI_4: (f64, f64) = (3.0, 8.0);
    const PI_5: (f64, f64) = (4.0, 12.0);
    &[
        board("raspberry-pi-1", Armv6, 512, 1, (1.65, 3.0), DOCUMENTATION),
        board("raspberry-pi-zero", Armv6, 512, 1, (0.5, 1.75), TYPICAL_AND_STRESS),
        board("raspberry-pi-zero-w", Armv6, 512, 1, (0.75, 2.0), ZERO_W),
        board("raspberry-pi-zero-2-w", Arm64, 512, 4, (1.75, 3.4), ZERO_2),
        board("raspberry-pi-2", Armv7, 1024, 4, (1.75, 4.1), TYPICAL_AND_STRESS),
        board("raspberry-pi-3b", Arm64, 1024, 4, (4.25, 6.7), STRESS),
        board("raspberry-pi-3b-plus", Arm64, 1024, 4, (4.25, 6.7), FIVE_BOARDS),
        board("raspberry-pi-4-1gb", Arm64, 1024, 4, PI_4, ANNOUNCEMENT),
        board("raspberry-pi-4-2gb", Arm64, 2048, 4, PI_4, ANNOUNCEMENT),
        board("raspberry-pi-4-4gb", Arm64, 4096, 4, PI_4, ANNOUNCEMENT),
        board("raspberry-pi-4-8gb", Arm64, 8192, 4, PI_4, ANNOUNCEMENT),
        board("raspberry-pi-5-2gb", Arm64, 2048, 4, PI_5, ANNOUNCEMENT),
        board("raspberry-pi-5-4gb", Arm64, 4096, 4, PI_5, ANNOUNCEMENT),
        board("raspberry-pi-5-8gb", Arm64, 8192, 4, PI_5, ANNOUNCEMENT),
        board("raspberry-pi-5-16gb", Arm64, 16384, 4, PI_5, ANNOUNCEMENT),
        board("mini-pc-n100-8gb", Amd64, 8192, 4, (7.0, 25.0), ESTIMATE),
        board("mini-pc-n100-16gb", Amd64, 16384, 4, (7.0, 25.0), ESTIMATE),
        part("touchscreen-7in", (3.0, 4.0), FIVE_BOARDS),
        part("nvme-ssd-usb", (3.5, 7.0), FIVE_BOARDS),
        part("switch-8-port-gigabit", (6.0, 7.5), FIVE_BOARDS),
        part("switch-5-port-gigabit", (2.0, 3.0), ESTIMATE),
        part("switch-8-port-poe", (5.0, 8.0), "estimate, without what it feeds"),
        part("poe-hat", (0.7, 1.95), POE),
        part("poe-plus-hat", (0.9, 3.85), POE),
        part("fan-40mm", (0.25, 0.5), "data sheet of the Noctua NF-A4x20 5V: 0.5 W at full speed"),
        part("usb-stick", (0.5, 1.5), ESTIMATE),
        part("ssd-usb", (1.5, 4.5), USB2),
        part("hdd-usb", (2.5, 4.5), USB2),
        part("nvme-hat", (2.0, 5.0), "estimate; at most what the Pi 5's PCIe connector gives"),
        part("mosfet-board-4", (0.1, 0.2), ESTIMATE),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_nothing_takes_more_on_average_than_at_the_most() {
        for (position, known) in TABLE.iter().enumerate() {
            assert!(TABLE[..position].iter().all(|other| other.name != known.name), "{known:?}");
            assert!(known.average_watts <= known.maximum_watts, "{known:?}");
            assert!(!known.source.is_empty(), "{known:?}");
        }
    }
}
