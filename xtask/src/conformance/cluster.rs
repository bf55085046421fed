//! The cluster that a run has for itself: `coracle sandbox` in a network namespace of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, entries, make_folder};
use super::internet::{self, Internet};
use crate::run::{Outcome, command, run};

/// Names another binary than the one of this checkout.
const BINARY_VARIABLE: &str = "CORACLE_BIN";
/// What the binary is built for: the tests run what ships.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// What all boards' disks together may hold. It is memory: image imports and logs would wear a disk.
const DISK: &str = "size=12g,mode=0755";
/// How long the boards may take to be ready.
const READY: &str = "300s";

/// A cluster; it is gone when the value is.
pub struct Cluster {
    /// Of the network namespace and of the sandbox: several runs live beside each other.
    name: String,
    folder: PathBuf,
    binary: PathBuf,
    internet: Option<Internet>,
}

impl Cluster {
    /// Starts boards that have the images; takes away before what killed runs left.
    pub fn start(cache: &Cache, boards: u8, images: &[PathBuf]) -> Outcome<Self> {
        let binary = binary()?;
        sweep(cache, &binary)?;
        let id = std::process::id();
        let folder = cache.path("clusters").join(id.to_string());
        make_folder(&folder)?;
        let mut cluster = Self { name: name(&id.to_string()), folder, binary, internet: None };
        run(command("ip", &["netns", "add", &cluster.name]))?;
        run(command("ip", &["-n", &cluster.name, "link", "set", "lo", "up"]))?;
        let mut disk = command("mount", &["-t", "tmpfs", "-o", DISK, "conformance"]);
        disk.arg(&cluster.folder);
        run(disk)?;
        let served = Internet::start(cluster.inside("setpriv"), cache, &cluster.folder);
        cluster.internet = Some(served?);
        let mut up = cluster.sandbox("up");
        up.args([&cluster.name, "--servers", "1", "--wait", READY]);
        up.arg("--agents").arg((boards - 1).to_string());
        // The boards share this machine's memory as their disk.
        up.args(["--server-arg", "eviction-hard=nodefs.inodesFree<1%"]);
        let registries = cluster.folder.join(internet::REGISTRIES);
        for kind in ["--server-arg", "--agent-arg"] {
            // One test wants the handler that upstream's boards with Docker have.
            up.args([kind, "runtime-handler=runc,docker"]);
            up.arg(kind).arg(format!("private-registry={}", registries.display()));
        }
        for image in images {
            up.arg("--image").arg(image);
        }
        run(up)?;
        Ok(cluster)
    }

    /// A command that runs beside the boards, on the machine that they are used from, and finds
    /// the little that there is of the internet.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut line = Internet::reached(self.inside("unshare"), &self.folder);
        line.arg(program);
        line
    }

    fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut line = command("nsenter", &[]);
        line.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        line
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join(&self.name).join("kubeconfig")
    }

    /// A folder for what programs keep of the cluster; it goes with it.
    pub fn home(&self) -> &Path {
        &self.folder
    }

    /// Copies what the boards' servers and agents said.
    pub fn keep_logs(&self, folder: &Path) {
        let boards = entries(&self.folder.join(&self.name).join("boards")).unwrap_or_default();
        for board in boards {
            let name = board.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let _ = fs::copy(board.join("log"), folder.join(format!("{name}.log")));
        }
    }

    fn sandbox(&self, what: &str) -> Command {
        let mut line = self.inside(&self.binary);
        line.args(["sandbox", "--dir"]).arg(&self.folder).arg(what);
        line
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut down = self.sandbox("down");
        down.arg(&self.name);
        let _ = run(down);
        self.internet = None;
        let mut disk = command("umount", &["-l"]);
        disk.arg(&self.folder);
        let _ = run(disk);
        let _ = fs::remove_dir(&self.folder);
        let _ = run(command("ip", &["netns", "del", &self.name]));
    }
}

/// The name of the cluster that the process of this id has.
fn name(id: &str) -> String {
    format!("cor-conf-{id}")
}

/// The binary under test.
pub fn binary() -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(named.into());
    }
    let mut build =
        command("cargo", &["build", "--locked", "--package=coracle", "--target", TARGET]);
    if let Some(commit) = crate::run::commit() {
        build.env("CORACLE_COMMIT", commit);
    }
    run(build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| crate::run::root().join("target"));
    Ok(target.join(TARGET).join("debug/coracle"))
}

/// Takes away the clusters of runs that were killed.
fn sweep(cache: &Cache, binary: &Path) -> Outcome {
    let clusters = cache.path("clusters");
    make_folder(&clusters)?;
    for folder in entries(&clusters)? {
        let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let lives = String::from_utf8_lossy(&line).contains("conformance");
        if !lives {
            eprintln!("==> taking away what the killed run {id} left");
            let binary = binary.to_owned();
            drop(Cluster { name: name(&id), folder, binary, internet: None });
        }
    }
    Ok(())
}
