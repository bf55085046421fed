//! One run of etcd: started, listened to, and ended.
//!
//! A thread of its own starts the process and stays until it has ended, since the kernel's
//! `PR_SET_PDEATHSIG` means the thread that forked, not the process.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use super::line::Line;
use crate::failure::{Hint, Outcome, While};

/// Lines of the log that are kept to find out why it ended.
const TAIL_LINES: usize = 60;
/// Bytes of a line that are looked at; a panic's trace has no end.
const LINE_MAX_BYTES: u64 = 16 * 1024;
/// The same message is not repeated more often than this: a peer that is away is reported every
/// few seconds.
const SAY_AGAIN: Duration = Duration::from_secs(300);
/// Different messages remembered for that.
const SAID_MAX: usize = 64;
/// What every member says when one of them gives the alarm.
const ALARM: &str = "\"alarm raised\"";

/// What etcd warns of although it is how things are.
const NO_NEWS: [&str; 7] = [
    "simple token is not cryptographically signed",
    "established TCP streaming connection with remote peer",
    "stopped TCP streaming connection with remote peer",
    "closed an existing TCP streaming connection",
    "closed TCP streaming connection with remote peer",
    "failed to find remote peer in cluster",
    "rejected connection",
];

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status, in words.
    pub status: String,
    /// The last lines it wrote.
    pub tail: Vec<String>,
    /// How long it ran.
    pub lived: Duration,
}

/// A running etcd.
pub struct Process {
    /// Absent once it has been waited for: its number may be somebody else's then.
    pid: Arc<Mutex<Option<Pid>>>,
    ended: oneshot::Receiver<Ended>,
    alarm: Arc<Notify>,
}

impl Process {
    /// Starts etcd.
    pub async fn spawn(binary: &Path, arguments: Vec<OsString>) -> Outcome<Process> {
        let mut command = Command::new(binary);
        command.args(arguments).env_clear().envs(Line::environment());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let parent = nix::unistd::getpid();
        // SAFETY: prctl and getppid are async-signal-safe, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the line above.
                match nix::unistd::getppid() == parent {
                    true => Ok(()),
                    false => Err(std::io::ErrorKind::BrokenPipe.into()),
                }
            })
        };
        let (started, starting) = oneshot::channel();
        let (finish, ended) = oneshot::channel();
        let alarm = Arc::new(Notify::new());
        let heard = alarm.clone();
        let doing = || format!("starting {}", binary.display());
        std::thread::Builder::new()
            .name("etcd".into())
            .spawn(move || watch(command, started, finish, &heard))
            .doing(doing)?;
        let pid = starting.await.doing(doing)?.doing(doing).hint(|| {
            "see that the file is there and can be run; --etcd-binary names another".into()
        })?;
        Ok(Process { pid, ended, alarm })
    }

    /// Tells when the cluster's etcd has given an alarm.
    pub fn alarm(&self) -> Arc<Notify> {
        self.alarm.clone()
    }

    /// Waits until it has ended by itself or by [`signal`](Self::signal).
    pub async fn ended(&mut self) -> Ended {
        match (&mut self.ended).await {
            Ok(ended) => ended,
            Err(_) => Ended {
                status: "nobody saw it end".into(),
                tail: Vec::new(),
                lived: Duration::ZERO,
            },
        }
    }

    /// Asks it to end, or ends it.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *pid {
            // It may be ending by itself at this moment.
            let _ = kill(pid, signal);
        }
    }

    /// Its number, while it runs.
    pub fn id(&self) -> Option<i32> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner).map(Pid::as_raw)
    }
}

type Started = std::io::Result<Arc<Mutex<Option<Pid>>>>;

/// The thread of a run.
fn watch(
    mut command: Command,
    started: oneshot::Sender<Started>,
    finish: oneshot::Sender<Ended>,
    alarm: &Notify,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // Whoever asked may be gone.
            let _ = started.send(Err(error));
            return;
        }
    };
    let begin = Instant::now();
    let number = Pid::from_raw(child.id().cast_signed());
    let pid = Arc::new(Mutex::new(Some(number)));
    if started.send(Ok(pid.clone())).is_err() {
        // Nobody will ever stop it.
        let _ = child.kill();
    }
    let tail = listen(&mut child, alarm);
    // Waiting without reaping keeps the number ours until no signal can be sent to it any more.
    let _ = waitid(Id::Pid(number), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    *pid.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let status = child.wait().map_or_else(|error| error.to_string(), in_words);
    let _ = finish.send(Ended { status, tail: tail.into(), lived: begin.elapsed() });
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(Ok(signal))) => signal.to_string(),
        _ => status.to_string(),
    }
}

/// Passes on what it writes until it has closed its output.
fn listen(child: &mut Child, alarm: &Notify) -> VecDeque<String> {
    let mut tail = VecDeque::new();
    let Some(output) = child.stderr.take() else { return tail };
    let mut output = BufReader::new(output);
    let mut said = HashMap::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut output).take(LINE_MAX_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return tail,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        if text.is_empty() {
            continue;
        }
        if text.contains(ALARM) {
            alarm.notify_one();
        }
        pass_on(&text, &mut said);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    }
}

fn pass_on(text: &str, said: &mut HashMap<String, Instant>) {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(text) else {
        tracing::debug!(target: "etcd", "{text}");
        return;
    };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (level, message) = (take("level"), take("msg"));
    for noise in ["ts", "caller", "stacktrace"] {
        take(noise);
    }
    let now = Instant::now();
    said.retain(|_, at| now - *at < SAY_AGAIN);
    if said.len() >= SAID_MAX || said.insert(message.clone(), now).is_some() {
        return;
    }
    let details = Value::Object(fields);
    match level.as_str() {
        _ if NO_NEWS.iter().any(|known| message.starts_with(known)) => {
            tracing::debug!(target: "etcd", %details, "{message}");
        }
        "info" | "debug" => tracing::debug!(target: "etcd", %details, "{message}"),
        "warn" => tracing::warn!(target: "etcd", %details, "{message}"),
        _ => tracing::error!(target: "etcd", %details, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (&'static Path, Vec<OsString>) {
        (Path::new("/bin/sh"), vec!["-c".into(), script.into()])
    }

    #[tokio::test]
    async fn what_it_said_last_is_known_when_it_has_ended() {
        let (binary, arguments) = shell("echo first >&2; echo last >&2; exit 3");
        let ended = Process::spawn(binary, arguments).await.expect("started").ended().await;
        assert_eq!(
            (ended.status.as_str(), ended.tail.join(" ").as_str()),
            ("exit code 3", "first last")
        );
    }

    #[tokio::test]
    async fn a_signal_ends_it_and_none_is_sent_afterwards() {
        let (binary, arguments) = shell("exec sleep 1000");
        let mut process = Process::spawn(binary, arguments).await.expect("started");
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ended().await.status, "SIGTERM");
        assert_eq!(process.id(), None);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let failure = Process::spawn(Path::new("/nowhere/etcd"), Vec::new()).await.err();
        assert_eq!(failure.expect("refused").to_string(), "starting /nowhere/etcd");
    }

    #[test]
    fn the_same_message_is_said_once() {
        let mut said = HashMap::new();
        pass_on(r#"{"level":"warn","msg":"peer away","ts":"1"}"#, &mut said);
        pass_on(r#"{"level":"warn","msg":"peer away","ts":"2"}"#, &mut said);
        assert_eq!(said.len(), 1);
    }
}
