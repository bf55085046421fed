//! `coracle up`.

use std::io::IsTerminal;

use clap::Args;
use fleet::config::{Datastore, Secret};
use fleet::up::{
    Asked, Binaries, Driver, Lines, Live, Plan, Progress, Secrets, plan, uplink_passphrase,
};

use super::crew::{Asks, Crew, refused, together};
use super::kubeconfig::Kubeconfig;
use crate::failure::{Failure, Hint, Outcome, While};

/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// Options of `coracle up`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asks: Asks,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A binary for boards of another architecture, as ARCH=FILE; may be given several times
    /// [default: coracle-ARCH beside this binary]
    #[arg(long, value_name = "[ARCH=]FILE")]
    pub binary: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub kubeconfig: Kubeconfig,
}

/// Compares, shows, asks, does.
pub fn run(options: &Options) -> Outcome {
    let crew = options.asks.open()?;
    options.kubeconfig.must_be_one()?;
    let binaries = binaries(&options.binary)?;
    let secrets = secrets(&crew)?;
    let keys = authorized_keys(&crew)?;
    let all: Vec<_> = crew.cluster.boards.iter().collect();
    let found = crew.survey(&all, Asked { sums: true, ..Asked::default() });
    let planned = plan(&crew.cluster, &found, &binaries, &secrets, &keys);
    let mut plan = planned.map_err(refused)?;
    plan.boards.retain(|board| crew.takes(&board.name));
    print!("{}", plan.print());
    let failures = away(&plan);
    if plan.is_nothing() {
        if plan.held.is_empty() {
            options.kubeconfig.merge(&crew, &plan.seed)?;
        }
        println!("no change");
        return together("some boards are away", failures);
    }
    if options.dry_run {
        return together("some boards are away", failures);
    }
    options.asks.confirm("These are the changes.")?;
    let progress = progress(&plan);
    let driver = Driver {
        remote: &crew.system,
        plan: &plan,
        binaries: &binaries,
        secrets: &secrets,
        progress: &*progress,
    };
    let outcome = driver.run();
    let mut failures = failures;
    let begun = outcome.is_done(&plan.seed.name);
    failures.extend(outcome.failed.into_iter().map(Failure::from));
    if !outcome.left.is_empty() {
        println!("not begun: {}", outcome.left.join(", "));
    }
    if plan.held.is_empty() && begun {
        failures.extend(options.kubeconfig.merge(&crew, &plan.seed).err());
    }
    together("not all boards are up", failures)?;
    let count = plan.boards.len();
    println!("{} is up: {count} board{}", crew.cluster.name, if count == 1 { "" } else { "s" });
    Ok(())
}

/// The running binary and those that are named.
pub fn binaries(named: &[String]) -> Outcome<Binaries> {
    let own = std::env::current_exe().doing(|| "finding this binary".into())?;
    Ok(Binaries::find(&own, named)?)
}

/// The secrets that the cluster's file names.
pub fn secrets(crew: &Crew) -> Outcome<Secrets> {
    let cluster = &crew.cluster;
    let read = |key: &'static str, secret: &Secret| {
        let read = cluster.secret(secret).doing(|| format!("reading the cluster's {key}"));
        read.hint(|| format!("`{key}` in the file says where it stands"))
    };
    let endpoint = match &cluster.datastore {
        Datastore::External(secret) => Some(read("datastore", secret)?),
        _ => None,
    };
    let token = cluster.token.as_ref().map(|secret| read("token", secret)).transpose()?;
    let passphrase = uplink_passphrase(cluster);
    let wifi = passphrase.as_ref().map(|secret| read("wifi.passphrase", secret)).transpose()?;
    Ok(Secrets { token, endpoint, wifi })
}

/// Public keys that are named, those in files read.
fn authorized_keys(crew: &Crew) -> Outcome<Vec<String>> {
    let mut lines = Vec::new();
    for named in &crew.cluster.ssh.authorized_keys {
        if named.contains(' ') {
            lines.push(named.trim().to_owned());
            continue;
        }
        let path = crew.cluster.path(std::path::Path::new(named));
        let text =
            std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        let keys = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        lines.extend(keys.map(str::to_owned));
    }
    Ok(lines)
}

fn away(plan: &Plan) -> Vec<Failure> {
    let away = plan.away.iter().cloned().map(Failure::from);
    away.chain(plan.held.iter().cloned().map(Failure::from)).collect()
}

fn progress(plan: &Plan) -> Box<dyn Progress> {
    if !std::io::stdout().is_terminal() {
        return Box::new(Lines);
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let names = plan.boards.iter().filter(|board| !board.steps.is_empty());
    let names = names.map(|board| board.name.as_str());
    Box::new(Live::new(names, columns.or_else(width).unwrap_or(COLUMNS)))
}

/// The columns of the terminal.
fn width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills the structure, which lives as long as the call.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}
