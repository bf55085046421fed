//! A sandbox and what can be done to it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::fcntl::Flock;

use crate::error::{Doing, Error, Hinted, Result};
use crate::fault::{Faults, Wire};
use crate::init::{CRASH, GO, READY, RESTART};
use crate::network::{self, Cable};
use crate::plan::{Board, Options, Plan, SWITCH};
use crate::process::{Identity, Stop};
use crate::state::{Folder, read_json, write_json};
use crate::{cgroup, clock, enter, fault, init, root, rules, wire};

/// What boards take at the least: a server with its datastore, an agent.
const SERVER_MIB: u64 = 160;
const AGENT_MIB: u64 = 48;
/// The file that `fill` fills a board's disk with.
const FILLER: &str = "var/lib/coracle/sandbox-fill";
/// How much of a log is shown where a board does not come up.
const LOG_TAIL_LINES: usize = 12;
/// The most of a log that is read for that.
const LOG_TAIL_BYTES: usize = 64 << 10;

/// A sandbox that exists. While the value lives, no other command changes it.
pub struct Sandbox {
    plan: Plan,
    folder: Folder,
    faults: Faults,
    _lock: Option<Flock<File>>,
}

impl Sandbox {
    /// Plans a sandbox, or finds the one of this name if it is as asked for.
    pub async fn create(base: &Path, name: &str, options: Options, path: String) -> Result<Self> {
        must_be_root()?;
        let folder = Folder::new(base, name)?;
        let lock = Some(folder.lock()?);
        let plan = match read_json::<Plan>(&folder.plan())? {
            Some(plan) if plan.options == options => plan,
            Some(_) => {
                return Err(Error::new(format!("there is a sandbox {name} of another shape"))
                    .with_hint(format!(
                        "`coracle sandbox down {name}` takes it away; or choose another name"
                    )));
            }
            None => new_plan(base, name, options, path).await?,
        };
        for place in [folder.programs(), folder.path().join("boards")] {
            fs::create_dir_all(&place).doing(|| format!("making {}", place.display()))?;
        }
        put_binary(&folder)?;
        write_json(&folder.plan(), &plan)?;
        let faults = read_json(&folder.faults())?.unwrap_or_default();
        Ok(Sandbox { plan, folder, faults, _lock: lock })
    }

    /// A sandbox that was made before, to be changed.
    pub fn open(base: &Path, name: &str) -> Result<Self> {
        must_be_root()?;
        let folder = existing(base, name)?;
        let lock = folder.lock()?;
        Sandbox::read(folder, Some(lock))
    }

    /// A sandbox that was made before, to be looked at or worked in, whatever else goes on.
    pub fn look(base: &Path, name: &str) -> Result<Self> {
        must_be_root()?;
        Sandbox::read(existing(base, name)?, None)
    }

    fn read(folder: Folder, lock: Option<Flock<File>>) -> Result<Self> {
        let plan = read_json(&folder.plan())?.ok_or_else(|| {
            Error::new(format!("{} is no whole sandbox", folder.path().display()))
                .with_hint("`coracle sandbox down` takes it away")
        })?;
        let faults = read_json(&folder.faults())?.unwrap_or_default();
        Ok(Sandbox { plan, folder, faults, _lock: lock })
    }

    /// What it consists of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is wrong with it at the moment, by intention.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// A folder for what the caller keeps about this sandbox; it goes with the sandbox.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes what a board's command finds in its configuration file when it starts next.
    pub fn configure(&self, board: &Board, text: &str) -> Result {
        let path = self.folder.board(&board.name).config();
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .and_then(|()| fs::write(&path, text))
            .doing(|| format!("writing {}", path.display()))
    }

    /// Whether a board has power.
    pub fn is_on(&self, board: &Board) -> bool {
        self.folder.board(&board.name).init().is_some()
    }

    /// The number of a board's first process on this machine.
    pub fn init_pid(&self, board: &Board) -> Option<i32> {
        self.folder.board(&board.name).init().map(|init| init.pid)
    }

    /// Makes the network, where it is not there yet.
    pub async fn switch_on(&self) -> Result {
        if self.folder.board(SWITCH).init().is_none() {
            let (init, started) = self.start(SWITCH)?;
            network::switch(&self.plan, &init).await?;
            return started.go();
        }
        network::switch(&self.plan, &self.switch()?).await
    }

