//! The OCI specification of a container: what a caller asked for, over the image's defaults,
//! over what every container gets.

use std::path::Path;

use serde_json::{Value, json};

use super::user::Identity;
use crate::images::RunConfig;
use crate::{Capabilities, ContainerConfig, Error, Propagation, Result, SandboxConfig, Security};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The set that Docker, containerd and CRI-O agree on.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// All capabilities in the kernel's order.
const ALL_CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a specification is made from.
pub struct Inputs<'a> {
    /// The request.
    pub config: &'a ContainerConfig,
    /// The sandbox's.
    pub sandbox: &'a SandboxConfig,
    /// The image's defaults.
    pub image: &'a RunConfig,
    /// Whom it runs as.
    pub identity: &'a Identity,
    /// Where its root file system is mounted.
    pub rootfs: &'a Path,
    /// The sandbox's `/dev/shm`.
    pub shm: &'a Path,
    /// Its cgroup.
    pub cgroup: &'a str,
    /// Enters the sandbox's shared PID namespace, if it has one.
    pub pid_namespace: Option<&'a Path>,
    /// The cgroup version 2 hierarchy is used.
    pub unified: bool,
    /// Its capabilities.
    pub capabilities: &'a [&'static str],
    /// Its processes load a filter of system calls before their program.
    pub loads_filter: bool,
    /// The lowest OOM score that can be given.
    pub oom_score_min: i64,
}

/// Builds the specification (`config.json`).
///
/// # Errors
/// [`Error::Invalid`] with the field at fault.
pub fn build(inputs: &Inputs<'_>) -> Result<Value> {
    let security = &inputs.config.security;
    let privileged = security.privileged;
    let empty = || Vec::<String>::new();
    let list = |own: &Option<Vec<String>>, usual: &[&str]| match own {
        Some(own) => own.clone(),
        None if privileged => empty(),
        None => usual.iter().map(|s| (*s).to_owned()).collect(),
    };
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(inputs)?,
        "root": {"path": inputs.rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts(inputs)?,
        "annotations": {},
        "linux": {
            "namespaces": namespaces(inputs),
            "cgroupsPath": inputs.cgroup,
            "rootfsPropagation": root_propagation(inputs.config),
            "resources": {"devices": device_rules(inputs.config)?},
            "devices": devices(inputs.config)?,
            "maskedPaths": list(&security.masked_paths, &MASKED),
            "readonlyPaths": list(&security.readonly_paths, &READONLY),
        },
    }))
}

fn process(inputs: &Inputs<'_>) -> Result<Value> {
    let config = inputs.config;
    let cwd = [&config.process.working_dir, &inputs.image.working_dir]
        .into_iter()
        .find(|d| !d.is_empty())
        .map_or("/", |d| d.as_str());
    if !cwd.starts_with('/') {
        return Err(Error::Invalid(format!("working directory {cwd:?} is not absolute")));
    }
    let capabilities = inputs.capabilities;
    // Loading a filter takes this capability, unless no rights can be gained any more. It is gone
    // with the start of the program: what that has comes from the bounding set alone.
    let loader = (inputs.loads_filter && !config.security.no_new_privileges)
        .then_some("CAP_SYS_ADMIN")
        .filter(|more| !capabilities.contains(more));
    let until_start: Vec<&str> = capabilities.iter().copied().chain(loader).collect();
    Ok(json!({
        "terminal": config.tty,
        "user": {
            "uid": inputs.identity.uid,
            "gid": inputs.identity.gid,
            "additionalGids": inputs.identity.groups,
        },
        "args": arguments(config, inputs.image)?,
        "env": environment(inputs),
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": until_start,
            "permitted": until_start,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": config.security.no_new_privileges,
        "oomScoreAdj": config.resources.oom_score_adj.unwrap_or(0).max(inputs.oom_score_min),
    }))
}

/// A command replaces entrypoint and arguments of the image, arguments only the latter.
fn arguments(config: &ContainerConfig, image: &RunConfig) -> Result<Vec<String>> {
    let asked = &config.process;
    let mut all =
        if asked.command.is_empty() { image.entrypoint.clone() } else { asked.command.clone() };
    if !asked.args.is_empty() {
        all.extend(asked.args.iter().cloned());
    } else if asked.command.is_empty() {
        all.extend(image.cmd.iter().cloned());
    }
    match all.first() {
        Some(program) if !program.is_empty() => Ok(all),
        _ => Err(Error::Invalid("no command specified".to_owned())),
    }
}

fn environment(inputs: &Inputs<'_>) -> Vec<String> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.to_owned()];
    let mut set = |entry: String| {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        all.retain(|e| e.split('=').next() != Some(name.as_str()));
        all.push(entry);
    };
    if !inputs.sandbox.hostname.is_empty() {
        set(format!("HOSTNAME={}", inputs.sandbox.hostname));
    }
    if inputs.config.tty {
        set("TERM=xterm".to_owned());
    }
    let home = if inputs.identity.home.is_empty() { "/" } else { &inputs.identity.home };
    set(format!("HOME={home}"));
    for entry in &inputs.image.env {
        set(entry.clone());
    }
    for (name, value) in &inputs.config.process.env {
        set(format!("{name}={value}"));
    }
    all
}

