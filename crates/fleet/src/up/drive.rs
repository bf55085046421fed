use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::Secrets;
use super::{Binaries, BoardPlan, Event, Node, Plan, Progress, Step, TokenKind};
use crate::board::{Service, paths};
use crate::ssh::{Refusal, Remote, SshError, Target, Work};

/// How long each sort of step may take.
const PACKAGES: Duration = Duration::from_secs(15 * 60);
const COPY: Duration = Duration::from_secs(10 * 60);
const START: Duration = Duration::from_secs(5 * 60);
const BOOT: Duration = Duration::from_secs(5 * 60);
/// How long Nodes may take to be ready after their services have started.
const READY: Duration = Duration::from_secs(3 * 60);
/// Between two looks at a board that starts, or at Nodes.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes the steps of a plan.
pub struct Driver<'a> {
    /// The way to the boards.
    pub remote: &'a dyn Remote,
    /// What is done.
    pub plan: &'a Plan,
    /// What boards are given.
    pub binaries: &'a Binaries,
    /// What must not be printed.
    pub secrets: &'a Secrets,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Boards on which something failed.
    pub failed: Vec<SshError>,
    /// Boards that were not begun with, because another failed.
    pub left: Vec<String>,
}

impl Outcome {
    /// Whether all that there was to do on a board was done.
    pub fn is_done(&self, board: &str) -> bool {
        !self.failed.iter().any(|error| error.board == board)
            && !self.left.iter().any(|left| left == board)
    }
}