    /// Gives a board power; false where it has it.
    pub async fn power_on(&self, board: &Board) -> Result<bool> {
        if self.is_on(board) {
            return Ok(false);
        }
        let switch = self.switch()?;
        let place = self.folder.board(&board.name);
        fs::create_dir_all(place.path()).doing(|| format!("making {}", place.path().display()))?;
        if let Some(mib) = self.plan.options.disk_mib {
            root::format_disk(&place, mib)?;
        }
        // What a board that lost its power had left behind.
        cgroup::remove(&self.folder.group(), Some(&board.name))?;
        let (init, started) = self.start(&board.name)?;
        network::connect(&self.plan, board, &switch, &init).await?;
        self.apply_cable(board, &switch).await?;
        network::filter(&self.plan, &self.faults, &switch).await?;
        started.go()?;
        Ok(true)
    }

    /// Takes a board's power away, at once or in order; what is on its disk stays. False where it
    /// had none.
    pub async fn power_off(&self, board: &Board, how: Stop) -> Result<bool> {
        let place = self.folder.board(&board.name);
        let Some(init) = place.init() else { return Ok(false) };
        init.end(how)?;
        self.end_relay(board)?;
        if let Ok(switch) = self.switch() {
            network::disconnect(&board.name, &switch).await?;
        }
        Ok(true)
    }

    /// Takes the power of many boards away in one moment.
    pub async fn power_cut(&self, boards: &[&Board]) -> Result {
        let inits = boards.iter().filter_map(|board| self.folder.board(&board.name).init());
        let open: Vec<_> = inits.filter_map(|init| init.open()).collect();
        for handle in &open {
            handle.signal(libc::SIGKILL).doing(|| "cutting the power".into())?;
        }
        for board in boards {
            self.power_off(board, Stop::PowerCut).await?;
        }
        Ok(())
    }

    /// Stops a board's command in order and starts it again.
    pub fn restart_process(&self, board: &Board) -> Result {
        self.signal(board, RESTART)
    }

    /// Kills a board's command; the board starts it again as systemd would.
    pub fn crash_process(&self, board: &Board) -> Result {
        self.signal(board, CRASH)
    }

    fn signal(&self, board: &Board, signal: i32) -> Result {
        let sent = self.init(board)?.open().map(|handle| handle.signal(signal));
        sent.unwrap_or(Ok(())).doing(|| format!("telling the init of {}", board.name))
    }

    /// Changes what is wrong, and makes it so.
    pub async fn change(&mut self, change: impl FnOnce(&mut Faults)) -> Result {
        let before = self.faults.clone();
        change(&mut self.faults);
        self.check_names()?;
        write_json(&self.folder.faults(), &self.faults)?;
        let switch = self.switch()?;
        for board in self.plan.boards.iter().filter(|board| self.is_on(board)) {
            let name = &board.name;
            let cable = |faults: &Faults| {
                (faults.wires.get(name).copied(), faults.unplugged.contains(name))
            };
            if cable(&before) != cable(&self.faults) {
                self.apply_cable(board, &switch).await?;
            }
        }
        network::filter(&self.plan, &self.faults, &switch).await
    }

    fn check_names(&self) -> Result {
        let faults = &self.faults;
        let pairs = faults.cuts.iter().flat_map(|cut| [&cut.from, &cut.to]);
        let pairs = pairs.filter(|name| *name != rules::MACHINE);
        let single = faults.unplugged.iter().chain(&faults.mute).chain(faults.wires.keys());
        pairs.chain(single).try_for_each(|name| self.plan.board(name).map(drop))
    }

    async fn apply_cable(&self, board: &Board, switch: &Identity) -> Result {
        self.end_relay(board)?;
        let cable = network::wire(board, &self.faults, switch).await?;
        let Cable::Relayed(one, other) = cable else { return Ok(()) };
        let bad = self.faults.wires.get(&board.name).copied().unwrap_or_default();
        let mut command = Command::new("/proc/self/exe");
        command.args(wire::arguments(&one, &other, &bad));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = enter::spawn_in_network(switch, command)?;
        let identity = Identity::of(child.id().cast_signed())
            .ok_or_else(|| Error::new(format!("the relay of {} ended at once", board.name)))?;
        let path = self.folder.board(&board.name).relay();
        identity.write(&path).doing(|| format!("writing {}", path.display()))
    }

