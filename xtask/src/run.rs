//! Running other programs.

use std::path::PathBuf;
use std::process::Command;

/// What a task ends with; the message is for a person.
pub type Outcome<T = ()> = Result<T, String>;

/// The workspace's folder.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// A command that runs in the workspace's folder.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Shows a command, runs it, and fails where it fails.
pub fn run(mut command: Command) -> Outcome {
    let shown = show(&command);
    eprintln!("+ {shown}");
    let status = command.status().map_err(|error| format!("{shown}: {error}"))?;
    status.success().then_some(()).ok_or_else(|| format!("{shown}: {status}"))
}

/// Runs a command and gives what it printed.
pub fn read(mut command: Command) -> Outcome<Vec<u8>> {
    let shown = show(&command);
    let output = command.output().map_err(|error| format!("{shown}: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The commit that is checked out, for binaries to say at `/version`; none outside a checkout.
pub fn commit() -> Option<String> {
    let head = read(command("git", &["rev-parse", "HEAD"])).ok()?;
    Some(String::from_utf8_lossy(&head).trim().to_owned())
}

/// True where a program can be started at all.
pub fn exists(program: &str, probe: &[&str]) -> bool {
    command(program, probe).output().is_ok_and(|output| output.status.success())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
