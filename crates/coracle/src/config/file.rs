//! The configuration file: its keys become flags.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};
use serde_json::Value;

use super::{Common, Server};
use crate::cli::Cli;
use crate::failure::{Failure, Hint, Outcome, While};

/// Where the configuration file is looked for when none is named.
pub const DEFAULT_CONFIG: &str = "/etc/coracle/config.yaml";
/// A configuration is a page of text; more is a mistake.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Puts the configuration file's keys into the arguments as flags, behind the subcommand, unless
/// a flag or a variable says the same thing already.
pub fn with_file(command: &Command, mut arguments: Vec<OsString>) -> Outcome<Vec<OsString>> {
    let Some((position, subcommand)) = find_subcommand(command, &arguments) else {
        return Ok(arguments);
    };
    let takes = |id: &str| subcommand.get_arguments().any(|argument| argument.get_id() == id);
    if !takes("node_name") && !takes("snapshot_dir") {
        return Ok(arguments);
    }
    let given: Vec<String> = arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let named = named_config(&given);
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    let flags = match read(&path)? {
        Some(keys) => flags_of(&path, keys, command, subcommand, &given)?,
        None if named.is_some() => {
            return Err(Failure::new(format!("there is no configuration file {}", path.display()))
                .hint("make the file, or leave out --config"));
        }
        None => Vec::new(),
    };
    arguments.splice(position + 1..position + 1, flags.into_iter().map(OsString::from));
    Ok(arguments)
}

/// What the server of this board is told by the configuration file and the environment; what its
/// command line says besides is not known here.
pub fn server_options(common: &Common) -> Outcome<Server> {
    let mut line: Vec<OsString> = vec!["coracle".into(), "server".into()];
    if common.config.exists() {
        line.extend(["--config".into(), common.config.clone().into()]);
    }
    let doing = || "reading the server's configuration".to_owned();
    match parsed(line).doing(doing)?.command {
        crate::cli::Command::Server(options) => Ok(*options),
        _ => Err(Failure::new(doing())),
    }
}

/// What a command line means, together with the configuration file and the environment.
pub fn parsed(line: Vec<OsString>) -> Outcome<Cli> {
    let command = Cli::command();
    let line = with_file(&command, line)?;
    let matches = command.try_get_matches_from(line).and_then(|m| Cli::from_arg_matches(&m));
    matches.map_err(|error| {
        let told = error.to_string();
        let first = told.lines().next().unwrap_or_default();
        Failure::new(first.trim_start_matches("error: "))
    })
}

/// What is wrong with a key's value, as far as the value says it by itself.
pub fn refused(subcommand: &str, key: &str, value: &Value) -> Option<String> {
    let command = Cli::command();
    let keys = [(key.to_owned(), value.clone())].into_iter().collect();
    let flags = flags_of(Path::new(""), keys, &command, command.find_subcommand(subcommand)?, &[]);
    let line = ["coracle", subcommand].map(str::to_owned).into_iter().chain(flags.ok()?);
    let error = command.try_get_matches_from(line).err()?;
    // That other flags are missing says nothing of this one.
    let about = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(about)) => {
            about.split([' ', '=']).next() == Some(&format!("--{key}"))
        }
        _ => false,
    };
    let about = about && !matches!(error.kind(), ErrorKind::MissingRequiredArgument);
    let told = error.to_string();
    about.then(|| told.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
}

fn find_subcommand<'a>(
    command: &'a Command,
    arguments: &[OsString],
) -> Option<(usize, &'a Command)> {
    arguments.iter().enumerate().skip(1).find_map(|(position, argument)| {
        let name = argument.to_str()?;
        command.find_subcommand(name).map(|subcommand| (position, subcommand))
    })
}

fn named_config(given: &[String]) -> Option<PathBuf> {
    let flag = given.iter().enumerate().find_map(|(i, argument)| match argument.as_str() {
        "--config" | "-c" => given.get(i + 1).cloned(),
        other => other.strip_prefix("--config=").map(str::to_owned),
    });
    flag.or_else(|| std::env::var("CORACLE_CONFIG").ok()).map(PathBuf::from)
}

