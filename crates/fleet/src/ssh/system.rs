use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::{Answer, Become, Refusal, Remote, SshError, Target, Work};

/// How long a connection may take to be made.
const CONNECT_SECONDS: u32 = 10;
/// How often a silent connection is asked whether it lives, and how often in vain.
const ALIVE_SECONDS: u32 = 5;
const ALIVE_COUNT: u32 = 6;
/// How long a connection is kept for the next command.
const PERSIST_SECONDS: u32 = 60;
/// Between two looks at a command that runs.
const PAUSE: Duration = Duration::from_millis(5);
/// What of an answer is kept, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The ssh of this machine, one connection a board.
pub struct System {
    /// Sockets of connections.
    folder: Folder,
    accept_new: bool,
    roots: Mutex<HashMap<String, Become>>,
}

impl System {
    /// `accept_new` believes host keys that are seen for the first time. `passwords` are those of
    /// sudo, by board.
    pub fn new(accept_new: bool) -> io::Result<Self> {
        Ok(Self { folder: Folder::new(close)?, accept_new, roots: Mutex::default() })
    }

    /// Has ssh itself show the fingerprint of an unknown host and ask, on the terminal.
    pub fn introduce(&self, target: &Target) -> Result<(), SshError> {
        let mut command = Command::new("ssh");
        command.args(["-o", "StrictHostKeyChecking=ask"]);
        let connect = format!("ConnectTimeout={CONNECT_SECONDS}");
        command.args(["-o", &connect]).args(target.arguments()).arg("true");
        let status = command.status().map_err(|e| no_ssh(target, &e))?;
        match status.success() {
            true => Ok(()),
            false => Err(SshError::new(&target.name, Refusal::UnknownHostKey, "")),
        }
    }

    /// The command that opens a shell on a board, or runs words there, on this terminal.
    pub fn interactive(target: &Target, words: &[String]) -> Command {
        let mut command = Command::new("ssh");
        command.args(target.arguments()).args(words);
        command
    }

    /// Starts a command that goes on, as root; what it prints is a pipe.
    pub fn start(&self, target: &Target, line: &str) -> io::Result<Child> {
        let root = self.root(target);
        let mut command = self.command(target);
        command.arg(root.command(line)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(root.preface().as_bytes())?;
        }
        Ok(child)
    }

    fn root(&self, target: &Target) -> Become {
        let roots = self.roots.lock().unwrap_or_else(|e| e.into_inner());
        roots.get(&target.name).cloned().unwrap_or(Become::Root)
    }

    fn command(&self, target: &Target) -> Command {
        let mut command = Command::new("ssh");
        let checking = if self.accept_new { "accept-new" } else { "yes" };
        let socket = self.folder.path().join("%C");
        for option in [
            "BatchMode=yes".to_owned(),
            format!("StrictHostKeyChecking={checking}"),
            format!("ConnectTimeout={CONNECT_SECONDS}"),
            format!("ServerAliveInterval={ALIVE_SECONDS}"),
            format!("ServerAliveCountMax={ALIVE_COUNT}"),
            "ControlMaster=auto".into(),
            format!("ControlPath={}", socket.display()),
            format!("ControlPersist={PERSIST_SECONDS}"),
            "LogLevel=ERROR".into(),
            // What we say to boards is nobody else's: neither agent nor display are lent to them.
            "ForwardAgent=no".into(),
            "ForwardX11=no".into(),
            "RequestTTY=no".into(),
        ] {
            command.args(["-o", &option]);
        }
        command.args(target.arguments());
        command
    }

    fn piped(&self, target: &Target, work: &Work, line: &str) -> Result<Answer, SshError> {
        let root = if work.root { self.root(target) } else { Become::Root };
        let mut command = self.command(target);
        command.arg(if work.root { root.command(line) } else { line.to_owned() });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| no_ssh(target, &error))?;
        let mut input = child.stdin.take().expect("a pipe was asked for");
        let output = child.stdout.take().expect("a pipe was asked for");
        let errors = child.stderr.take().expect("a pipe was asked for");
        let mut preface = root.preface();
        if work.input.is_none() {
            preface.push_str(&whole(&work.script));
        }
        let file = work.input.as_deref();
        let (ended, out, said) = thread::scope(|scope| {
            scope.spawn(move || {
                // A command that has ended does not read to the end; what it said tells more.
                let _ = input.write_all(preface.as_bytes()).and_then(|()| feed(&mut input, file));
            });
            let out = scope.spawn(|| read(output));
            let said = scope.spawn(|| read(errors));
            let ended = wait(&mut child, work.patience);
            (ended, out.join().unwrap_or_default(), said.join().unwrap_or_default())
        });
        match ended {
            Some(Some(0)) => Ok(Answer { out }),
            Some(Some(255)) if !work.what.is_empty() => Err(refused(target, &said)),
            Some(_) => {
                let said = if said.trim().is_empty() { out } else { said };
                let said = format!("{}: {}", work.what, last_line(&said));
                Err(SshError::new(&target.name, Refusal::Failed, said))
            }
            None => Err(SshError::new(&target.name, Refusal::TimedOut, work.what.as_str())),
        }
    }
}

