//! A board's init: one process that holds the board's namespaces, runs its command again when it
//! ends, and takes everything along when it ends itself. It is this binary too, entered before
//! any thread exists.
//!
//! It says `ready` when the namespaces are as they should be, and starts the command when it is
//! told `go`: the caller lays the cable meanwhile. A caller that dies lets go of the pipe, and
//! the board ends as if it had never been.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe, setsid};

use crate::clock;
use crate::error::{Doing, Error, Hinted, Result};
use crate::fault::Faults;
use crate::plan::{Board, Plan, SWITCH};
use crate::process::Identity;
use crate::state::{Folder, read_json};
use crate::{cgroup, root};

/// The first argument that makes the binary a board's init.
pub const ARGUMENT: &str = "sandbox-init";
/// What the init says when it waits for its cable.
pub(crate) const READY: &[u8] = b"ready\n";
/// What it is told when the cable is there.
pub(crate) const GO: &[u8] = b"go\n";
/// Ends the command in order and starts it again at once.
pub(crate) const RESTART: i32 = libc::SIGUSR1;
/// Kills the command; it is started again as after any other end.
pub(crate) const CRASH: i32 = libc::SIGUSR2;
/// How long after its end the command is started again: what our systemd unit says.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
/// How long the command may take to stop before the board goes off anyway.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// How long the rest of the board has to end after SIGTERM.
const REST_PATIENCE: Duration = Duration::from_secs(5);
/// Where the command finds its configuration.
const CONFIG: &str = "/etc/coracle/config.yaml";

/// Runs the init for `FOLDER BOARD`.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(folder), Some(name)) = (arguments.next(), arguments.next()) else {
        eprintln!("{ARGUMENT} is what `coracle sandbox` starts its boards with");
        return ExitCode::FAILURE;
    };
    let folder = Folder::at(Path::new(&folder));
    match hold(&folder, &name.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", base::chain(&error));
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn hold(folder: &Folder, name: &str) -> Result {
    let place = folder.board(name);
    let plan: Plan =
        read_json(&folder.plan())?.ok_or_else(|| Error::new("there is no plan of the sandbox"))?;
    let board = plan.boards.iter().find(|board| board.name == name);
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    if board.is_some() {
        cgroup::join(&folder.group(), name)?;
        flags |= CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP;
    }
    unshare(flags)
        .doing(|| format!("making namespaces for {name}"))
        .hinted("use sudo; in a container, start it privileged")?;
    if board.is_some() {
        cgroup::step_aside(&folder.group(), name)?;
    }
    let (go, set_out) = pipe().doing(|| "making a pipe".into())?;
    // SAFETY: this process has one thread, so the child may do all that the parent could.
    match unsafe { fork() }.doing(|| "starting the board's init".into())? {
        ForkResult::Parent { child } => {
            let identity = Identity::of(child.as_raw())
                .ok_or_else(|| Error::new("the board's init ended at once"))?;
            identity.write(&place.identity()).doing(|| "writing down the board's init".into())?;
            File::from(set_out).write_all(GO).doing(|| "starting the board's init".into())
        }
        ForkResult::Child => {
            drop(set_out);
            // Unrecorded, nobody would find this process again.
            wait_for_go(File::from(go))?;
            match board {
                Some(board) => Init::new(&plan, board, folder)?.run(),
                None if name == SWITCH => run_switch(),
                None => Err(Error::new(format!("no board is called {name}"))),
            }
        }
    }
}

fn wait_for_go(mut from: impl Read) -> Result {
    let mut told = [0; GO.len()];
    from.read_exact(&mut told).doing(|| "waiting for the command that started this".into())
}

/// Reports, waits for the cable, and lets go of the caller.
fn take_off() -> Result {
    setsid().doing(|| "leaving the caller's session".into())?;
    let told = io::stdout().write_all(READY).and_then(|()| io::stdout().flush());
    told.doing(|| "reporting to the command that started this".into())?;
    wait_for_go(io::stdin())?;
    let nowhere = File::options().read(true).write(true).open("/dev/null");
    let nowhere = OwnedFd::from(nowhere.doing(|| "opening /dev/null".into())?);
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: both descriptors are open, and nothing owns the standard ones as values.
        unsafe { libc::dup2(nowhere.as_raw_fd(), standard) };
    }
    Ok(())
}

/// The switch is its namespaces; its process only holds them.
fn run_switch() -> Result {
    set_parameters(&[
        ("net/ipv4/ip_forward", "1"),
        // An address belongs to its bridge and is not told to others on bare ports.
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
    ])?;
    let signals = block_signals()?;
    take_off()?;
    loop {
        match wait_for_signal(&signals, None) {
            Some(libc::SIGTERM) => return Ok(()),
            _ => while reap().is_some() {},
        }
    }
}

fn set_parameters(parameters: &[(&str, &str)]) -> Result {
    for (key, value) in parameters {
        fs::write(Path::new("/proc/sys").join(key), value).doing(|| format!("setting {key}"))?;
    }
    Ok(())
}

fn block_signals() -> Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).doing(|| "blocking signals".into())?;
    Ok(signals)
}

/// The next signal, or `None` where the time has come first.
fn wait_for_signal(signals: &SigSet, until: Option<Instant>) -> Option<i32> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.unwrap_or(Duration::from_secs(3600));
    let left = libc::timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    // SAFETY: the set and the time live through the call, and no information is asked for.
    let signal = unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), &left) };
    (signal > 0).then_some(signal)
}

/// The next child that has ended.
fn reap() -> Option<(Pid, String)> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, code)) => Some((pid, format!("ended with status {code}"))),
        Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, format!("was ended by {signal}"))),
        _ => None,
    }
}

