//! The binary: command line, configuration, wiring, start and stop in order.

mod address;
mod allocator;
mod child;
mod cli;
mod commands;
mod config;
mod dns;
mod drill;
mod etcd;
mod failure;
use base::files;
mod hello;
mod join;
mod manifests;
mod memory;
mod notify;
mod pki;
mod server;
mod snapshot;
mod tls;
mod upgrade;
mod vip;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

use crate::cli::{Cli, Command};
use crate::failure::{Outcome, While};

#[global_allocator]
static ALLOCATOR: allocator::ByProcess = allocator::ByProcess;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The shim is this binary too: it must start before any thread does.
    if arguments.get(1).is_some_and(|first| first == runtime::shim::ARGUMENT) {
        return runtime::shim::main(arguments.into_iter().skip(2));
    }
    if arguments.get(1).is_some_and(|first| first == vip::holder::ARGUMENT) {
        return vip::holder::main();
    }
    if arguments.get(1).is_some_and(|first| first == dns::holder::ARGUMENT) {
        return dns::holder::main(arguments.into_iter().skip(2));
    }
    if arguments.get(1).is_some_and(|first| first == sandbox::INIT_ARGUMENT) {
        return sandbox::init_main(arguments.into_iter().skip(2));
    }
    if arguments.get(1).is_some_and(|first| first == sandbox::WIRE_ARGUMENT) {
        return sandbox::wire_main(arguments.into_iter().skip(2));
    }
    match parse(arguments).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit_code())
        }
    }
}

fn parse(arguments: Vec<OsString>) -> Outcome<Cli> {
    let command = Cli::command();
    let arguments = config::with_file(&command, arguments)?;
    let parsed =
        command.try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    Ok(parsed.unwrap_or_else(|error| error.exit()))
}

fn run(cli: Cli) -> Outcome {
    let Cli { common, command } = cli;
    match command {
        Command::Version => {
            println!("coracle {} ({})", upgrade::current(), server::version());
            Ok(())
        }
        Command::Kubeconfig(options) => commands::kubeconfig::run(&common, &options),
        Command::Install(options) => commands::install::install(&common, &options),
        Command::Server(options) => {
            start_logging(&common.log)?;
            serve(server::run(common, *options))
        }
        Command::Agent(options) => {
            start_logging(&common.log)?;
            serve(commands::agent::run(common, *options))
        }
        Command::Token { command } => block_on(1, commands::token::run(common, command)),
        Command::Certificate { command } => {
            block_on(1, commands::certificate::run(common, command))
        }
        Command::Image { command } => block_on(1, commands::image::run(common, command)),
        Command::Datastore { command } => {
            start_logging("warn")?;
            block_on(2, commands::datastore::run(common, command))
        }
        Command::Snapshot(options) => block_on(1, commands::snapshot::run(common, *options)),
        Command::Uninstall(options) => block_on(1, commands::uninstall::run(common, options)),
        Command::Sandbox(options) => block_on(1, commands::sandbox::run(*options)),
        Command::Drill(options) => block_on(2, drill::run(common, *options)),
        Command::FirstStart { command } => commands::fleet::prepare::first_start(command),
        Command::Fleet(command) => block_on(1, commands::fleet::run(&common, command)),
        Command::Hello(options) => block_on(1, hello::run(options.port)),
    }
}

/// Room for a worker thread's stack, of which only what is used takes memory: code that is not optimised
/// needs more than the usual 2 MiB where a request and a deeply nested body meet.
const STACK_BYTES: usize = 8 << 20;

/// How long a thread waits for more to block on. What it has freed is given back when it ends: 16 MiB
/// where a secret was opened with the cluster's token.
const THREAD_KEPT: Duration = Duration::from_secs(2);

/// Runs what stays, which is careful with memory for as long as it does.
fn serve(future: impl Future<Output = Outcome>) -> Outcome {
    block_on(2, async {
        tokio::spawn(memory::watch());
        future.await
    })
}

/// Runs a command's future. Few worker threads do: boards have few cores, and each thread costs
/// memory.
fn block_on(workers: usize, future: impl Future<Output = Outcome>) -> Outcome {
    let mut builder = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(workers)
        .thread_stack_size(STACK_BYTES)
        .thread_keep_alive(THREAD_KEPT)
        .enable_all()
        .build()
        .doing(|| "starting the async runtime".into())?;
    let outcome = runtime.block_on(future);
    // What is still running must not hold up the end of the process.
    runtime.shutdown_background();
    outcome
}

/// What libraries log too loudly: nlink warns where the kernel says that something asked for is
/// not there, and kube's watcher where an object of a pod that has just gone may be seen no longer.
const QUIET: &str = "nlink=off,hickory_proto=warn,kube_runtime::watcher=error";

fn filter(text: &str) -> Outcome<tracing_subscriber::EnvFilter> {
    tracing_subscriber::EnvFilter::try_new(format!("{QUIET},{text}"))
        .doing(|| format!("reading the log filter {text:?}"))
}

fn start_logging(text: &str) -> Outcome {
    tracing_subscriber::fmt()
        .with_env_filter(filter(text)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Logs lines for another process, which puts the time and the level before them.
fn start_logging_to(text: &str, reporter: dns::Reporter) -> Outcome {
    tracing_subscriber::fmt()
        .with_env_filter(filter(text)?)
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_writer(reporter)
        .init();
    Ok(())
}
