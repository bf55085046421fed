//! What the kernel must offer before a pod can run, looked at once at the start: one clear line
//! beats a pod that fails for a reason nobody sees. (nf_tables is tried out by `net` itself.)

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Outcome};

/// Refuses to start where pods could never run, and warns of what they would lack.
pub fn check() -> Outcome {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !has_filesystem(&filesystems, "overlay") && !Path::new("/sys/module/overlay").exists() {
        return Err(Failure::new("the kernel has no overlay file system")
            .hint("load it with `modprobe overlay`; containers' images need it"));
    }
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let controllers = match fs::read_to_string(unified) {
        Ok(controllers) => controllers,
        Err(_) => v1_controllers(),
    };
    if controllers.split_whitespace().next().is_none() {
        return Err(Failure::new("no control groups are mounted at /sys/fs/cgroup").hint(
            "mount them: `mount -t cgroup2 none /sys/fs/cgroup`, or start with systemd \
             (in a network namespace use `nsenter --net`, not `ip netns exec`, which hides them)",
        ));
    }
    for wanted in ["memory", "cpu", "pids"] {
        if !controllers.split_whitespace().any(|controller| controller == wanted) {
            tracing::warn!(
                "the kernel's {wanted} control group is off: limits of {wanted} will not be kept; \
                 on a Raspberry Pi add `cgroup_enable={wanted}` to cmdline.txt and reboot"
            );
        }
    }
    Ok(())
}

/// The hierarchies of version 1 are folders of their own.
fn v1_controllers() -> String {
    let mut names = String::new();
    for folder in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        names.push_str(&folder.file_name().to_string_lossy().replace(',', " "));
        names.push(' ');
    }
    names
}

fn has_filesystem(listed: &str, name: &str) -> bool {
    listed.lines().any(|line| line.split_whitespace().last() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_found_by_their_whole_name() {
        let listed = "nodev\tsysfs\nnodev\toverlay\n\text4\n";
        assert!(has_filesystem(listed, "overlay"));
        assert!(has_filesystem(listed, "ext4"));
        assert!(!has_filesystem(listed, "over"));
    }
}