/// What the board's command is doing.
enum State {
    /// It runs.
    Runs(Pid),
    /// It is asked to end, and is to be started again when it has.
    Restarts(Pid),
    /// It has ended and is started at this time.
    Waits(Instant),
}

struct Init {
    board: Board,
    /// The board's and the sandbox's folder, open: by path they are out of the board's sight.
    place: File,
    folder: File,
    path: String,
    log: File,
    state: State,
}

impl Init {
    fn new(plan: &Plan, board: &Board, folder: &Folder) -> Result<Self> {
        let place = folder.board(&board.name);
        let open = |path: &Path| File::open(path).doing(|| format!("opening {}", path.display()));
        let log = File::options().create(true).append(true).open(place.log());
        let log = log.doing(|| format!("opening {}", place.log().display()))?;
        let (at_place, at_folder) = (open(place.path())?, open(folder.path())?);
        root::enter(plan, board, folder)?;
        Ok(Init {
            board: board.clone(),
            place: at_place,
            folder: at_folder,
            path: format!("{}:{}", root::PROGRAMS, plan.path),
            log,
            state: State::Waits(Instant::now()),
        })
    }

    /// Until the board is switched off in order. A power cut ends this process from outside.
    fn run(mut self) -> Result {
        let signals = block_signals()?;
        take_off()?;
        loop {
            let until = match self.state {
                State::Waits(until) if until <= Instant::now() => {
                    self.start();
                    continue;
                }
                State::Waits(until) => Some(until),
                _ => None,
            };
            match wait_for_signal(&signals, until) {
                Some(libc::SIGTERM) => return self.switch_off(&signals),
                Some(RESTART) => self.restart(),
                Some(CRASH) => self.crash(),
                _ => {}
            }
            while let Some((pid, how)) = reap() {
                self.ended(pid, &how);
            }
        }
    }

    fn start(&mut self) {
        self.state = match self.spawn() {
            Ok(pid) => State::Runs(pid),
            Err(error) => {
                self.say(&format!("cannot be started: {}", base::chain(&error)));
                State::Waits(Instant::now() + RESTART_PAUSE)
            }
        };
    }

    fn spawn(&self) -> Result<Pid> {
        self.configure()?;
        let offset = self.clock_offset();
        let log = || self.log.try_clone().doing(|| "opening the log".into());
        let mut command = Command::new(format!("{}/coracle", root::PROGRAMS));
        command
            .arg(self.board.role.command())
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/root")
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?);
        // SAFETY: both are plain system calls, which may be made between fork and exec.
        unsafe {
            command.pre_exec(move || {
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
                if offset != 0 {
                    clock::ask_to_be_traced()?;
                }
                setsid()?;
                Ok(())
            });
        }
        let child = command.spawn().doing(|| format!("starting {:?}", command.get_program()))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        if offset != 0 {
            clock::shift_at_exec(pid, offset)?;
        }
        Ok(pid)
    }

    /// The board's configuration as the caller has written it last.
    fn configure(&self) -> Result {
        let Ok(text) = fs::read(beneath(&self.place, "config.yaml")) else { return Ok(()) };
        fs::create_dir_all("/etc/coracle")
            .and_then(|()| fs::write(CONFIG, text))
            .doing(|| format!("writing {CONFIG}"))
    }

    fn clock_offset(&self) -> i64 {
        let faults = read_json::<Faults>(&beneath(&self.folder, "faults.json"));
        let faults = faults.ok().flatten().unwrap_or_default();
        faults.clocks.get(&self.board.name).copied().unwrap_or(0)
    }

    fn restart(&mut self) {
        self.state = match self.state {
            State::Runs(pid) | State::Restarts(pid) => {
                let _ = kill(pid, Signal::SIGTERM);
                State::Restarts(pid)
            }
            State::Waits(_) => State::Waits(Instant::now()),
        };
    }

    fn crash(&mut self) {
        if let State::Runs(pid) = self.state {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    fn ended(&mut self, pid: Pid, how: &str) {
        match self.state {
            State::Runs(command) if command == pid => {
                self.say(&format!("{how}; starts again in {} s", RESTART_PAUSE.as_secs()));
                self.state = State::Waits(Instant::now() + RESTART_PAUSE);
            }
            State::Restarts(command) if command == pid => {
                self.say(&format!("{how}; starts again"));
                self.state = State::Waits(Instant::now());
            }
            // The init inherits what others leave behind.
            _ => {}
        }
    }

    /// As a board shuts down: first what was started, then everything else, then the power.
    fn switch_off(self, signals: &SigSet) -> Result {
        if let State::Runs(pid) | State::Restarts(pid) = self.state {
            let _ = kill(pid, Signal::SIGTERM);
            wait_until(signals, STOP_PATIENCE, || {
                std::iter::from_fn(reap).any(|(ended, _)| ended == pid)
            });
        }
        let everybody = Pid::from_raw(-1);
        let _ = kill(everybody, Signal::SIGTERM);
        wait_until(signals, REST_PATIENCE, || {
            std::iter::from_fn(reap).for_each(drop);
            waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(nix::errno::Errno::ECHILD)
        });
        Ok(())
    }

    fn say(&self, what: &str) {
        let _ = writeln!(&self.log, "init: coracle {} {what}", self.board.role.command());
    }
}

fn wait_until(signals: &SigSet, patience: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() && Instant::now() < deadline {
        wait_for_signal(signals, Some(deadline));
    }
}

/// A file in a folder that is open, wherever that is.
fn beneath(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name)
}
