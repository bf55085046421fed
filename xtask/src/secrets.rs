//! Types that hold a secret must not derive `Debug`: somebody prints them one day.

use std::fs;
use std::path::Path;

use crate::run::Outcome;

/// How fields with secrets are called, alone or behind an underscore.
const NAMES: [&str; 8] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "private_key",
    "secret_key",
    "signing_key_pem",
    "service_account_key",
];
/// What a secret is kept in.
const TYPES: [&str; 4] = ["String", "Option<String>", "Vec<u8>", "Option<Vec<u8>>"];
/// Fields that are called so and hold none: a list's place to go on from.
const HARMLESS: [&str; 1] = ["continue_token"];

/// Fails where a type with a secret derives `Debug`, and names every such field.
pub fn check() -> Outcome {
    let mut wrong = Vec::new();
    look(Path::new("crates"), &mut wrong).map_err(|error| format!("reading crates: {error}"))?;
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "types with secrets derive Debug:\n  {}\n`base::hides!` shows what may be shown",
            wrong.join("\n  ")
        )),
    }
}

fn look(folder: &Path, wrong: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            look(&path, wrong)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let found = shown(&fs::read_to_string(&path)?);
            wrong.extend(found.into_iter().map(|field| format!("{}: {field}", path.display())));
        }
    }
    Ok(())
}

/// The secret fields of types that derive `Debug`.
fn shown(source: &str) -> Vec<String> {
    let (mut derived, mut inside) = (false, false);
    let mut found = Vec::new();
    for line in source.lines() {
        let word = line.trim_start();
        if word.starts_with("#[derive(") {
            derived = word.contains("Debug");
        } else if ["struct ", "enum "].iter().any(|kind| is_item(line, kind)) {
            (inside, derived) = (derived, false);
        } else if line.starts_with('}') {
            inside = false;
        } else if inside && is_secret(word) {
            found.push(word.to_owned());
        }
    }
    found
}

fn is_item(line: &str, kind: &str) -> bool {
    let rest = line
        .strip_prefix("pub")
        .map_or(line, |rest| rest.split_once(' ').map_or(rest, |(_, rest)| rest));
    rest.starts_with(kind) && line.ends_with('{')
}

fn is_secret(field: &str) -> bool {
    let Some((name, kind)) = field.trim_end_matches(',').split_once(": ") else { return false };
    let name = name.rsplit(' ').next().unwrap_or_default();
    let named = |known: &&str| {
        name.strip_suffix(*known).is_some_and(|front| front.is_empty() || front.ends_with('_'))
    };
    TYPES.contains(&kind) && !HARMLESS.contains(&name) && NAMES.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_would_be_printed_is_found() {
        let source = |derive: &str, field: &str| {
            format!(
                "#[derive({derive})]\n#[serde(default)]\npub struct A {{\n    /// B.\n    {field}\n}}\n"
            )
        };
        for (derive, field, expected) in [
            ("Clone, Debug", "pub agent_token: Option<String>,", 1),
            ("Debug", "password: String,", 1),
            ("Clone", "pub agent_token: Option<String>,", 0),
            ("Debug", "pub token_file: Option<PathBuf>,", 0),
            ("Debug", "continue_token: Option<String>,", 0),
            ("Debug", "pub broken: String,", 0),
        ] {
            assert_eq!(shown(&source(derive, field)).len(), expected, "{derive} {field}");
        }
    }
}
