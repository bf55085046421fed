//! One command checks and changes nothing; another repairs.

use crate::run::{Outcome, command, exists, run};
use crate::{directions, secrets};

/// Format, lints, crate directions, docs, and (where `cargo-deny` is installed) licences.
pub fn verify() -> Outcome {
    run(command("cargo", &["fmt", "--all", "--check"]))
        .map_err(|error| format!("{error}\n`cargo xtask fix` repairs the format"))?;
    directions::check()?;
    secrets::check()?;
    run(command(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    ))?;
    let mut doc = command("cargo", &["doc", "--workspace", "--no-deps", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc)?;
    if exists("cargo", &["deny", "--version"]) {
        run(command("cargo", &["deny", "--offline", "check", "bans", "licenses", "sources"]))?;
    } else {
        eprintln!("licences not checked: `cargo install cargo-deny` brings the check");
    }
    Ok(())
}

/// Repairs the format and the lints that know their own fix.
pub fn fix() -> Outcome {
    run(command(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"],
    ))?;
    run(command("cargo", &["fmt", "--all"]))
}
