//! `coracle sandbox`: a cluster on one laptop. The crate `sandbox` makes boards; what they run,
//! and when the cluster is up, is known here.

mod cluster;
mod options;
mod table;
mod up;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Program;

use options::Command;
pub use options::Sandbox as Options;
use sandbox::{Board, Sandbox, Stop};

use crate::failure::{Failure, Hint, Outcome, While};

/// Carries out a command on sandboxes.
pub async fn run(options: Options) -> Outcome {
    let Options { dir, name, command } = options;
    let chosen = |given: Option<String>| choose(&dir, given.or(name.clone()));
    match command {
        Command::Up(up) => return up::run(&dir, up).await,
        Command::Down { sandbox } => return down(&dir, &chosen(sandbox)?).await,
        Command::Ls => return table::sandboxes(&dir),
        _ => {}
    }
    let name = chosen(None)?;
    match command {
        Command::Status => table::boards(&look(&dir, &name)?).await,
        Command::Kubeconfig => {
            print!("{}", cluster::kubeconfig(&look(&dir, &name)?)?.1);
            Ok(())
        }
        Command::Kubectl { arguments } => kubectl(&look(&dir, &name)?, &arguments),
        Command::Exec { node, line } => exec(&look(&dir, &name)?, &node, &line),
        Command::Logs { node } => logs(&look(&dir, &name)?, &node),
        trouble => make_trouble(open(&dir, &name)?, trouble).await,
    }
}

fn look(dir: &Path, name: &str) -> Outcome<Sandbox> {
    Sandbox::look(dir, name).map_err(Failure::from)
}

fn open(dir: &Path, name: &str) -> Outcome<Sandbox> {
    Sandbox::open(dir, name).map_err(Failure::from)
}

impl From<sandbox::Error> for Failure {
    fn from(error: sandbox::Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        let source = std::error::Error::source(&error).map(base::chain);
        let failure = match source {
            Some(source) => Failure::new(format!("{error}: {source}")),
            None => Failure::new(error.to_string()),
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// The sandbox that is meant where none is named.
fn choose(dir: &Path, given: Option<String>) -> Outcome<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    let mut names = sandbox::list(dir);
    match names.len() {
        1 => Ok(names.remove(0)),
        0 => Err(Failure::new(format!("there is no sandbox in {}", dir.display()))
            .hint("`coracle sandbox up` makes one")),
        _ => Err(Failure::new(format!("there are several sandboxes: {}", names.join(", ")))
            .hint("name one with --name")),
    }
}

async fn down(dir: &Path, name: &str) -> Outcome {
    match Sandbox::down(dir, name).await? {
        true => println!("the sandbox {name} is gone"),
        false => println!("there is no sandbox {name}"),
    }
    Ok(())
}

async fn make_trouble(mut sandbox: Sandbox, command: Command) -> Outcome {
    match command {
        Command::Cut { what, one_way } => {
            Ok(sandbox.change(|faults| faults.cut(&what, one_way)).await?)
        }
        Command::Slow { node, delay, jitter } => {
            let (delay, jitter) = (Sandbox::delay_ms(&delay)?, Sandbox::delay_ms(&jitter)?);
            let spoil = |wire: &mut sandbox::Wire| {
                (wire.delay_ms, wire.jitter_ms) = (delay, jitter);
            };
            Ok(sandbox.spoil(&node, spoil).await?)
        }
        Command::Lose { node, share } => {
            let loss = sandbox::parse_loss(&share)?;
            Ok(sandbox.spoil(&node, |wire| wire.loss = loss).await?)
        }
        Command::Heal { node } => heal(&mut sandbox, node.as_deref()).await,
        Command::Kill { nodes, all } => {
            let boards = if all { everybody(&sandbox) } else { named(&sandbox, &nodes)? };
            Ok(sandbox.power_cut(&boards.iter().collect::<Vec<_>>()).await?)
        }
        Command::Stop { node } => {
            let board = sandbox.plan().board(&node)?.clone();
            sandbox.power_off(&board, Stop::Orderly).await?;
            Ok(())
        }
        Command::Restore { nodes } => restore(&sandbox, &nodes).await,
        Command::RestartProcess { node, kill } => {
            let board = sandbox.plan().board(&node)?;
            match kill {
                true => sandbox.crash_process(board)?,
                false => sandbox.restart_process(board)?,
            }
            Ok(())
        }
        Command::Clock { node, offset } => set_clock(&mut sandbox, &node, &offset),
        Command::Fill { node } => {
            let bytes = sandbox.fill(sandbox.plan().board(&node)?)?;
            println!("{node}: the disk is full; {:.1} MB did it", bytes as f64 / 1e6);
            Ok(())
        }
        // The others only look, and were seen to before.
        _ => Ok(()),
    }
}

fn everybody(sandbox: &Sandbox) -> Vec<Board> {
    sandbox.plan().boards.clone()
}

fn named(sandbox: &Sandbox, names: &[String]) -> Outcome<Vec<Board>> {
    names.iter().map(|name| Ok(sandbox.plan().board(name)?.clone())).collect()
}

async fn heal(sandbox: &mut Sandbox, node: Option<&str>) -> Outcome {
    if let Some(node) = node {
        sandbox.plan().board(node)?;
    }
    sandbox.change(|faults| faults.heal(node)).await?;
    let meant = |board: &&Board| node.is_none_or(|node| node == board.name);
    for board in sandbox.plan().boards.iter().filter(meant) {
        sandbox.empty(board)?;
    }
    Ok(())
}

async fn restore(sandbox: &Sandbox, nodes: &[String]) -> Outcome {
    let boards = if nodes.is_empty() { everybody(sandbox) } else { named(sandbox, nodes)? };
    sandbox.switch_on().await?;
    for board in &boards {
        if sandbox.power_on(board).await? {
            println!("{} is on", board.name);
        }
    }
    Ok(())
}

fn set_clock(sandbox: &mut Sandbox, node: &str, offset: &str) -> Outcome {
    let seconds = sandbox::parse_duration_ms(offset)? / 1000;
    let board = sandbox.plan().board(node)?.clone();
    let moved = sandbox.set_clock(&board, seconds)?;
    println!("{node}: the clock of {moved} processes is {seconds:+} s off");
    Ok(())
}

fn kubectl(sandbox: &Sandbox, arguments: &[String]) -> Outcome {
    let (path, _) = cluster::kubeconfig(sandbox)?;
    let error = Program::new("kubectl").args(arguments).env("KUBECONFIG", path).exec();
    Err(error).doing(|| "starting kubectl".into()).hint(|| {
        "put kubectl into your PATH, or use any client with `coracle sandbox kubeconfig`".into()
    })
}

/// Ends as the program ends.
fn exec(sandbox: &Sandbox, node: &str, line: &[String]) -> Outcome {
    let Some((program, arguments)) = line.split_first() else {
        return Err(Failure::new("no program was named").hint("put it behind `--`"));
    };
    let mut child = sandbox.run_on(sandbox.plan().board(node)?, program, arguments)?;
    let status = child.wait().doing(|| format!("waiting for {program}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("{program} on {node}: {status}"))),
    }
}

fn logs(sandbox: &Sandbox, node: &str) -> Outcome {
    let path = sandbox.log_path(sandbox.plan().board(node)?);
    let mut file = fs::File::open(&path).doing(|| format!("opening {}", path.display()))?;
    match io::copy(&mut file, &mut io::stdout()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).doing(|| format!("printing {}", path.display()))
        }
        _ => Ok(()),
    }
}
