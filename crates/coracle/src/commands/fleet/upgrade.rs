//! `coracle upgrade`.

use std::time::Duration;

use clap::Args;
use fleet::board::{Service, paths};
use fleet::ssh::{Remote, Work};
use fleet::up::{Asked, Step, restart, upgrade_order};

use super::crew::{Asks, refused};
use super::up::binaries;
use crate::failure::Outcome;

/// How long copying a binary may take.
const COPY: Duration = Duration::from_secs(10 * 60);
/// Room around a drain's own limit.
const DRAIN: Duration = Duration::from_secs(180);

/// Options of `coracle upgrade`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asks: Asks,
    /// A binary for boards of another architecture, as ARCH=FILE; may be given several times
    /// [default: coracle-ARCH beside this binary]
    #[arg(long, value_name = "[ARCH=]FILE")]
    pub binary: Vec<String>,
    /// Leave pods where they are: they run on while the release is replaced
    #[arg(long)]
    pub no_drain: bool,
}

/// Servers one after the other, then agents one after the other: each is drained, gets the binary,
/// must be ready again, and takes pods again before the next one's turn.
pub fn run(options: &Options) -> Outcome {
    let crew = options.asks.open()?;
    let binaries = binaries(&options.binary)?;
    let all: Vec<_> = crew.cluster.boards.iter().collect();
    let found = crew.survey(&all, Asked { sums: true, ..Asked::default() });
    let order = upgrade_order(&found, &binaries).map_err(refused)?;
    let order: Vec<_> = order.into_iter().filter(|turn| crew.takes(&turn.target.name)).collect();
    if order.is_empty() {
        println!("no change: all boards have this binary");
        return Ok(());
    }
    for turn in &order {
        println!("{}: {} -> {}", turn.target.name, turn.from, env!("CARGO_PKG_VERSION"));
    }
    options.asks.confirm("The boards take the new binary one after the other.")?;
    let system = &crew.system;
    for turn in &order {
        let name = &turn.target.name;
        let on_seed = |what: &str, verb: &str, patience| {
            let script = format!("{} board {verb} {name}", paths::BINARY);
            system.run(&turn.seed, &Work::new(what, script).within(patience))
        };
        if turn.first && turn.service == Service::Server {
            let script = format!("{} snapshot save before-upgrade >&2", paths::BINARY);
            system.run(&turn.seed, &Work::new("saving the cluster", script))?;
            println!("{}: saved the cluster", turn.seed.name);
        }
        // One board alone has nowhere to send its pods.
        let drains = !options.no_drain && turn.has_others;
        if drains {
            on_seed("draining", "drain", DRAIN)?;
            println!("{name}: drained");
        }
        let copied = Work::new("copying the binary", Step::receive(&turn.binary.sum));
        let copied = copied.reading(turn.binary.path.clone()).within(COPY);
        let done = system
            .run(&turn.target, &copied)
            .and_then(|_| restart(system, &turn.target, &turn.seed, turn.service));
        // It takes pods again, also where the release did not start: the old one may be put back.
        if drains {
            let again = on_seed("uncordon", "uncordon", DRAIN);
            done.and(again.map(drop))?;
        } else {
            done?;
        }
        println!("{name}: upgraded, ready");
    }
    Ok(())
}
