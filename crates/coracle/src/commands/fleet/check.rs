//! `coracle check`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use clap::Args;
use fleet::board::Service;
use fleet::check::{
    Disk, Level, MEASURE, Verdict, check_board, check_disk, check_stack, json, table,
};
use fleet::facts::{Facts, Questions, script};
use fleet::ssh::{Remote, Work};
use fleet::up::Asked;

use super::crew::{Crew, Reach};
use crate::cli::Output;
use crate::failure::{Failure, Hint, Outcome, While};

/// Options of `coracle check`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reach: Reach,
    /// Look at this board, whatever files there are
    #[arg(long, conflicts_with = "board")]
    pub here: bool,
    /// Do not measure disks, which writes 17 MiB
    #[arg(long)]
    pub no_disk: bool,
    /// As a table or as JSON
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// Looks at the boards and prints a verdict a line.
pub fn run(options: &Options) -> Outcome {
    let local = options.here || !options.reach.file.file.exists();
    let verdicts = if local { here(options)? } else { everywhere(options)? };
    match options.output {
        Output::Table => print!("{}", table(&verdicts)),
        Output::Json => println!("{:#}", json(&verdicts)),
    }
    let failed = verdicts.iter().filter(|verdict| verdict.level == Level::Fail).count();
    match failed {
        0 => Ok(()),
        n => Err(Failure::new(format!("{n} of {} checks failed", verdicts.len()))
            .hint("each line above ends with what to do")),
    }
}

fn here(options: &Options) -> Outcome<Vec<Verdict>> {
    let questions = Questions { sums: false, ..Questions::default() };
    let text = shell(&script(&questions))?;
    let facts = Facts::parse(&text)
        .ok_or_else(|| Failure::new("what this machine says of itself was cut short"))?;
    let service = match facts.has("active.coracle-agent.service") {
        true => Service::Agent,
        false => Service::Server,
    };
    let name = facts.get("hostname").to_owned();
    let mut verdicts = check_board(&name, &facts, Some(service), false);
    if !options.no_disk {
        let etcd = (service == Service::Server).then_some(facts.has("package.etcd-server"));
        let disk = Disk::parse(&shell(MEASURE)?);
        verdicts.extend(disk.map(|disk| check_disk(&name, disk, etcd)).into_iter().flatten());
    }
    Ok(verdicts)
}

fn shell(script: &str) -> Outcome<String> {
    let doing = || "looking at this machine".to_owned();
    let mut child = Command::new("sh")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .doing(doing)
        .hint(|| "a POSIX shell is needed".into())?;
    let input = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(|| input.map(|mut input| input.write_all(script.as_bytes())));
        child.wait_with_output()
    });
    Ok(String::from_utf8_lossy(&output.doing(doing)?.stdout).into_owned())
}

fn everywhere(options: &Options) -> Outcome<Vec<Verdict>> {
    let crew = Crew::open(&options.reach)?;
    let found = crew.survey(&crew.boards(), Asked { names: true, ..Asked::default() });
    let etcd = crew.cluster.runs_etcd();
    let mut verdicts = Vec::new();
    for one in &found {
        let name = &one.board.name;
        match &one.facts {
            Ok(facts) => {
                verdicts.extend(check_board(name, facts, Service::of(one.board), etcd));
            }
            Err(error) => verdicts.push(Verdict {
                board: name.clone(),
                subject: "ssh",
                level: Level::Fail,
                what: error.to_string(),
                next: error.hint(),
            }),
        }
    }
    if !options.no_disk {
        let work = Work::new("measuring the disk", MEASURE);
        let measured = thread::scope(|scope| {
            let there = found.iter().filter(|one| one.facts.is_ok());
            let asked: Vec<_> = there
                .map(|one| (one, scope.spawn(|| crew.system.run(&one.target, &work))))
                .collect();
            asked.into_iter().map(|(one, work)| (one, work.join())).collect::<Vec<_>>()
        });
        for (one, answer) in measured {
            let disk = answer.ok().and_then(|a| a.ok()).and_then(|a| Disk::parse(&a.out));
            let runs = one.board.is_server().then_some(etcd);
            verdicts.extend(
                disk.map(|disk| check_disk(&one.board.name, disk, runs)).into_iter().flatten(),
            );
        }
    }
    let pairs: Vec<_> =
        found.iter().filter_map(|one| Some((one.board, one.facts.as_ref().ok()?))).collect();
    verdicts.extend(check_stack(&crew.cluster, &pairs));
    let position =
        |verdict: &Verdict| crew.cluster.boards.iter().position(|b| b.name == verdict.board);
    verdicts.sort_by_key(position);
    Ok(verdicts)
}
