//! A runtime in folders of its own, and what tests do with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Event, Native, NativeConfig,
    Process, Runtime, SandboxConfig, SandboxId,
};

/// What is waited for happens within this, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// The image that every rig has.
pub const BUSYBOX: &str = "test.local/busybox:latest";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Whether containers can be made here.
pub fn possible() -> bool {
    // SAFETY: plain system call.
    unsafe { libc::geteuid() == 0 && busybox().is_some() }
}

/// The machine's static busybox.
pub fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|p| p.exists())
}

/// A runtime whose folders, cgroups, mounts and processes go with it.
pub struct Rig {
    pub native: Native,
    pub config: NativeConfig,
    pub folder: PathBuf,
}

impl Rig {
    pub async fn new() -> Self {
        let rig = Self::empty().await;
        let archive = rig.folder.join("busybox.tar");
        docker_archive(&archive, BUSYBOX);
        let names = rig.native.import_archive(&archive).await.expect("import");
        assert_eq!(names, [BUSYBOX]);
        rig
    }

    pub async fn empty() -> Self {
        let name =
            format!("cor-rt-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Not in /tmp only by habit: overlayfs needs a file system it accepts as upper.
        let base = std::env::var_os("CORACLE_TEST_DIR").map_or("/var/tmp".into(), PathBuf::from);
        let folder = base.join(&name);
        let mut config = NativeConfig::new(folder.join("root"), folder.join("state"));
        config.cgroup_prefix = format!("/{name}");
        let native = Native::open(config.clone()).await.expect("open");
        Self { native, config, folder }
    }

    pub async fn sandbox(&self) -> SandboxId {
        self.sandbox_with(|_| {}).await
    }

    pub async fn sandbox_with(&self, change: impl FnOnce(&mut SandboxConfig)) -> SandboxId {
        let mut config = SandboxConfig {
            name: "pod".into(),
            uid: format!("uid-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            hostname: "boat".into(),
            log_directory: self.folder.join("logs"),
            ..SandboxConfig::default()
        };
        change(&mut config);
        self.native.run_sandbox(config).await.expect("run_sandbox")
    }

    /// Makes and starts a container that runs a shell script.
    pub async fn shell(&self, sandbox: &SandboxId, script: &str) -> ContainerId {
        self.start(sandbox, script, |_| {}).await
    }

    pub async fn start(
        &self,
        sandbox: &SandboxId,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> ContainerId {
        let mut config = shell_config(script);
        change(&mut config);
        let id = self.native.create_container(sandbox, config).await.expect("create");
        self.native.start_container(&id).await.expect("start");
        id
    }

    pub async fn status(&self, id: &ContainerId) -> ContainerStatus {
        self.native.container_status(id).await.expect("status")
    }

    /// Waits for a container's end by events, as an agent does.
    pub async fn ended(&self, id: &ContainerId) -> ContainerStatus {
        let mut events = self.native.events();
        let deadline = Instant::now() + SOON;
        loop {
            let status = self.status(id).await;
            if status.state == ContainerState::Exited {
                return status;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "container did not end: {status:?}");
            let _ = tokio::time::timeout(left, async {
                while let Ok(event) = events.recv().await {
                    if matches!(&event, Event::Exited { container, .. } if container == id) {
                        break;
                    }
                }
            })
            .await;
        }
    }

    /// The lines of a container's log, as `stream tag text`.
    pub fn log(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("logs").join(name)).unwrap_or_default();
        text.lines().map(|l| l.split_once(' ').map_or(l, |(_, rest)| rest).to_owned()).collect()
    }

    pub async fn exec(&self, id: &ContainerId, script: &str) -> (String, i32) {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let out = self.native.exec_sync(id, argv, SOON).await.expect("exec");
        (String::from_utf8_lossy(&out.stdout).trim().to_owned(), out.code)
    }

    /// Where a container's changes are.
    pub fn layer(&self, id: &ContainerId) -> PathBuf {
        self.config.root.join("containers").join(&id.0).join("upper")
    }

    /// The runtime as a new process would open it.
    pub async fn reopen(&mut self) {
        self.native = Native::open(self.config.clone()).await.expect("reopen");
    }
}

impl Drop for Rig {
    /// Kills and unmounts whatever is left, also after a failed test.
    fn drop(&mut self) {
        let sandboxes = self.config.state.join("sandboxes");
        kill_cgroups(&self.config.cgroup_prefix);
        for sandbox in fs::read_dir(&sandboxes).into_iter().flatten().flatten() {
            for folder in ["in", "out", ""] {
                let path = self.folder.join("shared").join(folder);
                let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
            }
            for mount in ["netns", "pidns", "shm"] {
                let _ = nix::mount::umount2(
                    &sandbox.path().join(mount),
                    nix::mount::MntFlags::MNT_DETACH,
                );
            }
        }
        let deadline = Instant::now() + SOON;
        while !remove_cgroups(&self.config.cgroup_prefix) && Instant::now() < deadline {
            kill_cgroups(&self.config.cgroup_prefix);
            std::thread::yield_now();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .map(|l| l.split(' ').collect::<Vec<_>>())
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

fn kill_cgroups(prefix: &str) {
    for root in hierarchies() {
        walk(&root.join(prefix.trim_start_matches('/')), &mut |folder| {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 1) {
                // SAFETY: plain system call on a process in a cgroup of this test.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
    }
}

fn remove_cgroups(prefix: &str) -> bool {
    let mut gone = true;
    for root in hierarchies() {
        let top = root.join(prefix.trim_start_matches('/'));
        walk(&top, &mut |folder| {
            let _ = fs::remove_dir(folder);
        });
        gone &= !top.exists();
    }
    gone
}

pub fn shell_config(script: &str) -> ContainerConfig {
    ContainerConfig {
        name: "main".into(),
        image_ref: BUSYBOX.into(),
        process: Process {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            ..Process::default()
        },
        log_path: "main.log".into(),
        ..ContainerConfig::default()
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A tar header for a test layer.
pub fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}

/// A layer with busybox, its links, and users.
pub fn busybox_layer() -> Vec<u8> {
    let program = fs::read(busybox().expect("busybox")).expect("busybox");
    let mut layer = tar::Builder::new(Vec::new());
    for (folder, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("root/", 0o700)] {
        let mut h = header(tar::EntryType::Directory, 0, mode);
        layer.append_data(&mut h, folder, std::io::empty()).expect("folder");
    }
    let mut h = header(tar::EntryType::Regular, program.len() as u64, 0o755);
    layer.append_data(&mut h, "bin/busybox", program.as_slice()).expect("busybox");
    for name in [
        "sh", "cat", "echo", "sleep", "id", "ls", "hostname", "stty", "kill", "true", "ps", "dd",
        "grep", "wc", "stat", "head", "tail", "touch", "mkdir", "mount", "ip", "seq", "env", "pwd",
        "readlink", "nslookup",
    ] {
        let mut h = header(tar::EntryType::Symlink, 0, 0o777);
        layer.append_link(&mut h, format!("bin/{name}"), "busybox").expect("link");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n";
    let mut h = header(tar::EntryType::Regular, passwd.len() as u64, 0o644);
    layer.append_data(&mut h, "etc/passwd", passwd.as_bytes()).expect("passwd");
    let group = "root:x:0:\nweb:x:34:\nmedia:x:50:web\n";
    let mut h = header(tar::EntryType::Regular, group.len() as u64, 0o644);
    layer.append_data(&mut h, "etc/group", group.as_bytes()).expect("group");
    layer.into_inner().expect("layer")
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// An archive as `docker save` writes it, of a shell image.
pub fn docker_archive(path: &Path, name: &str) {
    let layer = busybox_layer();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sh"], "WorkingDir": "/root"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    })
    .to_string();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [name], "Layers": ["a/layer.tar"]}
    ])
    .to_string();
    let mut archive = tar::Builder::new(fs::File::create(path).expect("archive"));
    for (name, bytes) in [
        ("config.json", config.as_bytes()),
        ("a/layer.tar", &layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut h = header(tar::EntryType::Regular, bytes.len() as u64, 0o644);
        archive.append_data(&mut h, name, bytes).expect("entry");
    }
    archive.finish().expect("archive");
}