    fn end_relay(&self, board: &Board) -> Result {
        let path = self.folder.board(&board.name).relay();
        if let Some(relay) = Identity::read(&path) {
            relay.end(Stop::PowerCut)?;
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// Makes a cable slow, by so much a round trip, or lossy, or good again.
    pub async fn spoil(&mut self, board: &str, change: impl FnOnce(&mut Wire)) -> Result {
        self.change(|faults| faults.wire(board, change)).await
    }

    /// Reads a delay as it is written for people, and checks it.
    pub fn delay_ms(text: &str) -> Result<u32> {
        fault::delay_ms(text)
    }

    /// Sets a board's clock wrong by so many seconds; says how many processes saw it.
    pub fn set_clock(&mut self, board: &Board, seconds: i64) -> Result<usize> {
        self.faults.clocks.insert(board.name.clone(), seconds);
        if seconds == 0 {
            self.faults.clocks.remove(&board.name);
        }
        write_json(&self.folder.faults(), &self.faults)?;
        clock::shift(&self.folder.group(), &board.name, seconds)
    }

    /// Fills a board's disk to the last byte; says how many bytes that took.
    pub fn fill(&self, board: &Board) -> Result<u64> {
        if self.plan.options.disk_mib.is_none() {
            return Err(Error::new(format!("{} shares this machine's disk", board.name))
                .with_hint("make the sandbox with --disk 2048 to give each board its own"));
        }
        let path = self.on_board(board, FILLER)?;
        fill_up(&path).doing(|| format!("filling the disk of {}", board.name))
    }

    /// Gives the room on a board's disk back.
    pub fn empty(&self, board: &Board) -> Result {
        let Ok(path) = self.on_board(board, FILLER) else { return Ok(()) };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Where a file of a board that is on is found from here.
    pub fn on_board(&self, board: &Board, path: &str) -> Result<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.init(board)?.pid));
        Ok(root.join(path.trim_start_matches('/')))
    }

    /// Starts a program on a board.
    pub fn run_on(&self, board: &Board, program: &str, arguments: &[String]) -> Result<Child> {
        let mut command = Command::new(program);
        let path = format!("{}:{}", root::PROGRAMS, self.plan.path);
        command.args(arguments).env("PATH", path).current_dir("/");
        enter::spawn(&self.init(board)?, command)
    }

    /// What a board's command has logged.
    pub fn log_path(&self, board: &Board) -> PathBuf {
        self.folder.board(&board.name).log()
    }

    /// Takes everything away that a sandbox of this name consists of, whole or not. False where
    /// there was nothing.
    pub async fn down(base: &Path, name: &str) -> Result<bool> {
        must_be_root()?;
        let folder = Folder::new(base, name)?;
        let _lock = folder.lock()?;
        let existed = folder.exists();
        if existed {
            Self::take_away(&folder).await?;
        }
        // An `up` that was killed at its very first step has left these; of several sandboxes the
        // last one takes the common folder along.
        folder.forget_lock();
        let _ = fs::remove_dir(base);
        Ok(existed)
    }

    async fn take_away(folder: &Folder) -> Result {
        let plan = read_json::<Plan>(&folder.plan()).ok().flatten();
        let boards = folder.boards();
        let places = boards.iter().map(|board| folder.board(board));
        let held: Vec<Identity> = places
            .flat_map(|place| [place.identity(), place.relay()])
            .filter_map(|path| Identity::read(&path))
            .collect();
        // All at once: one after the other would let the rest of the cluster mourn them.
        for handle in held.iter().filter_map(Identity::open) {
            handle.signal(libc::SIGKILL).doing(|| "switching the boards off".into())?;
        }
        for identity in &held {
            identity.end(Stop::PowerCut)?;
        }
        if let Some(plan) = &plan {
            network::unlink(plan).await?;
        }
        cgroup::remove(&folder.group(), None)?;
        fs::remove_dir_all(folder.path())
            .doing(|| format!("removing {}", folder.path().display()))
            .hinted("see what uses it with `fuser -vm`, end that, and run the command again")
    }

    fn switch(&self) -> Result<Identity> {
        self.folder.board(SWITCH).init().ok_or_else(|| {
            Error::new(format!("the sandbox {} is off", self.plan.name))
                .with_hint(format!("`coracle sandbox up {}` brings it up again", self.plan.name))
        })
    }

    fn init(&self, board: &Board) -> Result<Identity> {
        self.folder.board(&board.name).init().ok_or_else(|| {
            Error::new(format!("{} is off", board.name))
                .with_hint(format!("`coracle sandbox restore {}` gives it power", board.name))
        })
    }

