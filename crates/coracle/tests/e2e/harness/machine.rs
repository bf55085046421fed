//! A Debian machine with a systemd of its own as process 1.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};

use super::board::{coracle, tools};
use super::cleanup::{remove_cgroups, sweep};
use super::netns::Netns;
use super::wait::{eventually, eventually_some};

/// The machine, which runs until it switches itself off or the value goes.
pub struct Machine {
    pub name: &'static str,
    pub netns: Netns,
    pub folder: PathBuf,
    /// Whether its port loses its addresses at each start, as one does that the board sets up itself.
    pub forgets: bool,
    /// The process that holds the namespaces; the machine's process 1 is its child.
    holder: Option<Child>,
}

impl Machine {
    /// A machine that is off, with a network namespace without links.
    pub fn new(name: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("cor-e2e-{}-machine{count}", std::process::id());
        let base = std::env::var_os("CORACLE_TEST_DIR").map_or("/var/tmp".into(), PathBuf::from);
        let folder = base.join(folder);
        fs::create_dir_all(&folder).expect("a folder for the machine");
        let disk = Some("size=4g,mode=0755");
        mount(Some("machine"), &folder, Some("tmpfs"), MsFlags::empty(), disk).expect("a disk");
        Self { name, netns: Netns::new(name), folder, forgets: false, holder: None }
    }

    /// Switches it on and waits until systemd has started everything.
    pub fn boot(&mut self) {
        self.start();
        let said = || fs::read_to_string(self.folder.join("boot.log")).unwrap_or_default();
        eventually_some("systemd runs", || {
            let state = self.try_run("systemctl is-system-running")?;
            if state.trim() == "running" { Ok(()) } else { Err(state + &said()) }
        });
    }

    /// Switches it on.
    pub fn start(&mut self) {
        if self.forgets {
            self.netns.ip("addr flush dev eth0");
        }
        let debian = tools().join("debian");
        assert!(debian.join("sbin/init").exists(), "./test.sh tools makes target/tools/debian");
        let debian = debian.canonicalize().expect("a plain path");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/harness/machine.sh");
        let mut line = self.netns.command("sh");
        line.arg(script).arg(self.name).arg(&self.folder).arg(debian).arg(coracle());
        let log = fs::File::create(self.folder.join("boot.log")).expect("a log");
        line.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.holder = Some(line.spawn().expect("sh"));
    }

    /// Takes its power: all its processes end at once, and with them its network. A new one without
    /// links is there for the next start.
    pub fn cut_power(&mut self) {
        let Some(init) = self.init() else { return };
        // SAFETY: plain system call on the first process of this machine, whose end is all others'.
        unsafe { libc::kill(i32::try_from(init).expect("a process"), libc::SIGKILL) };
        if let Some(mut holder) = self.holder.take() {
            let _ = holder.wait();
        }
        eventually("nothing of it runs", || remove_cgroups(&self.group()));
        self.netns = Netns::new(self.name);
    }

    /// The control group that it is in.
    fn group(&self) -> String {
        format!("/{}", self.folder.file_name().unwrap_or_default().to_string_lossy())
    }

    /// The machine's process 1, as this machine counts.
    fn init(&self) -> Option<u32> {
        let holder = self.holder.as_ref()?.id();
        let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A file of the machine while it runs.
    pub fn file(&self, path: &str) -> PathBuf {
        let init = self.init().expect("a running machine");
        PathBuf::from(format!("/proc/{init}/root{path}"))
    }

    /// Runs a command in it; what it said in either case.
    pub fn try_run(&self, line: &str) -> Result<String, String> {
        let init = self.init().ok_or("the machine is off")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={init}"));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        let path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.args(["env", "-i", path, "HOME=/root"]).args(line.split_whitespace());
        let out = command.stdin(Stdio::null()).output().expect("nsenter");
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.success() { Ok(told) } else { Err(told + &error) }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.try_run(line).unwrap_or_else(|said| panic!("{}: {line}: {said}", self.name))
    }

    /// One property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show {unit} --property={name} --value")).trim().to_owned()
    }

    /// Waits until it has switched itself off.
    pub fn until_off(&mut self) {
        eventually("the machine is off", || self.is_off());
    }

    /// Whether it is off.
    pub fn is_off(&mut self) -> bool {
        let ended = |holder: &mut Child| holder.try_wait().expect("wait").is_some();
        if self.holder.as_mut().is_some_and(ended) {
            self.holder = None;
        }
        self.holder.is_none()
    }

    /// A file on its disk before it is switched on.
    pub fn write(&self, path: &str, content: &str, mode: u32) {
        let path = self.folder.join("written").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permissions");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.try_run("journalctl --no-pager --lines=40 --unit=coracle*");
            eprintln!("--- the journal of {}\n{}\n---", self.name, log.unwrap_or_else(|e| e));
        }
        if let Some(mut holder) = self.holder.take() {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        sweep(&self.folder, &self.group());
    }
}
