//! A stack of bare boards on one switch, and the laptop beside it.
//!
//! ```text
//!  laptop 10.77.0.1 --- switch --- 10.77.0.11 pi1, 10.77.0.12 pi2, ...: Debian, systemd, sshd
//! ```
//!
//! Behind a router the first board has the world 198.51.100.1 on its other side, and the others have no
//! address of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Boards, Machine, Netns, SHELL, busybox, coracle, within};

/// The password of the account `pi`, and its hash (crypt(5), SHA-512).
pub const PASSWORD: &str = "raspberry";
const HASH: &str = "$6$coracle$XGlmeyTQ7Tu8A.xsKqZG47gRUtENJKThfnr.KKG9Z2aJWAoWi9RQWaddSbUOsNCRTHVz9tUrjcptVsl6faApm0";
const NAMES: [&str; 8] = ["pi1", "pi2", "pi3", "pi4", "pi5", "pi6", "pi7", "pi8"];

/// The boards and the laptop.
pub struct Fleet {
    pub lan: Netns,
    pub folder: PathBuf,
    pub boards: Vec<Mutex<Machine>>,
    /// What is on the other side of a router.
    pub world: Option<Netns>,
    /// Names and addresses of the servers, as they are described.
    servers: Mutex<Vec<(String, String)>>,
}

/// What a command said and how it ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub error: String,
    pub took: Duration,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.error);
        self.out
    }

    #[track_caller]
    pub fn fails(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.error);
        self.out + &self.error
    }
}

impl Fleet {
    /// Boards that are off: bare but for an account that the laptop may use.
    pub fn new(count: usize) -> Self {
        Self::with(count, None)
    }

    /// As `new`, and the first board has the world on its other side.
    pub fn behind_a_router(count: usize) -> Self {
        Self::with(count, Some(Netns::new("world")))
    }

    fn with(count: usize, world: Option<Netns>) -> Self {
        let lan = Netns::new("lan");
        lan.ip("link add br0 type bridge");
        lan.ip("link set br0 up");
        lan.ip("addr add 10.77.0.1/24 dev br0");
        let first = Machine::new(NAMES[0]);
        let folder = first.folder.with_extension("laptop");
        fs::create_dir_all(folder.join("home")).expect("a folder");
        key(&folder.join("key"));
        let mut boards = vec![first];
        boards.extend(NAMES[1..count].iter().map(|name| Machine::new(name)));
        let boards = boards.into_iter().map(Mutex::new).collect();
        let fleet = Self { lan, folder, boards, world, servers: Mutex::default() };
        for position in 0..count {
            fleet.wire(position);
            fleet.furnish(position);
        }
        fleet
    }

    /// Puts a board's cables in.
    fn wire(&self, position: usize) {
        let board = self.boards[position].lock().expect("no panic");
        let netns = &board.netns;
        self.lan
            .ip(&format!("link add port{position} type veth peer name eth0 netns {}", netns.name));
        self.lan.ip(&format!("link set port{position} master br0 up"));
        match &self.world {
            Some(_) if position > 0 => {
                return netns.ip(&format!("link set eth0 address {}", mac(position)));
            }
            Some(world) => {
                netns.ip(&format!("link add wlan0 type veth peer name eth0 netns {}", world.name));
                world.ip("addr add 198.51.100.1/24 dev eth0");
                world.ip("link set eth0 up");
                netns.ip("addr add 198.51.100.2/24 dev wlan0");
                netns.ip("link set wlan0 up");
            }
            None => {}
        }
        netns.ip(&format!("addr add {}/24 dev eth0", address(position)));
        netns.ip("link set eth0 up");
        let gateway = if self.world.is_some() { "198.51.100.1" } else { "10.77.0.1" };
        netns.ip(&format!("route add default via {gateway}"));
    }