/// The set to give. What this process itself may not have (an older kernel, a machine that is a
/// container) is left out, or nothing could be run at all.
pub fn capabilities(security: &Security, possible: u64) -> Result<Vec<&'static str>> {
    let known: Vec<&'static str> = ALL_CAPABILITIES
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| possible >> bit & 1 == 1)
        .map(|(_, name)| name)
        .collect();
    if security.privileged {
        return Ok(known);
    }
    let Capabilities { add, drop } = &security.capabilities;
    let all = |list: &[String]| list.iter().any(|c| c.eq_ignore_ascii_case("ALL"));
    let find = |name: &String| -> Result<&'static str> {
        let upper = name.to_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        ALL_CAPABILITIES
            .into_iter()
            .find(|c| *c == full)
            .ok_or_else(|| Error::Invalid(format!("unknown capability {name:?}")))
    };
    let one = |list: &[String]| -> Result<Vec<&'static str>> {
        list.iter().filter(|c| !c.eq_ignore_ascii_case("ALL")).map(find).collect()
    };
    let mut set: Vec<&'static str> = if all(add) {
        known.clone()
    } else if all(drop) {
        Vec::new()
    } else {
        DEFAULT_CAPABILITIES.to_vec()
    };
    let dropped = one(drop)?;
    set.retain(|c| known.contains(c) && !dropped.contains(c));
    for capability in one(add)? {
        if !set.contains(&capability) && known.contains(&capability) {
            set.push(capability);
        }
    }
    Ok(set)
}

fn namespaces(inputs: &Inputs<'_>) -> Vec<Value> {
    // Network, IPC and UTS are the shim's own and come by inheritance.
    let mut all = vec![json!({"type": "mount"})];
    if let Some(path) = inputs.pid_namespace {
        all.push(json!({"type": "pid", "path": path}));
    } else if !inputs.sandbox.host_pid {
        all.push(json!({"type": "pid"}));
    }
    if inputs.unified && !inputs.config.security.privileged {
        all.push(json!({"type": "cgroup"}));
    }
    all
}

fn mounts(inputs: &Inputs<'_>) -> Result<Vec<Value>> {
    let privileged = inputs.config.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let shm = if inputs.sandbox.host_ipc { Path::new("/dev/shm") } else { inputs.shm };
    let pseudo = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let base = [
        pseudo("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        pseudo("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        pseudo(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        pseudo("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        pseudo("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]),
        pseudo("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
        json!({"destination": "/dev/shm", "type": "bind", "source": shm,
               "options": ["rbind", "nosuid", "nodev", "noexec", "rw"]}),
    ];
    let asked = &inputs.config.mounts;
    let replaced =
        |target: &Value| asked.iter().any(|m| m.container_path.to_str() == target.as_str());
    // With cgroup version 1 the runtime's library looks its own process up in the machine's /proc by
    // the number that it has in the shared namespace, where another or none is.
    let lost = |mount: &Value| {
        mount["type"] == "cgroup" && !inputs.unified && inputs.pid_namespace.is_some()
    };
    let base = base.into_iter().filter(|mount| !lost(mount));
    let mut all: Vec<Value> = base.filter(|m| !replaced(&m["destination"])).collect();
    for mount in asked {
        if !mount.container_path.is_absolute() {
            let path = mount.container_path.display();
            return Err(Error::Invalid(format!("mount path {path} is not absolute")));
        }
        let mut options = vec!["rbind"];
        options.push(match mount.propagation {
            Propagation::Private => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        });
        options.push(if mount.readonly { "ro" } else { "rw" });
        if mount.readonly && mount.recursive_readonly {
            options.push("rro");
        }
        all.push(json!({
            "destination": mount.container_path,
            "type": "bind",
            "source": mount.host_path,
            "options": options,
        }));
    }
    Ok(all)
}

fn root_propagation(config: &ContainerConfig) -> &'static str {
    let any = |p| config.mounts.iter().any(|m| m.propagation == p);
    if any(Propagation::Bidirectional) {
        "shared"
    } else if any(Propagation::HostToContainer) {
        "slave"
    } else {
        "private"
    }
}

/// Numbers of a device node of the machine: kind, major, minor.
fn device_numbers(path: &Path) -> Result<(&'static str, i64, i64)> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let what = || format!("device {}", path.display());
    let meta = std::fs::metadata(path).map_err(|e| Error::io(what())(e))?;
    let kind = if meta.file_type().is_char_device() {
        "c"
    } else if meta.file_type().is_block_device() {
        "b"
    } else {
        return Err(Error::Invalid(format!("{} is not a device node", path.display())));
    };
    let number = meta.rdev() as libc::dev_t;
    Ok((kind, i64::from(libc::major(number)), i64::from(libc::minor(number))))
}

fn devices(config: &ContainerConfig) -> Result<Vec<Value>> {
    let one = |from: &Path, to: &Path| -> Result<Value> {
        use std::os::unix::fs::MetadataExt;
        let (kind, major, minor) = device_numbers(from)?;
        let meta =
            std::fs::metadata(from).map_err(Error::io(format!("device {}", from.display())))?;
        Ok(json!({"path": to, "type": kind, "major": major, "minor": minor,
                  "fileMode": meta.mode() & 0o777, "uid": meta.uid(), "gid": meta.gid()}))
    };
    let mut all = Vec::new();
    if config.security.privileged {
        // Privileged containers see the machine's devices; unreadable ones are left out.
        for entry in std::fs::read_dir("/dev").into_iter().flatten().flatten() {
            let path = entry.path();
            let usual = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"];
            // Links such as /dev/stdin lead to whatever this process has open.
            let skip = entry.file_type().is_ok_and(|t| t.is_symlink())
                || usual.iter().any(|n| path.ends_with(n));
            if !skip && let Ok(device) = one(&path, &path) {
                all.push(device);
            }
        }
    }
    for device in &config.devices {
        let placed = one(&device.host_path, &device.container_path)?;
        all.retain(|d| d["path"] != placed["path"]);
        all.push(placed);
    }
    Ok(all)
}

fn device_rules(config: &ContainerConfig) -> Result<Vec<Value>> {
    if config.security.privileged {
        return Ok(vec![json!({"allow": true, "access": "rwm"})]);
    }
    let mut all = vec![json!({"allow": false, "access": "rwm"})];
    for device in &config.devices {
        let (kind, major, minor) = device_numbers(&device.host_path)?;
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        all.push(
            json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}),
        );
    }
    Ok(all)
}

