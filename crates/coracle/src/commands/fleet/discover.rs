use clap::{Args, ValueEnum};
use fleet::discover::{self, Ground};

use super::say;
use crate::failure::{Outcome, While};

/// Options of `coracle discover`.
#[derive(Debug, Args)]
pub struct Options {
    /// Network to look through [default: the one that this machine's default route leaves by]
    #[arg(long)]
    subnet: Option<ipnet::Ipv4Net>,
    /// As `boards:` of a cluster.yaml, or as JSON
    #[arg(long, short, value_enum, default_value = "yaml")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Yaml,
    Json,
}

pub fn run(options: &Options) -> Outcome {
    let ground = Ground::find(options.subnet)?;
    let hosts = discover::look(&ground)?;
    if hosts.iter().all(|host| host.ssh.is_none()) {
        eprintln!("hint: switch the boards on, and enable SSH on their cards; then look again");
    }
    match options.output {
        Output::Yaml => say(&discover::boards(&ground, &hosts)),
        Output::Json => {
            let json =
                serde_json::to_string_pretty(&hosts).doing(|| "writing what was found".into())?;
            say(&(json + "\n"))
        }
    }
}