impl Remote for System {
    fn enter(&self, target: &Target, password: Option<String>) -> Result<(), SshError> {
        let probe = Work::new(
            "logging in",
            "if [ \"$(id -u)\" = 0 ]; then echo root; \
             elif ! command -v sudo >/dev/null; then echo none; \
             elif sudo -k -n true 2>/dev/null; then echo sudo; else echo password; fi",
        );
        let said = self.run(target, &probe.as_login())?.out;
        let root = match (said.trim(), password) {
            ("root", _) => Become::Root,
            ("sudo", _) => Become::Sudo,
            ("password", Some(password)) => Become::Password(password),
            ("password", None) => {
                let said = "it asks for a password, and none is named";
                return Err(SshError::new(&target.name, Refusal::Sudo, said));
            }
            _ => {
                let said = "the account is not root, and there is no sudo";
                return Err(SshError::new(&target.name, Refusal::Sudo, said));
            }
        };
        let asks = matches!(root, Become::Password(_));
        self.roots.lock().unwrap_or_else(|e| e.into_inner()).insert(target.name.clone(), root);
        if asks {
            // A wrong password must not have sudo read the next script as further attempts.
            let tried = self.piped(target, &Work::new("sudo", ""), "true");
            tried.map_err(|error| {
                let said = format!("it does not take the password that is named ({})", error.said);
                SshError::new(&target.name, Refusal::Sudo, said)
            })?;
        }
        Ok(())
    }

    fn run(&self, target: &Target, work: &Work) -> Result<Answer, SshError> {
        match &work.input {
            None => self.piped(target, work, "sh -s"),
            Some(_) => self.piped(target, work, &format!("sh -c {}", quoted(&work.script))),
        }
    }

    fn forget(&self, target: &Target) {
        let mut command = Command::new("ssh");
        let socket = format!("ControlPath={}", self.folder.path().join("%C").display());
        command.args(["-O", "exit", "-o", &socket]).args(target.arguments());
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Connections end with their sockets, not a minute later.
        self.folder.sockets().iter().for_each(|socket| close(socket));
    }
}

/// Ends the connection behind a socket.
fn close(socket: &Path) {
    let path = format!("ControlPath={}", socket.display());
    let mut command = Command::new("ssh");
    command.args(["-o", &path, "-O", "exit", "board"]);
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// A script that begins only when all of it has come: a shell that reads its standard input runs what
/// it has, and a connection that breaks must not leave half a script done.
fn whole(script: &str) -> String {
    format!(
        "coracle_script() {{\ntrap '' HUP PIPE\n{script}\n}}\ncoracle_script </dev/null\nexit\n"
    )
}

/// A word of the shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn feed(input: &mut impl Write, file: Option<&Path>) -> io::Result<()> {
    if let Some(path) = file {
        io::copy(&mut File::open(path)?, input)?;
    }
    Ok(())
}

fn read(from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end: `Some(code)`, or none where it took too long and was ended.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a process")]
fn wait(child: &mut Child, patience: Duration) -> Option<Option<i32>> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.code()),
            Ok(None) if Instant::now() < deadline => thread::sleep(PAUSE),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// What matters of a longer text: the last line that says something.
fn last_line(text: &str) -> String {
    let mut lines = text.lines().rev().map(str::trim);
    lines.find(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned()
}

/// What ssh said when it ended by itself.
fn refused(target: &Target, said: &str) -> SshError {
    let refusal = Refusal::of(said);
    let missing = target.key.as_ref().filter(|key| !key.exists() && !has_public(key));
    let said = match (refusal, missing) {
        (Refusal::ChangedHostKey, _) => target.forgetting(),
        (Refusal::Denied, Some(key)) => format!("there is no key {}", key.display()),
        _ => last_line(said),
    };
    // ssh says nothing of what happened on the way, and takes what it needs there from its own files.
    let said = match target.jump.as_ref().filter(|_| refusal == Refusal::Unreachable) {
        Some(jump) => format!(
            "{said} (by way of {jump}: `ssh {jump}` has to work by itself, with keys and known hosts of \
             ~/.ssh)"
        ),
        None => said,
    };
    SshError::new(&target.name, refusal, said)
}

/// Whether the public half is there: the private one may be an agent's.
fn has_public(key: &Path) -> bool {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    Path::new(&name).exists()
}

fn no_ssh(target: &Target, error: &io::Error) -> SshError {
    SshError::new(&target.name, Refusal::NoSsh, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_names_the_next_step() {
        let target = |port, key: Option<&str>| Target {
            name: "pi1".into(),
            host: "10.0.0.1".into(),
            user: None,
            port,
            key: key.map(Into::into),
            jump: None,
            known_hosts: Some("known".into()),
        };
        let changed =
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.";
        for (port, command) in [
            (None, "(`ssh-keygen -R 10.0.0.1 -f known`)"),
            (Some(2222), "(`ssh-keygen -R '[10.0.0.1]:2222' -f known`)"),
        ] {
            let hint = refused(&target(port, None), changed).hint();
            assert!(hint.contains(command), "{hint}");
        }
        let denied = "pi@10.0.0.1: Permission denied (publickey).";
        let error = refused(&target(None, Some("/none/key")), denied);
        assert_eq!(error.to_string(), "pi1 does not let us in: there is no key /none/key");
        assert_eq!(refused(&target(None, None), denied).said, denied);
        let jumping = Target { jump: Some("me@gate".into()), ..target(None, None) };
        let said = refused(&jumping, "Connection closed by remote host").said;
        assert!(said.contains("by way of me@gate: `ssh me@gate` has to work"), "{said}");
    }
}
