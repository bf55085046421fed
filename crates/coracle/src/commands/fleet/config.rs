use std::path::PathBuf;

use clap::Subcommand;

use super::{ClusterFile, say};
use crate::failure::Outcome;

/// Commands on a description of a stack.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the JSON schema of cluster.yaml
    Schema,
    /// Say what is wrong with a cluster.yaml
    Check {
        #[command(flatten)]
        #[allow(missing_docs)]
        named: ClusterFile,
        /// The file, as `--file` names it
        #[arg(value_name = "FILE")]
        path: Option<PathBuf>,
    },
}

pub fn run(command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Schema => say(fleet::config::SCHEMA),
        ConfigCommand::Check { named, path } => {
            let file = path.as_ref().unwrap_or(&named.file).clone();
            let cluster = ClusterFile { file }.read()?;
            let (boards, servers) = (cluster.boards.len(), cluster.servers().count());
            let count =
                |number, noun| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
            say(&format!(
                "{}: {}, {}\n",
                cluster.name,
                count(boards, "board"),
                count(servers, "server")
            ))
        }
    }
}
