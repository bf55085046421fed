//! A stack of boards, as `coracle sandbox` makes it: a laptop in a namespace of its own, the
//! switch, the boards. Everything is done through the command line that people use.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::board::{SHELL, coracle, tools};
use super::boards::Boards;
use super::image::busybox;
use super::netns::Netns;

/// How much of a board's log is shown where a test fails.
const LOG_TAIL_LINES: usize = 25;

/// Boards that are joined by a switch, and the laptop that they are used from.
pub struct Stack {
    pub laptop: Netns,
    pub folder: PathBuf,
    servers: usize,
    vip: bool,
}

impl Stack {
    /// A laptop and a disk, no boards yet.
    pub fn unstarted() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let laptop = Netns::new("laptop");
        let base = std::env::var_os("CORACLE_TEST_DIR").map_or("/var/tmp".into(), PathBuf::from);
        let folder = base.join(format!("cor-e2e-{}-stack-{count}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the stack");
        // The boards share it: one that is nearly full would put all nodes under pressure.
        let disk = Some("size=8g,mode=0755");
        mount(Some("stack"), &folder, Some("tmpfs"), MsFlags::empty(), disk).expect("a disk");
        Self { laptop, folder, servers: 0, vip: false }
    }

    /// Boards that are ready and have the shell image; `options` are those of `up`.
    pub fn up(options: &str) -> Self {
        let mut stack = Self::unstarted();
        let archive = stack.folder.join("busybox.tar");
        busybox().archive(&archive, SHELL);
        let shape: Vec<&str> = options.split(' ').collect();
        let servers = shape.iter().position(|word| *word == "--servers");
        stack.servers = servers.map_or(3, |at| shape[at + 1].parse().expect("a number"));
        stack.vip = shape.contains(&"--vip");
        println!("{}", stack.ok(&format!("up {options} --image {}", archive.display())));
        stack
    }

    /// `coracle sandbox LINE` on the laptop.
    pub fn command(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let etcd = tools().join("etcd/usr/bin");
        let mut command = self.laptop.command(coracle());
        command
            .arg("sandbox")
            .args(line.split(' '))
            .env("CORACLE_SANDBOX_DIR", self.boards())
            .env("PATH", format!("{}:{path}", etcd.display()))
            .stdin(Stdio::null());
        command
    }

    /// Where the sandbox is kept.
    pub fn boards(&self) -> PathBuf {
        self.folder.join("sandboxes")
    }

    /// Runs `coracle sandbox LINE`; gives whether it succeeded and all that it said.
    pub fn run(&self, line: &str) -> (bool, String) {
        let out = self.command(line).output().expect("coracle");
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// As `run`, and must succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let (success, said) = self.run(line);
        assert!(success, "coracle sandbox {line}\n{said}");
        said
    }

    /// As `run`, and must fail.
    #[track_caller]
    pub fn fails(&self, line: &str) -> String {
        let (success, said) = self.run(line);
        assert!(!success, "should have failed: coracle sandbox {line}\n{said}");
        said
    }

    /// Everything that a board's command has logged.
    pub fn log(&self, board: &str) -> String {
        let path = self.boards().join("lab/boards").join(board).join("log");
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }
}

impl Boards for Stack {
    fn laptop(&self) -> &Netns {
        &self.laptop
    }

    fn kubeconfig(&self) -> PathBuf {
        self.boards().join("lab/kubeconfig")
    }

    fn home(&self) -> PathBuf {
        self.folder.clone()
    }

    fn servers(&self) -> Vec<String> {
        (1..=self.servers).map(|n| format!("server-{n}")).collect()
    }

    /// Agents come after the servers.
    fn address(&self, server: usize) -> String {
        format!("10.87.0.{}", 10 + server)
    }

    fn unplug(&self, board: &str) {
        self.ok(&format!("cut {board}"));
    }

    fn plug(&self, board: &str) {
        self.ok(&format!("heal {board}"));
    }

    fn power_off(&self) {
        self.ok("kill --all");
    }

    fn power_on(&self, board: &str) {
        self.ok(&format!("restore {board}"));
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}", self.run("status").1);
            let kubectl = self.kubectl();
            for what in ["get nodes", "get pods -A -o wide", "get endpointslices -A"] {
                eprintln!("--- {:?}", kubectl.run(&format!("{what} --request-timeout=3s")));
            }
            let boards = fs::read_dir(self.boards().join("lab/boards"));
            for board in boards.into_iter().flatten().flatten() {
                let name = board.file_name().to_string_lossy().into_owned();
                let log = self.log(&name);
                let lines: Vec<&str> = log.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
                eprintln!("--- the log of {name}\n{}", tail.join("\n"));
            }
        }
        let (success, said) = self.run("down lab");
        if !success {
            eprintln!("--- coracle sandbox down\n{said}");
        }
        let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.folder);
    }
}
