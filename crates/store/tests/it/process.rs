//! A server program of a test: it starts, may be killed, stopped and started again, and leaves
//! neither process nor file behind, however the test ends.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a server may take until it says that it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(90);

/// Where the unpacked programs are.
pub fn tools(path: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools").join(path);
    assert!(tools.exists(), "{} is missing; run tools/test-tools.sh", tools.display());
    tools.canonicalize().expect("it exists")
}

/// A port that nobody listens on, outside the range that the system gives to clients.
pub fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(15_000..32_000))
        .find(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("some port is free")
}

/// A folder in memory, removed with what still runs in it when the test process ends.
pub struct Folder {
    pub path: PathBuf,
    /// The guard acts when this closes, which no crash can prevent.
    guard: Option<(ChildStdin, Child)>,
}

impl Folder {
    pub fn new(name: &str) -> Self {
        let number = fastrand::u32(..);
        let path = PathBuf::from(format!("/dev/shm/store-{}-{name}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("make a folder in memory");
        // A server that is stopped or still shutting down may make files meanwhile: again.
        let script = "read -r _; for pid in $(cat \"$1\"/pid.* 2>/dev/null); do kill -9 $pid; done 2>/dev/null; \
                      until rm -rf \"$1\" 2>/dev/null; do sleep 0.2; done";
        let mut guard = Command::new("setsid");
        guard.args(["sh", "-c", script, "guard"]).arg(&path);
        let mut guard = guard
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let stdin = guard.stdin.take().expect("piped");
        Self { path, guard: Some((stdin, guard)) }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some((stdin, mut guard)) = self.guard.take() {
            drop(stdin);
            let _ = guard.wait();
        }
    }
}

/// How to run a server.
#[derive(Clone)]
pub struct Recipe {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    /// What it writes when it can be used.
    pub ready: &'static str,
    /// Runs it as nobody.
    pub unprivileged: bool,
}

/// A running server.
pub struct Process {
    child: Child,
    note: PathBuf,
}

impl Process {
    /// Starts it and returns without waiting for it.
    pub fn start(recipe: &Recipe, folder: &Path) -> (Self, mpsc::Receiver<()>) {
        let mut command = Command::new(&recipe.program);
        command.args(&recipe.arguments).envs(recipe.environment.iter().cloned());
        command.current_dir(folder);
        if recipe.unprivileged {
            use std::os::unix::process::CommandExt;
            command.uid(65_534).gid(65_534);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start a server");
        let note = folder.join(format!("pid.{}", child.id()));
        std::fs::write(&note, child.id().to_string()).expect("note the server's pid");
        let output = BufReader::new(child.stderr.take().expect("piped"));
        let mut log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("open a log");
        let (tell, ready) = mpsc::channel();
        let marker = recipe.ready;
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                if line.contains(marker) {
                    let _ = tell.send(());
                }
            }
        });
        (Self { child, note }, ready)
    }

    /// Starts it and waits until it can be used.
    pub fn ready(recipe: &Recipe, folder: &Path) -> Self {
        let (process, ready) = Self::start(recipe, folder);
        await_ready(&ready, folder);
        process
    }

    /// Ends it without a warning.
    pub fn kill(mut self) {
        self.end();
    }

    /// Stops it (`STOP`) or lets it go on (`CONT`): a process that hangs.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill").success());
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.note);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until a server that was started says that it can be used.
pub fn await_ready(ready: &mpsc::Receiver<()>, folder: &Path) {
    if ready.recv_timeout(READY_PATIENCE).is_err() {
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("the server in {} does not come up:\n{log}", folder.display());
    }
}

/// Runs a program that ends by itself.
pub fn run(command: &mut Command) {
    let output = command.output().expect("start a program");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}
