//! `coracle ssh`, `exec` and `logs`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::thread;

use clap::Args;
use fleet::ssh::{Remote, System, Work};
use fleet::up::Asked;

use super::crew::{Crew, Reach, together};
use crate::failure::{Failure, Hint, Outcome, While};

/// Options of `coracle ssh`.
#[derive(Debug, Args)]
pub struct Ssh {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub file: super::ClusterFile,
    /// The board
    pub name: String,
    /// A command instead of a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Options of `coracle exec`.
#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
    /// As root
    #[arg(long)]
    pub root: bool,
    /// The command, for the board's shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub words: Vec<String>,
}

/// Options of `coracle logs`.
#[derive(Debug, Args)]
pub struct Logs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
    /// How many of the last lines of each board
    #[arg(long, short = 'n', default_value_t = 50)]
    pub lines: u32,
    /// Go on with what comes
    #[arg(long)]
    pub follow: bool,
}

/// Becomes ssh.
pub fn ssh(options: &Ssh) -> Outcome {
    let reach = Reach {
        file: options.file.clone(),
        board: vec![options.name.clone()],
        accept_new_host_keys: false,
    };
    let crew = Crew::open(&reach)?;
    let board =
        crew.boards().into_iter().next().ok_or_else(|| Failure::new("no board is named"))?;
    let mut command = System::interactive(&crew.target(board), &options.words);
    drop(crew.system);
    // Only where ssh does not take this process's place.
    Err::<(), _>(command.exec())
        .doing(|| "starting ssh".into())
        .hint(|| "apt install openssh-client".into())
}

/// The mark behind what a command said, before its exit code.
const ENDED: &str = "coracle-exec-ended=";

/// Runs a command on all boards, each line behind the board's name.
pub fn exec(options: &Exec) -> Outcome {
    let crew = Crew::open(&options.reach)?;
    let line = options.words.join(" ");
    let script = format!("(\n{line}\n) 2>&1 && code=0 || code=$?\nprintf '\\n{ENDED}%s' \"$code\"");
    let found = crew.survey(&crew.boards(), Asked::default());
    let mut work = Work::new("running the command", script);
    work.root = options.root;
    let failures = thread::scope(|scope| {
        let work = &work;
        let crew = &crew;
        let running: Vec<_> =
            found.iter().map(|one| scope.spawn(move || on(crew, one, work))).collect();
        running.into_iter().filter_map(|one| one.join().ok()?.err()).collect()
    });
    together("the command failed on some boards", failures)
}

fn on(crew: &Crew, one: &fleet::up::Found, work: &Work) -> Outcome {
    let name = &one.board.name;
    if let Err(error) = &one.facts {
        return Err(error.clone().into());
    }
    let said = crew.system.run(&one.target, work)?.out;
    let (out, code) = said.rsplit_once(ENDED).unwrap_or((said.as_str(), "0"));
    let lines: String = out.trim_end().lines().map(|line| format!("{name}: {line}\n")).collect();
    // A reader that has left is no failure of the board's.
    let _ = std::io::stdout().lock().write_all(lines.as_bytes());
    match code.trim() {
        "0" => Ok(()),
        code => Err(Failure::new(format!("{name}: it ended with exit code {code}"))),
    }
}

/// Prints the journals of all boards in the order of time, or follows them.
pub fn logs(options: &Logs) -> Outcome {
    let crew = Crew::open(&options.reach)?;
    let found = crew.survey(&crew.boards(), Asked::default());
    let away = found.iter().filter_map(|one| one.facts.as_ref().err()).cloned();
    let failures: Vec<Failure> = away.map(Failure::from).collect();
    let there: Vec<_> = found.iter().filter(|one| one.facts.is_ok()).collect();
    let journal = format!(
        "journalctl -q --no-pager --no-hostname -o short-iso-precise -n {} -u coracle -u coracle-agent",
        options.lines
    );
    if options.follow {
        thread::scope(|scope| {
            for one in &there {
                scope.spawn(|| follow(&crew, one, &format!("{journal} -f")));
            }
        });
        return together("some boards are away", failures);
    }
    let work = Work::new("reading the journal", journal);
    let mut lines = Vec::new();
    for one in &there {
        let said = crew.system.run(&one.target, &work)?.out;
        lines.extend(said.lines().map(|line| (line.to_owned(), one.board.name.clone())));
    }
    // The time comes first in each.
    lines.sort();
    let text: String = lines.iter().map(|(line, name)| format!("{name}: {line}\n")).collect();
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    together("some boards are away", failures)
}

fn follow(crew: &Crew, one: &fleet::up::Found, line: &str) {
    let Ok(mut child) = crew.system.start(&one.target, line) else { return };
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if writeln!(std::io::stdout(), "{}: {line}", one.board.name).is_err() {
                break;
            }
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}
