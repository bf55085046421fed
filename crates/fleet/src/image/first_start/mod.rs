//! What a prepared board does once, at its first start: its disks are as large as they can be only then,
//! and host keys should never lie in an image. It is the binary that is there anyway, since images differ
//! in the tools for partitions that they have.

mod block;
mod run;

pub use run::{disks, packages};

use serde::{Deserialize, Serialize};

use crate::board::paths;
use crate::config::{CARD, DataDisk};

/// What the first start is to do; it is gone once that is done.
pub const TASKS: &str = "/etc/coracle/first-start.json";
/// Packages that are still to be installed, one a line; it is gone once they are.
pub const PACKAGES: &str = "/etc/coracle/first-start.packages";

const DISKS_UNIT: &str = "coracle-first-start.service";
const PACKAGES_UNIT: &str = "coracle-packages.service";

/// What the first start is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstStart {
    /// The disk for the data, if not the system's.
    pub data: Option<DataDisk>,
    /// The unit to start in the end.
    pub service: Option<String>,
    /// Packages of the distribution.
    #[serde(skip)]
    pub packages: Vec<String>,
}

/// The files that have it done.
pub fn files(tasks: &FirstStart) -> Vec<(String, String)> {
    let text = serde_json::to_string_pretty(tasks).unwrap_or_default();
    let mut files = vec![
        (TASKS.to_owned(), text + "\n"),
        (format!("{}/{DISKS_UNIT}", paths::UNITS), disks_unit(tasks)),
    ];
    if !tasks.packages.is_empty() {
        files.push((PACKAGES.to_owned(), tasks.packages.join("\n") + "\n"));
        files.push((format!("{}/{PACKAGES_UNIT}", paths::UNITS), packages_unit()));
    }
    files
}

/// The units, and what they are started with.
pub fn units(tasks: &FirstStart) -> Vec<(&'static str, &'static str)> {
    let mut units = vec![(DISKS_UNIT, "local-fs.target")];
    if !tasks.packages.is_empty() {
        units.push((PACKAGES_UNIT, "multi-user.target"));
    }
    units
}

/// Runs when the root can be written to, and before anything is mounted that it may format.
fn disks_unit(tasks: &FirstStart) -> String {
    let device = tasks.data.as_ref().map(|data| data.device.as_str()).filter(|d| *d != CARD);
    // A disk at USB takes its time; systemd waits for it 90 seconds at the most.
    let device = device.map(|device| format!("{}.device", escaped(device)));
    let wants = device.as_ref().map(|device| format!("Wants={device}\n")).unwrap_or_default();
    let after = device.map(|device| format!(" {device}")).unwrap_or_default();
    format!(
        "[Unit]\n\
         Description=First start of this board for Coracle: disks and host keys\n\
         DefaultDependencies=no\n\
         ConditionPathExists={TASKS}\n\
         {wants}After=systemd-remount-fs.service systemd-udevd.service{after}\n\
         Before=local-fs.target var-lib-coracle.mount shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={} first-start disks\n\
         TimeoutStartSec=15min\n\
         \n\
         [Install]\n\
         WantedBy=local-fs.target\n",
        paths::BINARY
    )
}

fn packages_unit() -> String {
    format!(
        "[Unit]\n\
         Description=Packages that Coracle needs on this board\n\
         ConditionPathExists={PACKAGES}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={} first-start packages\n\
         Restart=on-failure\n\
         RestartSec=10s\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        paths::BINARY
    )
}

/// A path as names of units have it (systemd.unit(5), "String escaping").
fn escaped(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '_' || c == '.';
    let mut name = String::new();
    for c in path.trim_matches('/').chars() {
        match c {
            '/' => name.push('-'),
            c if plain(c) => name.push(c),
            c => c.to_string().bytes().for_each(|byte| name.push_str(&format!("\\x{byte:02x}"))),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_waits_for_its_disk() {
        let data = DataDisk {
            device: "/dev/disk/by-id/usb-Stick_1-0:0".into(),
            label: "coracle".into(),
            format: true,
        };
        let unit = disks_unit(&FirstStart { data: Some(data.clone()), ..FirstStart::default() });
        let device = "dev-disk-by\\x2did-usb\\x2dStick_1\\x2d0:0.device";
        assert!(unit.contains(&format!("Wants={device}\n")), "{unit}");
        assert!(unit.contains(&format!("systemd-udevd.service {device}\n")), "{unit}");
        let card = DataDisk { device: CARD.into(), ..data };
        let unit = disks_unit(&FirstStart { data: Some(card), ..FirstStart::default() });
        assert!(!unit.contains("Wants="), "{unit}");
    }
}
