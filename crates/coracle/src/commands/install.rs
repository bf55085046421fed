//! `coracle install`: the systemd service of a server or an agent.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::unit::{self, Role, systemctl, unit};
use crate::cli;
use crate::config::{self, Common, Membership, Node};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;
use crate::join::Token;

/// What logind waits beyond the pods' own time, for the last report of their ends.
const REPORT: Duration = Duration::from_secs(5);

/// Copies the binary, writes the unit, and starts the service. Done again, it changes only what
/// differs.
pub fn install(common: &Common, options: &cli::Install) -> Outcome {
    must_be_root("installing the service")?;
    let service = Service::plan(common, options)?;
    copy_self(&options.binary)?;
    service.write(&options.binary)?;
    println!("installed {} and {}", options.binary.display(), service.unit.display());
    if options.no_start {
        return Ok(());
    }
    let name = unit::name(&service.unit);
    unit::reload_logind();
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", &name])?;
    println!("starting {name} (see: journalctl -u {name} -f)");
    systemctl(&["restart", &name])?;
    println!("started {name}");
    if service.role == Role::Server {
        println!("kubectl: coracle kubeconfig > ~/.kube/config");
    }
    Ok(())
}

/// What is to be written.
struct Service {
    role: Role,
    unit: PathBuf,
    arguments: Vec<String>,
    /// The token and its file: a unit and the list of processes are for everybody to read.
    token: Option<(PathBuf, String)>,
    /// How long logind is to wait for pods.
    patience: Duration,
}

impl Service {
    /// Refuses what the service would end with at once, again and again.
    fn plan(common: &Common, options: &cli::Install) -> Outcome<Self> {
        let (role, given) = role_and_arguments(&options.words);
        let unit = options.unit.clone().unwrap_or_else(|| role.unit());
        let other = Role::ALL.into_iter().find(|other| *other != role);
        if let Some(other) = other.map(Role::unit).filter(|other| *other != unit && other.exists())
            && options.unit.is_none()
        {
            let other = unit::name(&other);
            return Err(Failure::new(format!("this board runs {other} already")).hint(
                "a server has an agent of its own; to change what it is: coracle uninstall",
            ));
        }
        let mut arguments = folders(common);
        let (given, token) = without_token(given);
        arguments.extend(given);
        let command = role.command();
        let checked = token.iter().map(|token| format!("--token={token}"));
        let line = ["coracle", command].map(str::to_owned).into_iter();
        let line = line.chain(arguments.iter().cloned()).chain(checked).map(OsString::from);
        let (membership, node) = understood(line.collect())
            .doing(|| format!("reading what the service is to run, coracle {command}"))
            .hint(|| format!("`coracle {command} --help` lists its arguments"))?;
        Token::of(&membership)?;
        let has_joined = common.data_dir.join("agent/cluster.json").exists();
        if role == Role::Agent && membership.server.is_none() && !has_joined {
            return Err(Failure::new("an agent joins a cluster, and no server of one is named").hint(
                "coracle install agent --server https://board:6443 --token K10... (`coracle token \
                 show` on a server)",
            ));
        }
        // The environment of this command is not the service's.
        let from_environment = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let says = |flag: &str| arguments.iter().any(|argument| argument.starts_with(flag));
        let server = from_environment("CORACLE_SERVER").filter(|_| !says("--server"));
        arguments.extend(server.map(|server| format!("--server={server}")));
        let token = token.or_else(|| from_environment("CORACLE_TOKEN"));
        let token = token.map(|token| (token_file(common), token));
        arguments.extend(token.iter().map(|(file, _)| format!("--token-file={}", file.display())));
        let patience = node.shutdown_grace_period.duration();
        Ok(Service { role, unit, arguments, token, patience })
    }

    fn write(&self, binary: &Path) -> Outcome {
        let text = unit(binary, self.role, &self.arguments);
        put(&self.unit, &text, 0o644)?;
        if let Some((file, token)) = &self.token {
            put(file, &format!("{token}\n"), 0o600)?;
        }
        match unit::logind_conf(&self.unit) {
            Some(file) if !self.patience.is_zero() => {
                let seconds = (self.patience + REPORT).as_secs();
                put(&file, &fleet::board::unit::logind(seconds), 0o644)
            }
            _ => Ok(()),
        }
    }
}