impl Driver<'_> {
    /// Prepares all boards at once, then has the servers join one after the other and the agents
    /// together. The first that fails ends it; what is at work elsewhere is finished.
    pub fn run(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let boards: Vec<&BoardPlan> =
            self.plan.boards.iter().filter(|board| !board.steps.is_empty()).collect();
        outcome.failed = self.together(&boards, |board| self.prepare(board));
        let stays =
            |error: &SshError| !error.refusal.is_away() || error.board == self.plan.seed.name;
        let mut stopped = outcome.failed.iter().any(stays);
        let fine = |outcome: &Outcome, board: &BoardPlan| {
            !outcome.failed.iter().any(|error| error.board == board.name)
        };
        let (servers, others): (Vec<&BoardPlan>, Vec<&BoardPlan>) =
            boards.into_iter().partition(|board| board.service == Some(Service::Server));
        for server in servers {
            if !fine(&outcome, server) {
                continue;
            }
            if stopped {
                outcome.left.push(server.name.clone());
                continue;
            }
            let failed = self.together(&[server], |board| self.turn(board));
            stopped = failed.iter().any(stays);
            outcome.failed.extend(failed);
        }
        let others: Vec<&BoardPlan> =
            others.into_iter().filter(|board| fine(&outcome, board)).collect();
        match stopped {
            true => outcome.left.extend(others.iter().map(|board| board.name.clone())),
            false => outcome.failed.extend(self.together(&others, |board| self.turn(board))),
        }
        outcome
    }

    /// Does something on boards at once; gives those on which it failed.
    fn together(
        &self,
        boards: &[&BoardPlan],
        work: impl Fn(&BoardPlan) -> Result<(), SshError> + Sync,
    ) -> Vec<SshError> {
        let failed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for board in boards {
                scope.spawn(|| {
                    if let Err(error) = work(board) {
                        self.progress.tell(&board.name, &Event::Failed(&error.said));
                        let error = SshError { board: board.name.clone(), ..error };
                        failed.lock().unwrap_or_else(|e| e.into_inner()).push(error);
                    }
                });
            }
        });
        let mut failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
        failed.sort_by(|a, b| a.board.cmp(&b.board));
        failed
    }

    /// Everything but joining. A board that is at work for the cluster restarts in its turn only.
    fn prepare(&self, board: &BoardPlan) -> Result<(), SshError> {
        let at_once = |step: &Step| !waits(board, step);
        self.take(board, at_once)?;
        if !board.steps.iter().any(|step| waits(board, step)) {
            self.progress.tell(&board.name, &Event::Finished);
        }
        Ok(())
    }

    /// Joining. A server is ready before the next one's turn.
    fn turn(&self, board: &BoardPlan) -> Result<(), SshError> {
        let mine = |step: &Step| waits(board, step);
        if !board.steps.iter().any(mine) {
            return Ok(());
        }
        self.take(board, mine)?;
        // A service that starts with its board is nobody's step, and the next one's turn waits for it.
        if board.runs && board.steps.contains(&Step::Reboot) {
            wait_ready(self.remote, &self.plan.seed, &[&board.name], READY)?;
        }
        self.progress.tell(&board.name, &Event::Finished);
        Ok(())
    }

    fn take(&self, board: &BoardPlan, which: impl Fn(&Step) -> bool) -> Result<(), SshError> {
        let total = board.steps.len();
        for (position, step) in board.steps.iter().enumerate().filter(|(_, step)| which(step)) {
            let what = step.to_string();
            let began = Instant::now();
            self.progress
                .tell(&board.name, &Event::Begins { what: &what, number: position + 1, total });
            self.step(board, step, &what)?;
            self.progress.tell(&board.name, &Event::Done { what: &what, took: began.elapsed() });
        }
        Ok(())
    }

    fn step(&self, board: &BoardPlan, step: &Step, what: &str) -> Result<(), SshError> {
        let target = &board.target;
        match step {
            Step::Binary { arch, sum, .. } => {
                let binary = self.binaries.of(arch).ok_or_else(|| {
                    SshError::new(&board.name, Refusal::Failed, format!("no binary for {arch}"))
                })?;
                let work = Work::new(what, Step::receive(sum)).reading(binary.path.clone());
                self.remote.run(target, &work.within(COPY)).map(drop)
            }
            Step::Token(kind) => {
                let token = self.token(*kind)?;
                self.remote.run(target, &Work::new(what, Step::token(&token))).map(drop)
            }
            Step::Reboot => self.reboot(board),
            // The API is asked where a server is.
            Step::Node { .. } => {
                let script = step.script().unwrap_or_default();
                self.remote.run(&self.plan.seed, &Work::new(what, script).within(READY)).map(drop)
            }
            step => {
                let patience = match step {
                    Step::Packages { .. } | Step::TimeSync | Step::DataDisk { .. } => PACKAGES,
                    Step::Service { .. } => START,
                    _ => COPY,
                };
                let work = Work::new(what, step.script().unwrap_or_default()).within(patience);
                self.remote.run(target, &work)?;
                match step {
                    Step::Service { .. } => {
                        wait_ready(self.remote, &self.plan.seed, &[&board.name], READY)
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn token(&self, kind: TokenKind) -> Result<String, SshError> {
        let file = match (kind, &self.secrets.token) {
            (TokenKind::Named, Some(token)) => return Ok(token.expose().to_owned()),
            (TokenKind::Agent, _) => "agent-token",
            (TokenKind::Named | TokenKind::Server, _) => "token",
        };
        let script = format!("cat {}/server/{file}", paths::DATA);
        Ok(self.remote.run(&self.plan.seed, &Work::new("reading the token", script))?.out)
    }

    /// Guarded: the board must come back, and come back with what it was restarted for.
    fn reboot(&self, board: &BoardPlan) -> Result<(), SshError> {
        let target = &board.target;
        let script = Step::Reboot.script().unwrap_or_default();
        self.remote.run(target, &Work::new("reboot", script))?;
        let look = Work::new(
            "looking whether it is back",
            "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat",
        );
        let (boot, init) = &board.boot;
        let before = format!("{boot} {init}");
        until(BOOT, || {
            self.remote.forget(target);
            let answer = self.remote.run(target, &look).ok()?;
            let now: Vec<&str> = answer.out.split_whitespace().collect();
            (now.join(" ") != before).then_some(())
        })
        .ok_or_else(|| {
            let said = "it did not come back after its restart";
            SshError::new(&board.name, Refusal::TimedOut, said)
        })?;
        let check = "if [ -f /sys/fs/cgroup/cgroup.controllers ]; then \
                     grep -qw memory /sys/fs/cgroup/cgroup.controllers; else \
                     awk '$1 == \"memory\" && $4 == 1 { found = 1 } END { exit !found }' /proc/cgroups; fi \
                     || { echo 'the kernel has no memory controller after the restart either: is its \
                     command line elsewhere?' >&2; exit 1; }";
        self.remote.run(target, &Work::new("control groups", check)).map(drop)
    }
}

/// Whether a step waits for its board's turn.
fn waits(board: &BoardPlan, step: &Step) -> bool {
    let restarts = matches!(step, Step::Address { .. } | Step::Reboot | Step::KeepAddress(_));
    step.joins() || (board.runs && restarts)
}

/// Starts a board's service again with what it has now, and waits for its Node.
pub fn restart(
    remote: &dyn Remote,
    board: &Target,
    seed: &Target,
    service: Service,
) -> Result<(), SshError> {
    let step = Step::Service { service, again: true };
    let work = Work::new(step.to_string(), step.script().unwrap_or_default());
    remote.run(board, &work.within(START))?;
    wait_ready(remote, seed, &[&board.name], READY)
}

/// Waits until Nodes are ready, as a server sees them.
pub fn wait_ready(
    remote: &dyn Remote,
    seed: &Target,
    names: &[&str],
    patience: Duration,
) -> Result<(), SshError> {
    let look = Work::new("asking for the nodes", format!("{} board nodes", paths::BINARY));
    let ready = until(patience, || {
        let nodes: Vec<Node> = serde_json::from_str(&remote.run(seed, &look).ok()?.out).ok()?;
        let is_ready = |name: &&str| nodes.iter().any(|node| node.name == **name && node.ready);
        names.iter().all(is_ready).then_some(())
    });
    ready.ok_or_else(|| {
        let said = format!("the node is not ready: `kubectl describe node {}`", names.join(" "));
        SshError::new(names.first().unwrap_or(&""), Refusal::TimedOut, said)
    })
}

/// Looks again and again until there is something, or it takes too long.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a board")]
fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Some(found) => return Some(found),
            None if Instant::now() >= deadline => return None,
            None => thread::sleep(PAUSE),
        }
    }
}
