//! `/etc/fstab`: swap and the data's disk.

use super::paths::DATA;
use crate::config::DataDisk;

/// How long the service waits for the disk; the board itself does not. A disk at USB takes its time, and
/// so does a slow board that has just formatted it.
const WAIT: &str = "3min";

/// The line that mounts the data's disk. A board without it still starts and can be reached; the
/// service does not (see [`requires`]).
pub fn line(disk: &DataDisk) -> String {
    format!(
        "LABEL={} {DATA} ext4 defaults,noatime,nofail,x-systemd.device-timeout={WAIT} 0 2",
        disk.label
    )
}

/// The file with the data's disk in it, once.
pub fn with_data(text: &str, disk: &DataDisk) -> String {
    let line = line(disk);
    let others = text.lines().filter(|old| old.split_whitespace().nth(1) != Some(DATA));
    others.chain([line.as_str()]).map(|line| format!("{line}\n")).collect()
}

/// The file with its swap commented out.
pub fn without_swap(text: &str) -> String {
    let quiet = |line: &str| {
        let swaps =
            !line.trim_start().starts_with('#') && line.split_whitespace().nth(2) == Some("swap");
        if swaps { format!("# off for Coracle: {line}\n") } else { format!("{line}\n") }
    };
    text.lines().map(quiet).collect()
}

/// Drop-in of the service, so that it never begins anew on the system's disk where the data's disk is
/// missing.
pub fn requires() -> String {
    format!("[Unit]\nRequiresMountsFor={DATA}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_goes_and_the_disk_stands_there_once() {
        let disk = DataDisk { device: "/dev/sda".into(), label: "coracle".into(), format: true };
        let before = "LABEL=root / ext4 defaults 0 1\n/swap none swap sw 0 0\n";
        let quiet = "LABEL=root / ext4 defaults 0 1\n# off for Coracle: /swap none swap sw 0 0\n";
        assert_eq!(without_swap(before), quiet);
        assert_eq!(without_swap(quiet), quiet);
        let once = with_data(quiet, &disk);
        assert_eq!(once, format!("{quiet}{}\n", line(&disk)));
        assert_eq!(with_data(&once, &disk), once);
    }
}
