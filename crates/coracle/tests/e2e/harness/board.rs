//! A board: namespace, folders, cgroups, and the server in them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};

use super::cleanup::{pids_with, sweep};
use super::image::busybox;
use super::kubectl::Kubectl;
use super::netns::Netns;
use super::wait::eventually_some;

/// The board as its client sees it.
pub const BOARD_ADDRESS: &str = "192.0.2.1";
/// The image that `busybox` is imported as.
pub const SHELL: &str = "test.local/busybox:1";
/// How much of the server's log is shown where a test fails.
const LOG_TAIL_LINES: usize = 40;

/// The binary under test. It must be static: it is also an image.
pub fn coracle() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_coracle");
    std::env::var_os("CORACLE_BIN").map_or_else(|| built.into(), PathBuf::from)
}

/// Where `./test.sh tools` puts what tests need.
pub fn tools() -> PathBuf {
    let there = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools");
    std::env::var_os("CORACLE_TOOLS").map_or_else(|| there.into(), PathBuf::from)
}

/// One board and the client beside it.
pub struct Board {
    pub netns: Netns,
    pub client: Netns,
    pub folder: PathBuf,
    cgroup: String,
    server: Mutex<Option<Child>>,
}

impl Board {
    /// A cable between board and client, nothing started.
    pub fn unstarted() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let (netns, client) = (Netns::new("board"), Netns::new("client"));
        let cable = format!("link add uplink type veth peer name eth0 netns {}", client.name);
        netns.ip(&cable);
        netns.ip(&format!("addr add {BOARD_ADDRESS}/24 dev uplink"));
        netns.ip("link set uplink up");
        client.ip("addr add 192.0.2.2/24 dev eth0");
        client.ip("link set eth0 up");
        netns.ip("route add default via 192.0.2.2");
        let name = format!("cor-e2e-{}-{count}", std::process::id());
        let base = std::env::var_os("CORACLE_TEST_DIR").map_or("/var/tmp".into(), PathBuf::from);
        let folder = base.join(&name);
        fs::create_dir_all(&folder).expect("a folder for the board");
        // A disk of its own: a machine that is nearly full would put the node under pressure.
        let disk = Some("size=4g,mode=0755");
        mount(Some("board"), &folder, Some("tmpfs"), MsFlags::empty(), disk).expect("a disk");
        fs::write(folder.join("no-config.yaml"), "").expect("an empty configuration");
        Self { netns, client, folder, cgroup: format!("/{name}"), server: Mutex::new(None) }
    }

    /// A board whose node is ready, with the shell image imported.
    pub fn start() -> Self {
        let board = Self::unstarted();
        board.serve();
        board.import(&busybox(), SHELL);
        board
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The control group that the pods' groups are made in.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A command of the binary, with this board's folders.
    pub fn coracle(&self, command: &str) -> Command {
        let mut line = self.netns.command(coracle());
        line.args(command.split(' '))
            .arg("--data-dir")
            .arg(self.data())
            .arg("--run-dir")
            .arg(self.folder.join("run"))
            // The machine's own configuration is not the board's.
            .env("CORACLE_CONFIG", self.folder.join("no-config.yaml"))
            .stdin(Stdio::null());
        line
    }

    /// `coracle server` as this board starts it.
    pub fn server(&self) -> Command {
        let mut line = self.coracle("server");
        line.arg("--write-kubeconfig").arg(self.kubeconfig());
        line.args(["--node-name", "board", "--cgroup-root", &self.cgroup]);
        // A test machine's disk may be fuller than a board should be.
        line.args(["--eviction-hard", "nodefs.inodesFree<1%"]);
        line
    }

    /// Starts the server and waits until the node is ready.
    pub fn serve(&self) {
        self.launch(self.server());
        let kubectl = Kubectl::default(self);
        let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
        kubectl.until(&format!("get node board -o 'jsonpath={ready}'"), "True");
        kubectl.until_that("get serviceaccount default", |out| out.contains("default"));
    }

    /// Starts a server without an agent and waits for its API.
    pub fn serve_api(&self) {
        let mut line = self.server();
        line.arg("--disable-agent");
        self.launch(line);
    }

    /// Starts a server by this command and waits for its API or for its end; what it said until
    /// then, in either case.
    pub fn try_launch(&self, mut line: Command) -> Result<String, String> {
        let before = self.log().len();
        let log = File::options().create(true).append(true).open(self.log_path()).expect("log");
        let copy = log.try_clone().expect("log");
        let child = line.stdout(log).stderr(copy).spawn().expect("coracle");
        *self.server.lock().expect("no panic while locked") = Some(child);
        let kubectl = Kubectl::default(self);
        eventually_some("/readyz says ok, or the server ends", || {
            let said = || self.log()[before..].to_owned();
            if self.server_ended().is_some() {
                *self.server.lock().expect("no panic while locked") = None;
                return Ok(Err(said()));
            }
            let run = kubectl.run("get --raw /readyz");
            if run.success && run.stdout == "ok" { Ok(Ok(said())) } else { Err(run) }
        })
    }

    /// Starts a server by this command and waits for its API.
    pub fn launch(&self, mut line: Command) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("log");
        let copy = log.try_clone().expect("log");
        let child = line.stdout(log).stderr(copy).spawn().expect("coracle");
        *self.server.lock().expect("no panic while locked") = Some(child);
        let kubectl = Kubectl::default(self);
        eventually_some("/readyz says ok", || {
            if let Some(status) = self.server_ended() {
                panic!("the server ended: {status}\n{}", self.log_tail());
            }
            let run = kubectl.run("get --raw /readyz");
            if run.success && run.stdout == "ok" { Ok(()) } else { Err(run) }
        });
    }

    fn server_ended(&self) -> Option<std::process::ExitStatus> {
        self.server.lock().expect("no panic while locked").as_mut()?.try_wait().ok()?
    }

    /// Kills the server as a power cut would, and nothing else of the board.
    pub fn kill(&self) {
        let child = self.server.lock().expect("no panic while locked").take();
        let mut child = child.expect("a running server");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Ends the server with SIGTERM and waits for it.
    pub fn stop(&self) -> std::process::ExitStatus {
        let child = self.server.lock().expect("no panic while locked").take();
        let mut child = child.expect("a running server");
        // SAFETY: plain system call on a child that has not been waited for.
        unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
        eventually_some("the server ends after SIGTERM", || {
            child.try_wait().expect("wait").ok_or("still running")
        })
    }

    /// Imports an image under a name.
    pub fn import(&self, image: &super::Image, name: &str) {
        let path = self.folder.join("import.tar");
        image.archive(&path, name);
        let path_text = path.to_str().expect("a plain path");
        let out = self.coracle(&format!("image import {path_text}")).output().expect("coracle");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        fs::remove_file(path).expect("the archive");
    }

    /// Imports the binary itself as a small web page.
    pub fn import_hello(&self) {
        let out = self.coracle("image import --hello").output().expect("coracle");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// The processes that hold pods.
    pub fn shims(&self) -> Vec<i32> {
        self.processes("shim")
    }

    /// The processes that answer for cluster DNS: one, but for the moment of a take-over.
    pub fn dns(&self) -> Vec<i32> {
        self.processes("dns-holder")
    }

    /// Processes of this board that are the binary, entered with this argument.
    fn processes(&self, argument: &str) -> Vec<i32> {
        let is_one = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).nth(1) == Some(argument.as_bytes())
        };
        let folder = self.folder.as_os_str().as_encoded_bytes();
        pids_with(folder).into_iter().filter(is_one).collect()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kubectl = Kubectl::default(self);
            eprintln!("--- {:?}", kubectl.run("get pods -A -o wide --request-timeout=5s"));
            let fields =
                "custom-columns=N:.metadata.name,T:.spec.taints,C:.status.conditions[*].status";
            eprintln!(
                "--- {:?}",
                kubectl.run(&format!("get nodes -o {fields} --request-timeout=5s"))
            );
            let fields = "custom-columns=R:.reason,O:.involvedObject.name,M:.message";
            let events = format!("get events -A -o {fields} --request-timeout=5s");
            eprintln!("--- {:?}", kubectl.run(&events));
            eprintln!("--- the server's log\n{}\n---", self.log_tail());
        }
        if let Some(mut child) = self.server.get_mut().ok().and_then(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
        sweep(&self.folder, &self.cgroup);
    }
}