fn read(path: &Path) -> Outcome<Option<serde_json::Map<String, Value>>> {
    let doing = || format!("reading the configuration file {}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing(doing),
        Ok(metadata) if metadata.len() > MAX_CONFIG_BYTES => {
            return Err(Failure::new(format!("{} is larger than 1 MiB", path.display()))
                .hint("a configuration file holds flags, one a line"));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(path).doing(doing)?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
        return Ok(Some(serde_json::Map::new()));
    }
    let value: Value = serde_saphyr::from_str(&text)
        .doing(doing)
        .hint(|| "it is YAML, one `flag: value` a line".into())?;
    match value {
        Value::Object(keys) => Ok(Some(keys)),
        _ => Err(Failure::new(format!("{} is no list of keys", path.display()))
            .hint("it is YAML, one `flag: value` a line")),
    }
}

fn flags_of(
    path: &Path,
    keys: serde_json::Map<String, Value>,
    command: &Command,
    subcommand: &Command,
    given: &[String],
) -> Outcome<Vec<String>> {
    let known = || subcommand.get_arguments().chain(command.get_arguments());
    let is_node = subcommand.get_arguments().any(|argument| argument.get_id() == "node_name");
    let mut flags = Vec::new();
    for (key, value) in keys {
        let Some(argument) = known().find(|a| a.get_long() == Some(key.as_str())) else {
            // The file is the server's; other commands take from it what is theirs.
            if !is_node {
                continue;
            }
            let names = fleet::nearest::by_likeness(&key, known().filter_map(|a| a.get_long()));
            return Err(Failure::new(format!("{} has an unknown key {key:?}", path.display()))
                .hint(format!(
                    "did you mean {:?}? `coracle {} --help` lists all keys",
                    names[0],
                    subcommand.get_name()
                )));
        };
        let flag = format!("--{key}");
        let says =
            |flag: &str| given.iter().any(|a| a == flag || a.starts_with(&format!("{flag}=")));
        let aliases = argument.get_all_aliases().unwrap_or_default();
        let by_flag = says(&flag) || aliases.iter().any(|alias| says(&format!("--{alias}")));
        let by_variable = argument.get_env().is_some_and(|name| std::env::var_os(name).is_some());
        if by_flag || by_variable {
            continue;
        }
        let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
        match value {
            Value::Bool(on) if is_switch => flags.extend(on.then(|| flag.clone())),
            Value::Null => {}
            Value::Array(items) => {
                for item in items {
                    flags.push(format!("{flag}={}", scalar(path, &key, item)?));
                }
            }
            value => flags.push(format!("{flag}={}", scalar(path, &key, value)?)),
        }
    }
    Ok(flags)
}

fn scalar(path: &Path, key: &str, value: Value) -> Outcome<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(on) => Ok(on.to_string()),
        other => Err(Failure::new(format!("{}: the value of {key:?} is {other}", path.display()))
            .hint("a text, a number, true or false, or a list of these is needed")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(yaml: &str, arguments: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("config.yaml");
        fs::write(&path, yaml).expect("written");
        let config = format!("--config={}", path.display());
        let first = ["coracle", "server", config.as_str()];
        let arguments = first.iter().chain(arguments);
        with_file(&Cli::command(), arguments.map(OsString::from).collect())
            .map(|merged| {
                let shown = merged.iter().map(|a| a.to_string_lossy().into_owned());
                shown.filter(|a| !a.starts_with("--config")).collect::<Vec<_>>().join(" ")
            })
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn keys_become_flags_and_a_flag_beats_the_file() {
        let yaml = "https-listen-port: 7443\nnode-label: [a=b, c=d]\ndisable-agent: true\n";
        assert_eq!(
            merged(yaml, &["--https-listen-port", "8443"]).expect("merged"),
            "coracle server --node-label=a=b --node-label=c=d --disable-agent \
             --https-listen-port 8443"
        );
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = merged("node-nmae: x\n", &[]).expect_err("refused");
        assert!(error.ends_with("has an unknown key \"node-nmae\""), "{error}");
    }

    #[test]
    fn a_command_on_snapshots_takes_what_is_its_own() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("config.yaml");
        fs::write(&path, "node-name: pi\ns3: true\nsnapshot-dir: /a\n").expect("written");
        let config = format!("--config={}", path.display());
        let line = ["coracle", config.as_str(), "snapshot", "list", "--dir=/b"];
        let line = line.iter().map(OsString::from).collect();
        let merged = with_file(&Cli::command(), line).expect("merged");
        let shown: Vec<_> = merged[2..].iter().map(|a| a.to_string_lossy()).collect();
        assert_eq!(shown.join(" "), "snapshot --s3 list --dir=/b");
    }

    #[test]
    fn a_value_is_refused_for_itself_alone() {
        for (command, key, value, expected) in [
            ("server", "https-listen-port", json!(99999), "99999 is not in 0..=65535"),
            ("server", "https-listen-port", json!(6444), ""),
            ("server", "disable-agent", json!("yes"), "unexpected value 'yes'"),
            ("server", "disable-agent", json!(true), ""),
            ("agent", "max-pods", json!("many"), "invalid value 'many' for '--max-pods"),
            ("agent", "max-pods", json!(30), ""),
            ("agent", "max-pods", json!(null), ""),
            ("agent", "no-such-flag", json!(1), ""),
        ] {
            let said = refused(command, key, &value).unwrap_or_default();
            assert!(
                said.contains(expected) && said.is_empty() == expected.is_empty(),
                "{key}: {said}"
            );
        }
    }

    #[test]
    fn an_empty_file_changes_nothing() {
        assert_eq!(merged("# nothing yet\n", &[]).expect("merged"), "coracle server");
    }
}
