use clap::{Args, ValueEnum};
use fleet::hardware::{Known, TABLE};
use fleet::plan::{Plan, Style};

use super::{ClusterFile, say};
use crate::commands::columns;
use crate::failure::{Failure, Outcome, While};

/// Options of `coracle plan`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    file: ClusterFile,
    /// How the plan is printed
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    /// List the boards and parts that are known, and what they take
    #[arg(long)]
    models: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
    Markdown,
}

pub fn run(options: &Options) -> Outcome {
    if options.models {
        return say(&(models() + "\n"));
    }
    let plan = Plan::of(&options.file.read()?);
    say(&match options.output {
        Output::Text => plan.report(Style::Text),
        Output::Markdown => plan.report(Style::Markdown),
        Output::Json => {
            serde_json::to_string_pretty(&plan).doing(|| "writing the plan".into())? + "\n"
        }
    })?;
    match plan.fails() {
        true => Err(Failure::new("some of it will not work")
            .hint("see the errors at the end; each says what to do")),
        false => Ok(()),
    }
}

fn models() -> String {
    let head = ["NAME", "MEMORY", "AVERAGE", "MAXIMUM", "SOURCE"].map(str::to_owned);
    let row = |known: &Known| {
        let memory = known.computer.map(|computer| format!("{} MiB", computer.memory_mib));
        let watts = |watts: f64| format!("{watts} W");
        [
            known.name.to_owned(),
            memory.unwrap_or_default(),
            watts(known.average_watts),
            watts(known.maximum_watts),
            known.source.to_owned(),
        ]
    };
    columns(&head, TABLE.iter().map(row))
}
