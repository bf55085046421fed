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
        /// The file
        #[arg(env = "CORACLE_FILE", default_value = "cluster.yaml")]
        file: PathBuf,
    },
}

pub fn run(command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Schema => say(fleet::config::SCHEMA),
        ConfigCommand::Check { file } => {
            let cluster = ClusterFile { file: file.clone() }.read()?;
            let (boards, servers) = (cluster.boards.len(), cluster.servers().count());
            say(&format!("{}: {boards} boards, {servers} of them servers\n", cluster.name))
        }
    }
}
