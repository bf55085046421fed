//! The measuring half of `bench/run.sh`, which starts the cluster and calls one command of this
//! program after the other. Each appends `name value` lines to a file of figures; `report` sets
//! them beside the promises.

mod api;
mod compare;
mod etcd;
mod figures;
mod load;
mod pods;
mod processes;
mod report;
mod startup;
mod vip;
mod watchers;

use std::error::Error;
use std::process::ExitCode;

use crate::figures::Figures;

/// What every command comes to; the text says what was being done.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: bench FIGURES COMMAND
  startup NAME KUBECONFIG PID NODE SINCE_NS   wait until usable, until the node is Ready
  ready KUBECONFIG PID                    wait until /readyz says so
  memory NAME PID[,PID...] RUN_DIR        memory of a control plane
  idle KUBECONFIG PID RUN_DIR SECONDS     memory, CPU and writes of an idle cluster
  pods KUBECONFIG PID RUN_DIR COUNT       create to Running
  load KUBECONFIG PID[,PID...] RUN_DIR    creates, gets, lists, watchers, memory of 5,000 pods
  etcd ADDRESS SECONDS                    etcd's own put rate
  vip CORACLE KEEPALIVED KILLS            how long the virtual address is away
  compare OURS THEIRS                     ours beside upstream's; files of figures, with commas
  report PROMISES                         the table";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: starting the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}: {error}", arguments.get(1).map_or("", String::as_str));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Outcome {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [_, "vip-probe"] => return vip::probe(),
        [_, "vip-echo"] => return vip::echo(),
        _ => {}
    }
    let [figures, command @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let mut figures = Figures::open(figures)?;
    match command {
        ["startup", name, kubeconfig, pid, node, since] => {
            startup::run(&mut figures, name, kubeconfig, pid, (node, since.parse()?)).await
        }
        ["ready", kubeconfig, pid] => startup::ready(kubeconfig, pid).await.map(|_| ()),
        ["memory", name, pids, run_dir] => {
            let memory = processes::Processes::find(pids, run_dir)?.idle_memory();
            memory.note(&mut figures, name)
        }
        ["compare", ours, theirs] => compare::run(ours, theirs),
        ["idle", kubeconfig, pid, run_dir, seconds] => {
            processes::idle(&mut figures, kubeconfig, pid, run_dir, seconds.parse()?).await
        }
        ["pods", kubeconfig, pid, run_dir, count] => {
            pods::run(&mut figures, kubeconfig, pid, run_dir, count.parse()?).await
        }
        ["load", kubeconfig, pid, run_dir] => {
            load::run(&mut figures, kubeconfig, pid, run_dir).await
        }
        ["etcd", address, seconds] => etcd::run(&mut figures, address, seconds.parse()?).await,
        ["vip", coracle, keepalived, kills] => {
            vip::run(&mut figures, coracle, keepalived, kills.parse()?)
        }
        ["report", promises] => report::run(&figures, promises),
        _ => Err(USAGE.into()),
    }
}
