//! Cgroups of sandboxes and containers, in both versions.
//!
//! Everything lies below one prefix of ours; nothing outside it is written, except that version
//! 2 has to be told at its root which controllers to hand down. A controller that the machine
//! lacks costs the limit, not the container.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Resources, Stats};

/// Removal waits for killed processes at most this long, in steps of this.
const REMOVE_STEP: Duration = Duration::from_millis(5);
const REMOVE_STEPS: u32 = 400;

/// The machine's cgroup hierarchies.
#[derive(Clone, Debug)]
pub enum Cgroups {
    /// Version 1: controller to mount point.
    V1(BTreeMap<String, PathBuf>),
    /// Version 2: mount point and the controllers it has.
    V2(PathBuf, Vec<String>),
}

/// The controllers that limits and figures need.
const WANTED: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];

impl Cgroups {
    /// Looks at what is mounted.
    pub fn discover() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::parse(&mounts, |path| fs::read_to_string(path).unwrap_or_default())
    }

    fn parse(mounts: &str, read: impl Fn(&Path) -> String) -> Self {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, path, kind, options, ..] = fields.as_slice() else { continue };
            match *kind {
                "cgroup" => {
                    for option in options.split(',').filter(|o| CONTROLLERS.contains(o)) {
                        v1.entry(option.to_owned()).or_insert_with(|| PathBuf::from(path));
                    }
                }
                "cgroup2" if v2.is_none() => v2 = Some(PathBuf::from(path)),
                _ => {}
            }
        }
        match v2 {
            Some(path) if v1.is_empty() => {
                let all = read(&path.join("cgroup.controllers"));
                Self::V2(path, all.split_whitespace().map(str::to_owned).collect())
            }
            _ => Self::V1(v1),
        }
    }

    /// What is missing, for people; a line each.
    pub fn warnings(&self) -> Vec<String> {
        let has = |name: &str| match self {
            Self::V1(mounts) => mounts.contains_key(name),
            Self::V2(_, all) => all.iter().any(|c| c == name),
        };
        WANTED
            .iter()
            .filter(|name| !has(name))
            .map(|name| {
                format!(
                    "cgroup controller {name} is not available: its limits are not enforced \
                     (on a Raspberry Pi add cgroup_enable={name} to cmdline.txt)"
                )
            })
            .collect()
    }

    /// A cgroup's folder in each hierarchy.
    pub fn folders(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Self::V1(mounts) => {
                let mut all: Vec<PathBuf> = mounts.values().map(|m| m.join(relative)).collect();
                all.sort();
                all.dedup();
                all
            }
            Self::V2(root, _) => vec![root.join(relative)],
        }
    }

    fn controller(&self, name: &str, path: &str) -> Option<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Self::V1(mounts) => mounts.get(name).map(|m| m.join(relative)),
            Self::V2(root, all) => all.iter().any(|c| c == name).then(|| root.join(relative)),
        }
    }

    /// Makes a cgroup and its parents. With `parent` it will hold others and no processes.
    pub fn make(&self, path: &str, parent: bool) -> io::Result<()> {
        match self {
            Self::V1(mounts) => {
                for (controller, mount) in mounts {
                    let mut folder = mount.clone();
                    for part in path.split('/').filter(|p| !p.is_empty()) {
                        let above = folder.clone();
                        folder.push(part);
                        make_folder(&folder)?;
                        if controller == "cpuset" {
                            inherit_cpuset(&above, &folder)?;
                        }
                    }
                }
            }
            Self::V2(root, controllers) => {
                let mut folder = root.clone();
                for part in path.split('/').filter(|p| !p.is_empty()) {
                    hand_down(&folder, controllers);
                    folder.push(part);
                    make_folder(&folder)?;
                }
                if parent {
                    hand_down(&folder, controllers);
                }
            }
        }
        Ok(())
    }

    /// Sets the limits that are given.
    ///
    /// # Errors
    /// The first limit the kernel refuses. Missing controllers are no error.
    pub fn apply(&self, path: &str, resources: &Resources) -> io::Result<()> {
        let v2 = matches!(self, Self::V2(..));
        for (controller, file, value) in settings(resources, v2) {
            let Some(folder) = self.controller(controller, path) else { continue };
            let file = folder.join(file);
            if let Err(e) = fs::write(&file, &value) {
                let optional =
                    e.kind() == io::ErrorKind::NotFound || OPTIONAL.contains(&name(&file));
                if !optional {
                    let what = format!("writing {value:?} to {}: {e}", file.display());
                    return Err(io::Error::new(e.kind(), what));
                }
            }
        }
        Ok(())
    }

    /// What the cgroup uses.
    pub fn stats(&self, path: &str) -> Stats {
        let read = |controller: &str, file: &str| -> Option<String> {
            fs::read_to_string(self.controller(controller, path)?.join(file)).ok()
        };
        let number = |controller: &str, file: &str| -> u64 {
            read(controller, file).and_then(|t| t.trim().parse().ok()).unwrap_or(0)
        };
        let field = |text: &Option<String>, key: &str| -> u64 {
            text.iter()
                .flat_map(|t| t.lines())
                .find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
                .unwrap_or(0)
        };
        let memory = read("memory", "memory.stat");
        let v2 = matches!(self, Self::V2(..));
        let (cpu, usage, [rss, inactive, faults, major]) = if v2 {
            let cpu = field(&read("cpu", "cpu.stat"), "usage_usec") * 1000;
            let usage = number("memory", "memory.current");
            (cpu, usage, ["anon", "inactive_file", "pgfault", "pgmajfault"])
        } else {
            let usage = number("memory", "memory.usage_in_bytes");
            let keys = ["total_rss", "total_inactive_file", "total_pgfault", "total_pgmajfault"];
            (number("cpuacct", "cpuacct.usage"), usage, keys)
        };
        Stats {
            at: jiff::Timestamp::now(),
            cpu_nanoseconds: cpu,
            memory_usage: usage,
            memory_working_set: usage.saturating_sub(field(&memory, inactive)),
            memory_rss: field(&memory, rss),
            page_faults: field(&memory, faults),
            major_page_faults: field(&memory, major),
            pids: number("pids", "pids.current"),
            ..Stats::default()
        }
    }

    /// Kills everything in a cgroup and below it.
    pub fn kill(&self, path: &str) {
        for folder in self.folders(path) {
            kill_tree(&folder);
        }
    }

    /// Kills what is left in a cgroup and removes it with all below.
    ///
    /// # Errors
    /// When processes do not go away.
    pub async fn remove(&self, path: &str) -> io::Result<()> {
        for folder in self.folders(path) {
            let mut step = 0;
            while let Err(e) = remove_tree(&folder) {
                if step == REMOVE_STEPS {
                    let what = format!("removing cgroup {}: {e}", folder.display());
                    return Err(io::Error::new(e.kind(), what));
                }
                step += 1;
                kill_tree(&folder);
                // The kernel has no event for "the last process has left" in version 1.
                tokio::time::sleep(REMOVE_STEP).await;
            }
        }
        Ok(())
    }
}

const CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "devices",
    "freezer",
    "blkio",
    "hugetlb",
    "perf_event",
    "net_cls",
    "net_prio",
];

/// Files whose refusal is no reason to fail: swap accounting may be off, and a page size absent.
const OPTIONAL: [&str; 3] = ["memory.memsw.limit_in_bytes", "memory.swap.max", "cpuset.mems"];

fn name(file: &Path) -> &str {
    file.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

/// The files to write for limits: controller, file, value.
fn settings(r: &Resources, v2: bool) -> Vec<(&'static str, String, String)> {
    let mut all = Vec::new();
    let mut add = |controller, file: &str, value: String| {
        all.push((controller, file.to_owned(), value));
    };
    let unlimited = |value: i64, word: &str| {
        if value < 0 { word.to_owned() } else { value.to_string() }
    };
    if let Some(shares) = r.cpu_shares {
        let shares = shares.clamp(2, 262_144);
        match v2 {
            // The mapping everybody uses: 2..262144 onto 1..10000.
            true => add("cpu", "cpu.weight", (1 + (shares - 2) * 9_999 / 262_142).to_string()),
            false => add("cpu", "cpu.shares", shares.to_string()),
        }
    }
    match (v2, r.cpu_quota, r.cpu_period) {
        (_, None, None) => {}
        (true, quota, period) => {
            let quota = quota.map_or("max".to_owned(), |q| unlimited(q, "max"));
            add("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
        }
        (false, quota, period) => {
            if let Some(period) = period {
                add("cpu", "cpu.cfs_period_us", period.to_string());
            }
            if let Some(quota) = quota {
                add("cpu", "cpu.cfs_quota_us", unlimited(quota, "-1"));
            }
        }
    }
    if let Some(limit) = r.memory_limit {
        if v2 {
            add("memory", "memory.max", unlimited(limit, "max"));
            add("memory", "memory.swap.max", if limit < 0 { "max" } else { "0" }.to_owned());
        } else {
            // Memory with swap may never be below memory alone: raising one needs it set first,
            // lowering it last, and the refusal in between is no failure.
            let limit = unlimited(limit, "-1");
            add("memory", "memory.memsw.limit_in_bytes", limit.clone());
            add("memory", "memory.limit_in_bytes", limit.clone());
            add("memory", "memory.memsw.limit_in_bytes", limit);
        }
    }
    if let Some(limit) = r.pids_limit {
        add("pids", "pids.max", if limit <= 0 { "max".to_owned() } else { limit.to_string() });
    }
    if !r.cpuset_cpus.is_empty() {
        add("cpuset", "cpuset.cpus", r.cpuset_cpus.clone());
    }
    if !r.cpuset_mems.is_empty() {
        add("cpuset", "cpuset.mems", r.cpuset_mems.clone());
    }
    for page in &r.hugepages {
        let end = if v2 { "max" } else { "limit_in_bytes" };
        add("hugetlb", &format!("hugetlb.{}.{end}", page.page_size), page.limit.to_string());
    }
    all
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(e.kind(), format!("making cgroup {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A new cpuset of version 1 is empty and takes no process until it has CPUs and memory.
fn inherit_cpuset(above: &Path, folder: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(folder.join(file)).unwrap_or_default();
        if own.trim().is_empty() {
            let value = fs::read_to_string(above.join(file))?;
            fs::write(folder.join(file), value.trim())?;
        }
    }
    Ok(())
}

/// Version 2 gives a cgroup only the controllers its parent hands down. One at a time: a single
/// refused one would take the others with it.
fn hand_down(folder: &Path, controllers: &[String]) {
    for controller in controllers {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn kill_tree(folder: &Path) {
    for child in children(folder) {
        kill_tree(&child);
    }
    crate::shim::kill_cgroup(&[folder.to_owned()]);
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let Cgroups::V1(mounts) = Cgroups::parse(hybrid, |_| String::new()) else { panic!() };
        assert_eq!(mounts.keys().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let found = Cgroups::parse(unified, |_| "cpu memory pids\n".to_owned());
        assert_eq!(found.folders("/a/b"), [PathBuf::from("/sys/fs/cgroup/a/b")]);
        assert_eq!(found.warnings().len(), 1, "cpuset is missing");
    }

    #[test]
    fn limits_as_files() {
        let resources = Resources {
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit: Some(1 << 20),
            pids_limit: Some(-1),
            ..Resources::default()
        };
        let show = |v2| -> Vec<String> {
            settings(&resources, v2).into_iter().map(|(_, f, v)| format!("{f}={v}")).collect()
        };
        assert_eq!(
            show(true),
            [
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "memory.max=1048576",
                "memory.swap.max=0",
                "pids.max=max"
            ]
        );
        assert_eq!(
            show(false),
            [
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.memsw.limit_in_bytes=1048576",
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=1048576",
                "pids.max=max"
            ]
        );
    }
}
