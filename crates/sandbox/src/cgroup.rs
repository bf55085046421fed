//! A board's control groups: a group of its own in every hierarchy of the machine, which the
//! board sees as the root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Doing, Error, Hinted, Result};

/// The group that holds all sandboxes.
const TOP: &str = "coracle-sandbox";
/// Where the board's first process is with cgroup v2: groups with children hold no processes.
const FIRST: &str = "init.scope";
/// How long a group may stay busy after its last process was killed.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    pub(crate) unified: bool,
    /// The options that name it, for version 1.
    pub(crate) options: String,
}

/// The hierarchies that this process sees.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    parse(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, mount, kind @ ("cgroup" | "cgroup2"), options, ..] = fields[..] else { continue };
        let generic =
            ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "clone_children", "xattr"];
        let own = |option: &&str| {
            !generic.contains(option) && !option.contains('=') || option.starts_with("name=")
        };
        let mut own: Vec<&str> = options.split(',').filter(own).collect();
        if own.iter().all(|option| option.starts_with("name=")) {
            own.insert(0, "none");
        }
        let unified = kind == "cgroup2";
        let options = if unified { String::new() } else { own.join(",") };
        // Some machines mount a hierarchy twice; one view is enough.
        if !found.iter().any(|h| h.unified == unified && h.options == options) {
            found.push(Hierarchy { mount: mount.into(), unified, options });
        }
    }
    found
}

/// Makes the board's groups and moves this process into them.
pub(crate) fn join(sandbox: &str, board: &str) -> Result {
    let all = hierarchies();
    if all.is_empty() {
        return Err(Error::new("no control groups are mounted at /sys/fs/cgroup").with_hint(
            "start with systemd, or `mount -t cgroup2 none /sys/fs/cgroup`; do not use \
             `ip netns exec`, which hides them",
        ));
    }
    for hierarchy in all {
        enter(&hierarchy, sandbox, board)
            .doing(|| format!("making a control group in {}", hierarchy.mount.display()))
            .hinted("use sudo; in a container, start it with its control groups writable")?;
    }
    Ok(())
}

fn enter(hierarchy: &Hierarchy, sandbox: &str, board: &str) -> io::Result<()> {
    let mut group = hierarchy.mount.clone();
    for level in [TOP, sandbox, board] {
        if hierarchy.unified {
            delegate(&group);
        }
        let parent = group.clone();
        group.push(level);
        match fs::create_dir(&group) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        if !hierarchy.unified {
            inherit_cpuset(&parent, &group);
        }
    }
    fs::write(group.join("cgroup.procs"), "0")
}

/// Moves this process on, where groups with children must be empty. To be called when the board's
/// group has become the root of its view.
pub(crate) fn step_aside(sandbox: &str, board: &str) -> Result {
    for hierarchy in hierarchies().iter().filter(|hierarchy| hierarchy.unified) {
        let top = hierarchy.mount.join(TOP).join(sandbox).join(board);
        let first = top.join(FIRST);
        let moved =
            fs::create_dir_all(&first).and_then(|()| fs::write(first.join("cgroup.procs"), "0"));
        moved.doing(|| format!("entering the control group {}", first.display()))?;
        delegate(&top);
    }
    Ok(())
}

/// Hands on the controllers that are there. One that cannot be handed on is missing on the board
/// as it is on the machine, and the board says so itself.
fn delegate(group: &Path) {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new cpuset of version 1 has no CPU and no memory, and takes no process.
fn inherit_cpuset(parent: &Path, group: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read(parent.join(file)) {
            let _ = fs::write(group.join(file), value);
        }
    }
}

/// Removes the groups of a board, or of the whole sandbox. Its processes have ended.
pub(crate) fn remove(sandbox: &str, board: Option<&str>) -> Result {
    for hierarchy in hierarchies() {
        let mut top = hierarchy.mount.join(TOP).join(sandbox);
        if let Some(board) = board {
            top.push(board);
        }
        remove_tree(&top).doing(|| format!("removing the control group {}", top.display()))?;
        // The last sandbox takes the common group along; while others are there this fails.
        let _ = fs::remove_dir(hierarchy.mount.join(TOP));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the pause between two tries")]
fn remove_tree(group: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match remove_once(group) {
            // A process is gone for its parent a little before it is gone for its group.
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn remove_once(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        // With cgroup v2 beside v1, some folders are seen in two places.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_told_apart() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n\
            cgroup2 /other cgroup2 rw 0 0\n";
        let shown: Vec<String> = parse(mounts)
            .iter()
            .map(|h| format!("{} {} {}", h.mount.display(), h.unified, h.options))
            .collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/cpu,cpuacct false cpu,cpuacct",
                "/sys/fs/cgroup/systemd false none,name=systemd",
                "/sys/fs/cgroup/unified true ",
            ]
        );
    }
}