    /// Starts an init and waits until its namespaces are there.
    fn start(&self, name: &str) -> Result<(Identity, Started)> {
        let place = self.folder.board(name);
        fs::create_dir_all(place.path()).doing(|| format!("making {}", place.path().display()))?;
        let log = File::options().create(true).append(true).open(place.log());
        let log = log.doing(|| format!("opening {}", place.log().display()))?;
        let mut child = Command::new(self.folder.programs().join("coracle"))
            .args([init::ARGUMENT.as_ref(), self.folder.path().as_os_str(), name.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .doing(|| format!("starting {name}"))?;
        // Waiting for a child closes the pipe to it; this one leads to the child's own child.
        let pipe = child.stdin.take();
        let mut told = [0; READY.len()];
        let ready = child.stdout.take().map(|mut stdout| stdout.read_exact(&mut told));
        // The process that was started has left its child behind and ends.
        child.wait().doing(|| format!("waiting for the start of {name}"))?;
        match (ready, place.init()) {
            (Some(Ok(())), Some(identity)) if told == READY => {
                Ok((identity, Started { pipe, name: name.to_owned() }))
            }
            _ => Err(Error::new(format!("{name} does not start: {}", tail(&place.log())))
                .with_hint("`coracle sandbox down` takes away what is there")),
        }
    }
}

/// An init that waits for its cable.
struct Started {
    pipe: Option<ChildStdin>,
    name: String,
}

impl Started {
    fn go(mut self) -> Result {
        let told = self.pipe.take().map(|mut pipe| pipe.write_all(GO));
        told.unwrap_or(Ok(())).doing(|| format!("starting {}", self.name))
    }
}

fn existing(base: &Path, name: &str) -> Result<Folder> {
    let folder = Folder::new(base, name)?;
    match folder.exists() {
        true => Ok(folder),
        false => Err(Error::new(format!("there is no sandbox {name}"))
            .with_hint("`coracle sandbox ls` shows what there is; `up` makes one")),
    }
}

async fn new_plan(base: &Path, name: &str, options: Options, path: String) -> Result<Plan> {
    check_memory(&options)?;
    let mut taken = network::taken().await?;
    for other in crate::state::list(base) {
        let folder = Folder::new(base, &other);
        if let Some(plan) = folder.ok().and_then(|f| read_json::<Plan>(&f.plan()).ok().flatten()) {
            taken.extend(plan.networks());
        }
    }
    Plan::new(name, options, path, &taken)
}

fn must_be_root() -> Result {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(Error::new("a sandbox is made of namespaces and mounts, which takes root")
            .with_hint("use sudo")),
    }
}

fn check_memory(options: &Options) -> Result {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let (Some(kib), wanted) = (kib, needed_mib(options)) else { return Ok(()) };
    match kib / 1024 >= wanted {
        true => Ok(()),
        false => Err(Error::new(format!(
            "{} MiB of memory are free, and these boards take {wanted}",
            kib / 1024
        ))
        .with_hint("use fewer boards, or end something else")),
    }
}

fn needed_mib(options: &Options) -> u64 {
    u64::from(options.servers) * SERVER_MIB + u64::from(options.agents) * AGENT_MIB
}

/// Keeps the binary that made the sandbox: its boards must start again also when the one that was
/// called has been replaced or removed.
fn put_binary(folder: &Folder) -> Result {
    let target = folder.programs().join("coracle");
    if target.exists() {
        return Ok(());
    }
    let doing = || format!("putting the binary to {}", target.display());
    let this = fs::read_link("/proc/self/exe").doing(doing)?;
    if fs::hard_link(&this, &target).is_ok() {
        return Ok(());
    }
    let temporary = target.with_extension("new");
    fs::copy("/proc/self/exe", &temporary).doing(doing)?;
    fs::rename(&temporary, &target).doing(doing)
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

fn fill_up(path: &Path) -> io::Result<u64> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let mut chunk = vec![0x5a; 1 << 20];
    while !chunk.is_empty() {
        match file.write(&chunk) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                chunk.truncate(chunk.len() / 2);
            }
            Err(error) => return Err(error),
        }
    }
    // Blocks that are promised but not written yet are found out about here.
    let _ = file.sync_all();
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_boards_than_memory_are_refused() {
        let datastore = "etcd".to_owned();
        let options =
            Options { servers: 3, agents: 2, subnets: 1, vip: false, datastore, disk_mib: None };
        assert_eq!(needed_mib(&options), 3 * SERVER_MIB + 2 * AGENT_MIB);
    }

    #[test]
    fn what_is_not_there_is_said_with_the_next_step() {
        let base = tempfile::tempdir().expect("folder");
        let error = existing(base.path(), "lab").expect_err("nothing there");
        assert!(error.hint().is_some());
    }
}