fn put(path: &Path, text: &str, mode: u32) -> Outcome {
    files::make_folder(path.parent().unwrap_or(Path::new("/")), false)
        .and_then(|()| files::write_atomically(path, text.as_bytes(), mode))
        .doing(|| format!("writing {}", path.display()))
}

/// The first word may say what runs; the rest, with or without `--` before it, is for that.
fn role_and_arguments(words: &[String]) -> (Role, &[String]) {
    let named = words.first().and_then(|word| Role::ALL.into_iter().find(|r| r.command() == word));
    let rest = if named.is_some() { &words[1..] } else { words };
    let rest = if rest.first().is_some_and(|word| word == "--") { &rest[1..] } else { rest };
    (named.unwrap_or(Role::Server), rest)
}

/// Takes the token out of a command line.
fn without_token(arguments: &[String]) -> (Vec<String>, Option<String>) {
    let (mut rest, mut token) = (Vec::new(), None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix("--token=") {
            Some(value) => token = Some(value.to_owned()),
            None if word == "--token" => token = words.next().cloned(),
            None => rest.push(word.clone()),
        }
    }
    (rest, token)
}

/// What a command line of a node means.
fn understood(line: Vec<OsString>) -> Outcome<(Membership, Node)> {
    match config::parsed(line)?.command {
        cli::Command::Server(options) => Ok((options.membership, options.node)),
        cli::Command::Agent(options) => Ok((options.membership, options.node)),
        _ => Err(Failure::new("only a server or an agent is a service")),
    }
}

/// The folders that are not where they usually are.
fn folders(common: &Common) -> Vec<String> {
    [
        ("--data-dir", &common.data_dir, "/var/lib/coracle"),
        ("--run-dir", &common.run_dir, "/run/coracle"),
        ("--config", &common.config, "/etc/coracle/config.yaml"),
    ]
    .into_iter()
    .filter(|(_, given, default)| *given != Path::new(default))
    .map(|(flag, given, _)| format!("{flag}={}", given.display()))
    .collect()
}

/// Where the token of a service lies, for root only: beside the configuration.
pub fn token_file(common: &Common) -> PathBuf {
    common.config.with_file_name("token")
}

fn copy_self(target: &Path) -> Outcome {
    let doing = || format!("putting the binary to {}", target.display());
    let this = std::env::current_exe().doing(doing)?;
    if fs::canonicalize(target).is_ok_and(|present| present == this) {
        return Ok(());
    }
    // Reading through /proc works also where the file has been replaced meanwhile.
    let content = fs::read("/proc/self/exe").doing(doing)?;
    files::make_folder(target.parent().unwrap_or(Path::new("/")), false).doing(doing)?;
    files::write_atomically(target, &content, 0o755).doing(doing)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755)).doing(doing)
}

/// Both ways need it.
pub fn must_be_root(what: &str) -> Outcome {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(format!("{what} needs root")).hint("use sudo")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_word_says_what_runs_and_dashes_may_stand_before_the_rest() {
        for (line, role, rest) in [
            ("", Role::Server, ""),
            ("--node-name pi1", Role::Server, "--node-name pi1"),
            ("server --cluster-init", Role::Server, "--cluster-init"),
            ("agent -- --node-name pi2", Role::Agent, "--node-name pi2"),
        ] {
            let line = words(line);
            assert_eq!(role_and_arguments(&line), (role, &words(rest)[..]));
        }
    }

    #[test]
    fn a_token_is_taken_out_of_the_command_line() {
        let expected = (words("--server https://a --node-name b"), Some("K10".to_owned()));
        for line in [
            "--server https://a --token K10 --node-name b",
            "--token=K10 --server https://a --node-name b",
        ] {
            assert_eq!(without_token(&words(line)), expected);
        }
        let file = words("--token-file /root/token");
        assert_eq!(without_token(&file), (file.clone(), None));
    }
}
