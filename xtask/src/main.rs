//! The project's own checks and builds. `cargo xtask --help` lists them.

mod conformance;
mod directions;
mod dist;
mod protobuf;
mod run;
mod schema;
mod secrets;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use conformance::Conformance;

/// The project's own checks and builds
#[derive(Parser)]
struct Xtask {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check format, lints, crate directions and docs; changes nothing
    Verify,
    /// Repair what can be repaired by itself: format and the lints that know their own fix
    Fix,
    /// Make the checked-in data files again from their public sources
    Generate,
    /// Make the static binaries, x86_64 and aarch64, in target/dist
    Dist(dist::Dist),
    /// Upstream's own end-to-end tests against this binary
    #[command(subcommand)]
    Conformance(Conformance),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().command {
        Task::Verify => verify::verify(),
        Task::Fix => verify::fix(),
        Task::Generate => {
            schema::generate().and_then(|()| protobuf::generate()).and_then(|()| cluster_yaml())
        }
        Task::Dist(options) => dist::dist(&options),
        Task::Conformance(command) => conformance::conformance(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The schema of `cluster.yaml` and the plans of the examples: the tests that compare them write
/// them when they are asked to. The plans come second because the schema is compiled in.
fn cluster_yaml() -> run::Outcome {
    for tests in ["config::tests::the_schema", "plan::tests::examples"] {
        let mut test =
            run::command("cargo", &["test", "--quiet", "--package", "fleet", "--lib", tests]);
        test.env("CORACLE_GENERATE", "1");
        run::run(test)?;
    }
    Ok(())
}
