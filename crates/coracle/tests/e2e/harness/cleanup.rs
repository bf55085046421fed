//! Taking away what a board left on the machine, however it ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

/// How long processes may take to die.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends every process that was started with `folder` in its arguments or that is in the cgroups
/// below `prefix`, then removes the cgroups, the mounts below `folder`, and `folder`.
pub fn sweep(folder: &Path, prefix: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        kill_named(folder);
        kill_cgroups(prefix);
        if remove_cgroups(prefix) || Instant::now() > deadline {
            break;
        }
        std::thread::yield_now();
    }
    unmount(folder);
    let _ = fs::remove_dir_all(folder);
}

/// Shims and the process for DNS are found by the paths they were given.
fn kill_named(folder: &Path) {
    for pid in pids_with(folder.as_os_str().as_encoded_bytes()) {
        // SAFETY: plain system call on a process that names this board's own folder.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Processes with `needle` in their arguments.
pub fn pids_with(needle: &[u8]) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(needle.len()).any(|window| window == needle)
        })
        .collect()
}

/// Unmounts all below `folder`, the deepest first.
pub fn unmount(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let point = line.split(' ').nth(1).unwrap_or_default();
        if Path::new(point).starts_with(folder) {
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|f| f.len() > 2 && f[2].starts_with("cgroup"))
        .map(|f| PathBuf::from(f[1]))
        .collect()
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(folder);
}

fn tops(prefix: &str) -> Vec<PathBuf> {
    let below = prefix.trim_start_matches('/');
    hierarchies().into_iter().map(|root| root.join(below)).filter(|top| top.is_dir()).collect()
}

fn kill_cgroups(prefix: &str) {
    for top in tops(prefix) {
        walk(&top, &mut |folder| {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 1) {
                // SAFETY: plain system call on a process in a cgroup of this board.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
    }
}

/// Removes the cgroups below `prefix`; whether all are gone.
pub fn remove_cgroups(prefix: &str) -> bool {
    for top in tops(prefix) {
        walk(&top, &mut |folder| {
            let _ = fs::remove_dir(folder);
        });
    }
    tops(prefix).is_empty()
}
