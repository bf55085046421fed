//! What the machine is made of, from /proc, /sys and the file system.

use std::fs;
use std::io;
use std::path::Path;

/// Facts that do not change while the machine runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// CPUs online.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's id, the machine id where there is none (as on a Raspberry Pi).
    pub system_uuid: String,
    /// A new one at each boot.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of the distribution.
    pub os_image: String,
    /// Bytes of swap.
    pub swap_bytes: u64,
}

impl Machine {
    /// Reads the facts; what cannot be read is empty.
    pub fn read() -> Machine {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let machine_id = line("/etc/machine-id");
        let firmware = line("/sys/class/dmi/id/product_uuid");
        let info = line("/proc/meminfo");
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        Machine {
            cpus: online_cpus().unwrap_or(u32::try_from(cpus).unwrap_or(1)),
            memory_bytes: meminfo(&info, "MemTotal"),
            swap_bytes: meminfo(&info, "SwapTotal"),
            system_uuid: if firmware.is_empty() { machine_id.clone() } else { firmware },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&line("/etc/os-release")),
        }
    }
}

/// Kubernetes' name of the processor's architecture.
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// CPUs from the kernel's list (`0-3,6`).
fn online_cpus() -> Option<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    count_list(text.trim())
}

fn count_list(text: &str) -> Option<u32> {
    text.split(',')
        .map(|part| match part.split_once('-') {
            Some((first, last)) => {
                let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
                Some(last.checked_sub(first)? + 1)
            }
            None => part.parse::<u32>().ok().map(|_| 1),
        })
        .sum()
}

/// One line of /proc/meminfo, in bytes.
pub fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes of memory that could be had now.
pub fn memory_available() -> u64 {
    meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable")
}

fn pretty_name(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches(['"', '\'']).to_owned()
}

/// Size and free room of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes altogether.
    pub capacity: u64,
    /// Bytes that may still be written.
    pub available: u64,
    /// Inodes altogether; 0 where the file system does not count them.
    pub inodes: u64,
    /// Inodes left.
    pub inodes_free: u64,
}

/// The file system that `path`, or its nearest parent that exists, lies on.
pub fn space(path: &Path) -> io::Result<Space> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let stat = nix::sys::statvfs::statvfs(existing)?;
    let block = stat.fragment_size();
    Ok(Space {
        capacity: stat.blocks() * block,
        available: stat.blocks_available() * block,
        inodes: stat.files(),
        inodes_free: stat.files_available(),
    })
}

/// Processes there may be, and processes there are.
pub fn pids() -> (u64, u64) {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let max = number("/proc/sys/kernel/pid_max").unwrap_or(32_768);
    let max = max.min(number("/proc/sys/kernel/threads-max").unwrap_or(max));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running = load.split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse().ok());
    (max, running.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts() {
        assert_eq!(count_list("0-3,6"), Some(5));
        assert_eq!(count_list("0"), Some(1));
        assert_eq!(meminfo("MemTotal:  16 kB\nMemFree: 1 kB\n", "MemTotal"), 16_384);
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty());
        assert!(space(Path::new("/nonexistent/x")).unwrap().capacity > 0);
        assert!(pids().0 > 0);
    }
}
