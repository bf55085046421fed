//! What an image needs beyond the cluster's description: secrets, keys and the binary.

use std::fs;
use std::path::{Path, PathBuf};

use super::changes::Given;
use super::error::{Doing, ImageError};
use crate::Trouble;
use crate::config::{Board, Cluster, Datastore, Secret};
use crate::program::{Machine, Program, not_static};

/// Public keys that a person usually has, the better ones first.
const USUAL_KEYS: [&str; 3] = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];

impl Given {
    /// Reads what a board's image needs. Of the binaries the one for its machine is taken.
    pub fn read(
        cluster: &Cluster,
        board: &Board,
        binaries: &[PathBuf],
        machine: Option<Machine>,
    ) -> Result<Self, ImageError> {
        let ssh = cluster.ssh(board);
        let user = ssh.user.clone().ok_or_else(|| {
            ImageError::refused(
                format!("the account to log in to {} with is not named", board.name),
                "set ssh.user, such as ssh: {user: admin}",
            )
        })?;
        if !is_account(&user) {
            return Err(ImageError::refused(
                format!("{user:?} is no name for an account"),
                "small letters, digits, - and _, and no digit first",
            ));
        }
        let settings = cluster.settings(board);
        let secret =
            |secret: Option<&Secret>| secret.map(|secret| revealed(cluster, secret)).transpose();
        let endpoint = match &cluster.datastore {
            Datastore::External(url) => Some(url),
            _ => None,
        };
        let (binary, machine) = binary(binaries, machine)?;
        Ok(Given {
            user,
            authorized_keys: keys(cluster, &ssh.authorized_keys)?,
            token: secret(cluster.token.as_ref())?,
            endpoint: secret(endpoint)?,
            passphrase: secret(settings.wifi.as_ref().map(|wifi| &wifi.passphrase))?,
            binary,
            machine,
        })
    }
}

fn revealed(cluster: &Cluster, secret: &Secret) -> Result<String, ImageError> {
    let hidden = cluster.secret(secret).map_err(|error| {
        ImageError::refused(base::chain(&error), "secrets are named by file, env or command")
    })?;
    Ok(hidden.expose().trim().to_owned())
}

/// Lines as they stand, and those of files that are named. Without any, this machine's own.
fn keys(cluster: &Cluster, named: &[String]) -> Result<Vec<String>, ImageError> {
    let mut keys = Vec::new();
    for entry in named {
        match is_key(entry) {
            true => keys.push(entry.trim().to_owned()),
            false => keys.extend(keys_in(&cluster.path(Path::new(entry)))?),
        }
    }
    if named.is_empty() {
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh"));
        let usual = home.iter().flat_map(|folder| USUAL_KEYS.map(|name| folder.join(name)));
        if let Some(file) = usual.into_iter().find(|file| file.exists()) {
            keys.extend(keys_in(&file)?);
        }
    }
    Ok(keys)
}

fn keys_in(file: &Path) -> Result<Vec<String>, ImageError> {
    let text =
        fs::read_to_string(file).doing(|| format!("reading the keys in {}", file.display()))?;
    let keys: Vec<String> =
        text.lines().map(str::trim).filter(|line| is_key(line)).map(str::to_owned).collect();
    match keys.is_empty() {
        false => Ok(keys),
        true => Err(ImageError::refused(
            format!("{} holds no public key", file.display()),
            "the public half ends with .pub; the other half stays where it is",
        )),
    }
}

/// Whether a line is a public key (options before it are not known here).
fn is_key(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let sort = words.next().unwrap_or_default();
    ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|begin| sort.starts_with(begin))
        && words.next().is_some()
}

fn is_account(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let first = name.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    first && name.len() <= 32 && name.chars().all(fine)
}

/// The binary for the machine, and for which one it is; where none fits, the last.
fn binary(
    binaries: &[PathBuf],
    machine: Option<Machine>,
) -> Result<((PathBuf, u64), Option<Machine>), ImageError> {
    let mut found = ((PathBuf::new(), 0), None);
    for path in binaries {
        let refused = |trouble: Trouble| ImageError::refused(trouble.to_string(), trouble.hint());
        let program = Program::read(path).map_err(refused)?;
        let length = fs::metadata(path).doing(|| format!("looking at {}", path.display()))?.len();
        found = ((path.clone(), length), Some(program.machine));
        if found.1 == machine {
            if !program.is_static {
                return Err(refused(not_static(path)));
            }
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_files_of_them() {
        assert!(is_key("ssh-ed25519 AAAAC3Nza me@laptop"));
        assert!(is_key("sk-ssh-ed25519@openssh.com AAAA"));
        assert!(!is_key("~/.ssh/id_ed25519.pub") && !is_key("ssh-ed25519"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("id_ed25519");
        fs::write(&file, "-----BEGIN OPENSSH PRIVATE KEY-----\n").expect("written");
        let refused = keys_in(&file).expect_err("refused");
        assert!(refused.to_string().ends_with("holds no public key"), "{refused}");
    }

    #[test]
    fn accounts_have_plain_names() {
        for (name, fine) in
            [("pi", true), ("_x-1", true), ("1st", false), ("a\"b", false), ("", false)]
        {
            assert_eq!(is_account(name), fine, "{name}");
        }
    }
}
