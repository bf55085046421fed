//! Commands on a whole stack of boards, as its `cluster.yaml` describes it. What they decide is in
//! the crate `fleet`; here are their options and what they print.

mod board;
mod check;
mod config;
mod crew;
mod discover;
mod down;
mod init;
mod kubeconfig;
mod plan;
pub mod prepare;
mod shell;
mod status;
mod up;
mod upgrade;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory, Subcommand};
use fleet::config::{Cluster, Flags};

use crate::cli::Cli;
use crate::config::Common;
use crate::failure::{Failure, Outcome, While};

/// Commands on a stack of boards.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Check a cluster.yaml, or print the JSON schema that editors complete it by
    Config {
        #[command(subcommand)]
        #[allow(missing_docs)]
        command: config::ConfigCommand,
    },
    /// Write a cluster.yaml, by asking for what the flags leave out
    Init(Box<init::Options>),
    /// Look for boards on the network, and print them as cluster.yaml takes them
    Discover(discover::Options),
    /// Say what the stack will be: roles, memory, wear, addresses, power and cost, and what will not
    /// work
    Plan(plan::Options),
    /// Say whether boards are fit: this one, or all of a cluster.yaml by SSH
    Check(check::Options),
    /// Bring the boards of a cluster.yaml up over SSH, or to what has changed in it
    Up(Box<up::Options>),
    /// Show the boards and what runs on them
    Status(status::Options),
    /// Bring a new release to the boards, one after the other
    Upgrade(upgrade::Options),
    /// Open a shell on a board, or run a command there on this terminal
    Ssh(shell::Ssh),
    /// Run a command on all boards
    Exec(shell::Exec),
    /// Show what Coracle has logged on the boards
    Logs(shell::Logs),
    /// Save the cluster, then remove Coracle and all that it keeps from the boards
    #[command(visible_alias = "reset")]
    Down(down::Options),
    /// What `up` and its like have a board do
    #[command(hide = true)]
    Board {
        #[command(subcommand)]
        #[allow(missing_docs)]
        command: board::BoardCommand,
    },
}

/// The file that describes the stack.
#[derive(Debug, Clone, Args)]
pub struct ClusterFile {
    /// The description of the stack
    #[arg(long, short, env = "CORACLE_FILE", default_value = "cluster.yaml")]
    pub file: PathBuf,
}

impl ClusterFile {
    /// Reads and checks it; the failure names all that is wrong with it.
    pub fn read(&self) -> Outcome<Cluster> {
        if !self.file.exists() {
            return Err(Failure::new(format!("there is no file {}", self.file.display()))
                .hint("name it with --file, or have `coracle init` write one"));
        }
        Cluster::read(&self.file, &flags()).map_err(|problems| {
            let count = problems.list().len();
            let noun = if count == 1 { "problem" } else { "problems" };
            Failure::new(format!("{} has {count} {noun}\n{problems}", self.file.display()))
        })
    }
}

/// Carries out a command.
pub async fn run(common: &Common, command: FleetCommand) -> Outcome {
    match command {
        FleetCommand::Config { command } => config::run(&command),
        FleetCommand::Init(options) => init::run(&options),
        FleetCommand::Discover(options) => discover::run(&options),
        FleetCommand::Plan(options) => plan::run(&options),
        FleetCommand::Check(options) => check::run(&options),
        FleetCommand::Up(options) => up::run(&options),
        FleetCommand::Status(options) => status::run(&options),
        FleetCommand::Upgrade(options) => upgrade::run(&options),
        FleetCommand::Ssh(options) => shell::ssh(&options),
        FleetCommand::Exec(options) => shell::exec(&options),
        FleetCommand::Logs(options) => shell::logs(&options),
        FleetCommand::Down(options) => down::run(&options),
        FleetCommand::Board { command } => board::run(common, command).await,
    }
}

/// Prints a text. Whoever reads only its beginning (`| head`) has seen enough.
fn say(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).doing(|| "printing".into())
        }
        _ => Ok(()),
    }
}

/// What may be a key of `server`, `agent` and `config`: clap knows.
fn flags() -> Flags {
    let command = Cli::command();
    let of = |name: &str| {
        let arguments = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
        let all = arguments.chain(command.get_arguments()).filter_map(|a| a.get_long());
        Some(all.map(str::to_owned).collect())
    };
    Flags { server: of("server"), agent: of("agent"), refuses: Some(crate::config::refused) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cluster_yaml_decides_are_flags() {
        let flags = flags().server.expect("known");
        for (flag, _) in fleet::config::DECIDED {
            assert!(flags.iter().any(|known| known == flag), "{flag}");
        }
    }
}
