use std::path::PathBuf;

use clap::Subcommand;

use super::ClusterFile;
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
        ConfigCommand::Schema => print!("{}", fleet::config::SCHEMA),
        ConfigCommand::Check { file } => {
            let cluster = ClusterFile { file: file.clone() }.read()?;
            let servers = cluster.servers().count();
            println!(
                "{}: {} boards, {servers} of them servers",
                cluster.name,
                cluster.boards.len()
            );
        }
    }
    Ok(())
}