    /// What a bare board has on its disk.
    fn furnish(&self, position: usize) {
        let board = self.boards[position].lock().expect("no panic");
        let public = fs::read_to_string(self.folder.join("key.pub")).expect("a key");
        let own = self.folder.join(format!("host{position}"));
        key(&own);
        let private = fs::read_to_string(&own).expect("a key");
        board.write("/etc/ssh/ssh_host_ed25519_key", &private, 0o600);
        let host = fs::read_to_string(own.with_extension("pub")).expect("a key");
        board.write("/etc/ssh/ssh_host_ed25519_key.pub", &host, 0o644);
        let sshd = "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n";
        board.write("/etc/ssh/sshd_config.d/board.conf", sshd, 0o644);
        board.write("/root/.ssh/authorized_keys", &public, 0o600);
        board.write("/home/pi/.ssh/authorized_keys", &public, 0o644);
        board.write("/etc/apt/sources.list", "deb [trusted=yes] file:/mnt/repository ./\n", 0o644);
        board.write("/etc/resolv.conf", "", 0o644);
        board.write("/etc/sudoers.d/pi", "pi ALL=(ALL:ALL) ALL\n", 0o440);
        let debian = crate::harness::tools().join("debian/etc");
        for (file, line, mode) in [
            ("passwd", "pi:x:1000:1000::/home/pi:/bin/sh".to_owned(), 0o644),
            ("group", "pi:x:1000:".to_owned(), 0o644),
            ("shadow", format!("pi:{HASH}:20000:0:99999:7:::"), 0o640),
        ] {
            let text = fs::read_to_string(debian.join(file)).expect("Debian's");
            board.write(&format!("/etc/{file}"), &format!("{text}{line}\n"), mode);
        }
    }

    /// Switches boards on, all at once.
    pub fn boot(&self, which: impl IntoIterator<Item = usize>) {
        thread::scope(|scope| {
            for position in which {
                scope.spawn(move || self.boards[position].lock().expect("no panic").boot());
            }
        });
    }

    /// Writes the description and what it names.
    pub fn describe(&self, boards: &str, rest: &str) {
        self.describe_servers(boards, rest, "");
    }

    /// As `describe`, with keys of the servers' configuration.
    pub fn describe_servers(&self, boards: &str, rest: &str, keys: &str) {
        let word = |line: &str, key: &str| {
            let rest = line.split_once(key).expect("the key").1;
            rest.split([',', '}']).next().expect("a word").to_owned()
        };
        let servers = boards.lines().filter(|line| line.contains("server"));
        *self.servers.lock().expect("no panic") =
            servers.map(|line| (word(line, "name: "), word(line, "address: "))).collect();
        fs::write(self.folder.join("password"), PASSWORD).expect("written");
        private(&self.folder.join("password"));
        let text = format!(
            "name: home\nssh: {{user: root, key: key, knownHosts: known_hosts}}\n\
             agent: {{eviction-hard: 'nodefs.inodesFree<1%'}}\n\
             server: {{eviction-hard: 'nodefs.inodesFree<1%'{keys}}}\n{rest}boards:\n{boards}"
        );
        fs::write(self.folder.join("cluster.yaml"), text).expect("written");
    }

