//! A further board, on a cable of its own to the first one.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use super::board::{Board, coracle};
use super::cleanup::{pids_with, sweep, unmount};
use super::netns::Netns;
use super::wait::{SOON, eventually, eventually_some};

/// How much of an agent's log is shown where a test fails.
const LOG_TAIL_LINES: usize = 40;

/// A board that joins the cluster of another one.
pub struct Member {
    pub name: String,
    pub address: String,
    pub netns: Netns,
    pub folder: PathBuf,
    cgroup: String,
    process: Mutex<Option<Child>>,
}

impl Member {
    /// The `number`th further board, with a cable to `board`, nothing started.
    pub fn new(board: &Board, number: u8) -> Self {
        let netns = Netns::new(&format!("member{number}"));
        let subnet = format!("198.51.100.{}", number * 4);
        let at = |host: u8| format!("198.51.100.{}", number * 4 + host);
        let cable =
            format!("link add member{number} type veth peer name eth0 netns {}", netns.name);
        board.netns.ip(&cable);
        board.netns.ip(&format!("addr add {}/30 dev member{number}", at(1)));
        board.netns.ip(&format!("link set member{number} up"));
        netns.ip(&format!("addr add {}/30 dev eth0", at(2)));
        netns.ip("link set eth0 up");
        netns.ip(&format!("route add default via {}", at(1)));
        let folder = board.folder.join(format!("member{number}"));
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("a folder for {subnet}: {e}"));
        let disk = Some("size=2g,mode=0755");
        mount(Some("member"), &folder, Some("tmpfs"), MsFlags::empty(), disk).expect("a disk");
        fs::write(folder.join("no-config.yaml"), "").expect("an empty configuration");
        let cgroup = format!("{}-{number}", board.cgroup());
        let name = format!("member{number}");
        Self { name, address: at(2), netns, folder, cgroup, process: Mutex::default() }
    }

    /// A command of the binary, with this board's folders.
    pub fn coracle(&self, command: &str) -> Command {
        let mut line = self.netns.command(coracle());
        line.args(command.split(' '))
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .arg("--run-dir")
            .arg(self.folder.join("run"))
            .env("CORACLE_CONFIG", self.folder.join("no-config.yaml"))
            .stdin(Stdio::null());
        line
    }

    /// `coracle agent` with further arguments.
    pub fn agent(&self, arguments: &str) -> Command {
        let mut line = self.coracle("agent");
        if !arguments.contains("--node-name") {
            line.args(["--node-name", &self.name]);
        }
        line.args(["--cgroup-root", &self.cgroup]);
        line.args(["--eviction-hard", "nodefs.inodesFree<1%"]);
        line.args(arguments.split_whitespace());
        line
    }

    /// Starts an agent and leaves it running.
    pub fn start(&self, arguments: &str) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("log");
        let copy = log.try_clone().expect("log");
        let child = self.agent(arguments).stdout(log).stderr(copy).spawn().expect("coracle");
        *self.process.lock().expect("no panic while locked") = Some(child);
    }

    /// Starts an agent that must give up by itself; what it said.
    pub fn refused(&self, arguments: &str) -> String {
        let mut child = self
            .agent(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("coracle");
        let deadline = Instant::now() + SOON;
        let ended = eventually_some("the agent gives up", || {
            if Instant::now() + Duration::from_secs(1) > deadline {
                let _ = child.kill();
            }
            child.try_wait().expect("wait").ok_or("it goes on")
        });
        let out = child.wait_with_output().expect("its output");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!ended.success(), "{said}");
        said
    }

    /// Kills the agent as a power cut would.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().expect("no panic while locked").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What the agent said at its end, if it has ended by itself since `from` bytes of its log.
    pub fn ended(&self, from: usize) -> Option<String> {
        let mut process = self.process.lock().expect("no panic while locked");
        process.as_mut()?.try_wait().expect("wait")?;
        *process = None;
        Some(self.log()[from..].to_owned())
    }

    /// Ends the agent and all pods at once, and forgets what is in memory only.
    pub fn cut_power(&self) {
        self.kill();
        let folder = self.folder.join("run");
        for pid in pids_with(folder.as_os_str().as_encoded_bytes()) {
            // SAFETY: plain system call on a process that names this board's own folder.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        eventually("the board's processes are gone", || {
            pids_with(folder.as_os_str().as_encoded_bytes()).is_empty()
        });
        unmount(&folder);
        fs::remove_dir_all(folder).expect("what is in memory goes");
    }

    /// The agent's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Memory of the agent's process in KiB: resident, anonymous.
    pub fn memory_kib(&self) -> (u64, u64) {
        let process = self.process.lock().expect("no panic while locked");
        let pid = process.as_ref().expect("a running agent").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or("0 0");
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        (field("VmRSS:"), field("RssAnon:"))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Everything the agent has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
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
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
            eprintln!("--- the log of {}\n{tail}\n---", self.name);
        }
        self.kill();
        sweep(&self.folder, &self.cgroup);
    }
}