/// A signal by name (with or without `SIG`) or number.
pub fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if let Some(offset) = full.strip_prefix("SIGRTMIN") {
        let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    full.parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn command_and_args() {
        let image = RunConfig {
            entrypoint: strings(&["/e"]),
            cmd: strings(&["c"]),
            ..RunConfig::default()
        };
        let got = |command: &[&str], args: &[&str], image: &RunConfig| {
            let mut config = ContainerConfig::default();
            config.process.command = strings(command);
            config.process.args = strings(args);
            arguments(&config, image).map(|a| a.join(" ")).unwrap_or_else(|e| e.to_string())
        };
        assert_eq!(got(&[], &[], &image), "/e c");
        assert_eq!(got(&[], &["a"], &image), "/e a");
        assert_eq!(got(&["/x"], &[], &image), "/x");
        assert_eq!(got(&["/x"], &["a"], &image), "/x a");
        assert_eq!(got(&[], &[], &RunConfig::default()), "no command specified");
    }

    #[test]
    fn capability_sets() {
        let got = |add: &[&str], drop: &[&str]| {
            let capabilities = Capabilities { add: strings(add), drop: strings(drop) };
            let security = Security { capabilities, ..Security::default() };
            super::capabilities(&security, u64::MAX)
        };
        assert_eq!(got(&[], &[]).unwrap().len(), 14);
        assert_eq!(got(&["NET_ADMIN"], &["ALL"]).unwrap(), ["CAP_NET_ADMIN"]);
        assert_eq!(got(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), 40);
        assert!(got(&["NONSENSE"], &[]).is_err());
        let none = super::capabilities(&Security::default(), 0b11).unwrap();
        assert_eq!(none, ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        assert!(!got(&[], &["cap_chown"]).unwrap().contains(&"CAP_CHOWN"));
    }

    #[test]
    fn cgroups_are_shown_where_the_library_can_find_them() {
        let identity = Identity { uid: 0, gid: 0, groups: Vec::new(), home: String::new() };
        let shown = |pid_namespace: Option<&Path>, unified: bool| {
            let inputs = Inputs {
                config: &ContainerConfig::default(),
                sandbox: &SandboxConfig::default(),
                image: &RunConfig::default(),
                identity: &identity,
                rootfs: Path::new("/r"),
                shm: Path::new("/s"),
                cgroup: "/c",
                pid_namespace,
                unified,
                capabilities: &[],
                loads_filter: false,
                oom_score_min: 0,
            };
            mounts(&inputs).unwrap().iter().any(|mount| mount["type"] == "cgroup")
        };
        let shared = Path::new("/proc/1/ns/pid");
        assert!(shown(None, false));
        assert!(shown(None, true));
        assert!(shown(Some(shared), true));
        assert!(!shown(Some(shared), false));
    }

    #[test]
    fn signals() {
        for (text, want) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("x", None),
            ("0", None),
        ] {
            assert_eq!(signal(text), want, "{text}");
        }
    }
}