    /// A command of the laptop; words are split at spaces.
    pub fn command(&self, words: &str) -> Command {
        let mut command = self.lan.command(coracle());
        command
            .args(words.split_whitespace())
            .current_dir(&self.folder)
            .env("HOME", self.folder.join("home"))
            .env_remove("KUBECONFIG")
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null());
        command
    }

    /// Runs it to the end.
    pub fn run(&self, words: &str) -> Said {
        let began = Instant::now();
        let Output { status, stdout, stderr } = self.command(words).output().expect("coracle");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: status.code(), out: text(stdout), error: text(stderr), took: began.elapsed() }
    }

    /// Runs it on a terminal of its own, where somebody types `answer`; what was shown.
    pub fn at_terminal(&self, words: &str, answer: &str) -> String {
        use std::io::Write;
        let line = format!("{} {words}", coracle().display());
        let mut command = self.lan.command("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        command.current_dir(&self.folder).env("HOME", self.folder.join("home"));
        command.env_remove("KUBECONFIG").env_remove("SSH_AUTH_SOCK");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("script");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(answer.as_bytes()).expect("typed");
        // What is typed ends only with the command, or the terminal would go before it.
        let said = child.wait_with_output().expect("script");
        drop(input);
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// Runs something while boards that switch themselves off come on again, as boards do that
    /// reboot.
    pub fn with_power<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        let expected: Vec<bool> =
            self.boards.iter().map(|board| !board.lock().expect("no panic").is_off()).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                within(Duration::from_secs(3600), "the work ends", || {
                    let on = self.boards.iter().zip(&expected).filter(|(_, on)| **on);
                    for (board, _) in on {
                        let mut board = board.lock().expect("no panic");
                        if board.is_off() {
                            board.boot();
                        }
                    }
                    over.load(Ordering::Relaxed).then_some(()).ok_or("it goes on")
                });
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            over.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A program of a board's that runs in the place of another of its name.
    pub fn program(&self, position: usize, name: &str, script: &str) {
        let path = format!("/usr/local/bin/{name}");
        let there = self.boards[position].lock().expect("no panic").file(&path);
        fs::write(there, script).expect("written");
        self.on(position, &format!("chmod 755 {path}"));
    }

    /// A command on a board.
    pub fn on(&self, position: usize, line: &str) -> String {
        self.boards[position].lock().expect("no panic").run(line)
    }
}

impl Fleet {
    /// Gives boards the image of the scenarios, which no registry has.
    pub fn import(&self, which: impl IntoIterator<Item = usize>) {
        let archive = self.folder.join("busybox.tar");
        busybox().archive(&archive, SHELL);
        let archive = &archive;
        thread::scope(|scope| {
            for position in which {
                scope.spawn(move || {
                    let board = self.boards[position].lock().expect("no panic");
                    fs::copy(archive, board.file("/root/busybox.tar")).expect("copied");
                    board.run("coracle image import /root/busybox.tar");
                    board.run("rm /root/busybox.tar");
                });
            }
        });
    }

    fn position(&self, name: &str) -> usize {
        NAMES.iter().position(|board| *board == name).expect("a board")
    }
}

impl Boards for Fleet {
    fn laptop(&self) -> &Netns {
        &self.lan
    }

    /// The laptop's own, which `coracle up` writes.
    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("home/.kube/config")
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    fn servers(&self) -> Vec<String> {
        let servers = self.servers.lock().expect("no panic");
        servers.iter().map(|(name, _)| name.clone()).collect()
    }

    fn address(&self, server: usize) -> String {
        self.servers.lock().expect("no panic")[server - 1].1.clone()
    }

    fn unplug(&self, board: &str) {
        self.lan.ip(&format!("link set port{} down", self.position(board)));
    }

    fn plug(&self, board: &str) {
        self.lan.ip(&format!("link set port{} up", self.position(board)));
    }

    /// A router is on again before the others.
    fn power_off(&self) {
        thread::scope(|scope| {
            for board in &self.boards {
                scope.spawn(|| board.lock().expect("no panic").cut_power());
            }
        });
        (0..self.boards.len()).for_each(|position| self.lan.forget(&format!("port{position}")));
        if let Some(world) = &self.world {
            world.forget("eth0");
            self.power_on(NAMES[0]);
        }
    }

    fn power_on(&self, board: &str) {
        let position = self.position(board);
        self.wire(position);
        self.boards[position].lock().expect("no panic").start();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The address of a board.
pub fn address(position: usize) -> String {
    format!("10.77.0.{}", 11 + position)
}

/// The hardware address of a board behind a router.
pub fn mac(position: usize) -> String {
    format!("02:00:00:00:00:{:02x}", 16 + position)
}

fn key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path);
    assert!(command.status().expect("ssh-keygen").success());
}

/// Takes a file from everybody but its owner.
pub fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
}
