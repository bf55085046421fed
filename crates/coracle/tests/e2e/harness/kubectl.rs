//! The real kubectl.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use super::board::Board;
use super::netns::Netns;
use super::wait::eventually_some;

/// Which kubectl: each test of a verb runs with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Debian 12's, of the year 2020.
    Old,
    /// Of our own API level.
    New,
}

impl Version {
    fn program(self) -> PathBuf {
        let (variable, folder) = match self {
            Self::Old => ("KUBECTL_OLD", "kubectl-1.20"),
            Self::New => ("KUBECTL_NEW", "kubectl-new"),
        };
        if let Some(path) = std::env::var_os(variable) {
            return path.into();
        }
        super::board::tools().join(folder).join("usr/bin/kubectl")
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

/// kubectl of one version in a namespace of its own.
pub struct Kubectl<'a> {
    pub version: Version,
    /// Where it runs.
    pub netns: &'a Netns,
    pub kubeconfig: PathBuf,
    pub home: PathBuf,
    /// The server, where it is not the one of the kubeconfig.
    pub server: Option<String>,
    pub namespace: String,
}

/// Runs a test with each kubectl, on one board, each in its own namespace.
pub fn both(board: &Board, test: impl Fn(&Kubectl)) {
    for version in [Version::New, Version::Old] {
        let kubectl = Kubectl::new(board, version);
        kubectl.ok(&format!("create namespace {}", kubectl.namespace));
        println!("kubectl {version:?}");
        test(&kubectl);
    }
}

impl<'a> Kubectl<'a> {
    /// The namespace must be made before it is used.
    pub fn new(board: &'a Board, version: Version) -> Self {
        let seat = Self::at(&board.netns, board.kubeconfig(), board.folder.clone());
        Self { version, namespace: version.namespace().into(), ..seat }
    }

    /// The newest, in the namespace `default`.
    pub fn default(board: &'a Board) -> Self {
        Self::at(&board.netns, board.kubeconfig(), board.folder.clone())
    }

    /// The newest, in the namespace `default`, run anywhere.
    pub fn at(netns: &'a Netns, kubeconfig: PathBuf, home: PathBuf) -> Self {
        let namespace = "default".into();
        Self { version: Version::New, netns, kubeconfig, home, server: None, namespace }
    }

    /// A command; arguments are words, single quotes hold one together.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = self.netns.command(self.version.program());
        command
            .args(["--kubeconfig".as_ref(), self.kubeconfig.as_os_str()])
            .args(["--cache-dir".as_ref(), self.home.join("kube-cache").as_os_str()])
            .args(self.server.iter().flat_map(|server| ["--server", server]))
            .args(["--namespace", &self.namespace])
            .args(words(arguments))
            .env("HOME", &self.home)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &str) -> Run {
        Run::new(arguments, self.command(arguments).output().expect("kubectl"))
    }

    /// Runs to the end with something on its input.
    pub fn run_with(&self, arguments: &str, input: &str) -> Run {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let mut stdin = child.stdin.take().expect("a pipe");
        // kubectl takes what begins with a brace for JSON; YAML in braces needs a mark.
        if arguments.ends_with("-f -") {
            let _ = stdin.write_all(b"---\n");
        }
        // It may leave before it has read everything; what it says then tells more.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Run::new(arguments, child.wait_with_output().expect("kubectl"))
    }

    /// Runs, must succeed; gives what it printed.
    pub fn ok(&self, arguments: &str) -> String {
        self.run(arguments).ok()
    }

    /// Runs, must fail; gives what it printed on stderr.
    pub fn fails(&self, arguments: &str) -> String {
        self.run(arguments).fails()
    }

    /// `apply -f -`, must succeed.
    pub fn apply(&self, manifest: &str) -> String {
        self.run_with("apply -f -", manifest).ok()
    }

    /// Starts and goes on; output is piped.
    pub fn spawn(&self, arguments: &str) -> Child {
        self.command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl")
    }

    /// Waits until a command's output is exactly `wanted`.
    pub fn until(&self, arguments: &str, wanted: &str) {
        self.until_that(arguments, |out| out == wanted);
    }

    /// Waits until a command's output satisfies `wanted`; gives it.
    pub fn until_that(&self, arguments: &str, wanted: impl Fn(&str) -> bool) -> String {
        eventually_some(arguments, || {
            let run = self.run(arguments);
            if run.success && wanted(run.stdout.trim()) { Ok(run.stdout) } else { Err(run) }
        })
    }

    /// One field by JSONPath, as `kind/name` and `{.path}` without the braces.
    pub fn field(&self, object: &str, path: &str) -> String {
        self.ok(&format!("get {object} -o 'jsonpath={{{path}}}'"))
    }

    /// Waits until a field has a value.
    pub fn until_field(&self, object: &str, path: &str, wanted: &str) {
        self.until(&format!("get {object} -o 'jsonpath={{{path}}}'"), wanted);
    }

    /// Waits until a pod's container log satisfies `wanted`.
    pub fn until_log(&self, pod: &str, wanted: &str) -> String {
        self.until_that(&format!("logs {pod}"), |log| log.contains(wanted))
    }
}

/// What a finished kubectl said.
pub struct Run {
    arguments: String,
    pub success: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arguments, code, stdout, stderr, .. } = self;
        write!(f, "kubectl {arguments} (exit {code:?})\n{stdout}{stderr}")
    }
}

impl Run {
    fn new(arguments: &str, out: Output) -> Self {
        Self {
            arguments: arguments.into(),
            success: out.status.success(),
            code: out.status.code(),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success, "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.success, "should have failed: {self:?}");
        self.stderr
    }
}

/// Words as a shell would see them, with single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
