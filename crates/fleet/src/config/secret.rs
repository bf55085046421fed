//! Reading what is secret, from where `cluster.yaml` says that it stands.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Secret;

/// A secret is a token or a passphrase; more is a mistake.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// Rights that only the owner of a file with secrets may have.
const OTHERS: u32 = 0o077;

/// A secret that was read. It shows itself to nobody who does not ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Hidden(text.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("reading the secret in {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The file is open to others.
    #[error("others can read the secret in {0} (mode {1:03o}); run `chmod 600 {0}`")]
    Open(String, u32),
    /// It is empty, or too long to be a secret.
    #[error("the secret of {0} is {1}")]
    Length(String, &'static str),
    /// The variable is not there.
    #[error("the secret's variable {0} is not set")]
    Variable(String),
    /// The command cannot be run.
    #[error("running `{0}` for its secret")]
    Command(String, #[source] io::Error),
    /// The command failed.
    #[error("`{0}`, which should print a secret, ended with {1}")]
    Failed(String, std::process::ExitStatus),
}

impl Secret {
    /// Reads it; relative paths begin in `folder`, and so do commands.
    pub fn read(&self, folder: &Path) -> Result<Hidden, SecretError> {
        let text = match self {
            Secret::File(path) => read_file(&folder.join(path))?,
            Secret::Env(name) => {
                std::env::var(name).map_err(|_| SecretError::Variable(name.clone()))?
            }
            Secret::Command(words) => run(words, folder)?,
        };
        let text = text.trim_end_matches(['\n', '\r']);
        match text.len() as u64 {
            0 => Err(SecretError::Length(self.to_string(), "empty")),
            n if n > MAX_SECRET_BYTES => {
                Err(SecretError::Length(self.to_string(), "longer than 64 KiB"))
            }
            _ => Ok(Hidden::new(text)),
        }
    }

    /// Whether others can read the file that it stands in, with the file's mode. A file that is not
    /// there is no concern before it is needed.
    pub(super) fn is_open(&self, folder: &Path) -> Option<SecretError> {
        let Secret::File(path) = self else { return None };
        let path = folder.join(path);
        closed(&path, &std::fs::metadata(&path).ok()?).err()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(path) => write!(f, "the file {}", path.display()),
            Secret::Env(name) => write!(f, "the variable {name}"),
            Secret::Command(words) => write!(f, "the command `{}`", words.join(" ")),
        }
    }
}

fn read_file(path: &Path) -> Result<String, SecretError> {
    let failed = |error| SecretError::File(path.to_owned(), error);
    let file = File::open(path).map_err(failed)?;
    closed(path, &file.metadata().map_err(failed)?)?;
    let mut text = String::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn closed(path: &Path, metadata: &std::fs::Metadata) -> Result<(), SecretError> {
    let mode = metadata.permissions().mode() & 0o777;
    match metadata.is_file() && mode & OTHERS != 0 {
        true => Err(SecretError::Open(path.display().to_string(), mode)),
        false => Ok(()),
    }
}

/// The command may ask on the terminal (for the password of a password store), so it keeps its
/// input and its error output.
fn run(words: &[String], folder: &Path) -> Result<String, SecretError> {
    let line = words.join(" ");
    let failed = |error| SecretError::Command(line.clone(), error);
    let Some((program, arguments)) = words.split_first() else {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "no command is named")));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped());
    if !folder.as_os_str().is_empty() {
        command.current_dir(folder);
    }
    let output = command.spawn().and_then(|child| child.wait_with_output()).map_err(failed)?;
    if !output.status.success() {
        return Err(SecretError::Failed(line, output.status));
    }
    String::from_utf8(output.stdout)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32) -> (tempfile::TempDir, Secret) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        (folder, Secret::File("token".into()))
    }

    #[test]
    fn a_file_of_its_owner_is_read_and_shows_nothing() {
        let (folder, secret) = file(0o600);
        let hidden = secret.read(folder.path()).expect("read");
        assert_eq!(hidden.expose(), "s3cret");
        assert_eq!(format!("{hidden} {hidden:?}"), "[hidden] [hidden]");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o666] {
            let (folder, secret) = file(mode);
            let error = secret.read(folder.path()).expect_err("refused").to_string();
            assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
            assert!(secret.is_open(folder.path()).is_some());
        }
    }

    #[test]
    fn commands_run_in_the_files_folder_and_say_how_they_ended() {
        let (folder, _) = file(0o600);
        let command = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            Secret::Command(words).read(folder.path()).map_err(|error| error.to_string())
        };
        assert_eq!(command(&["cat", "token"]), Ok(Hidden::new("s3cret")));
        let failed = command(&["sh", "-c", "echo x; exit 3"]).expect_err("failed");
        assert!(failed.ends_with("ended with exit status: 3"), "{failed}");
        assert!(command(&["true"]).expect_err("empty").ends_with("is empty"));
        assert!(command(&[]).is_err());
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = Secret::Env("CORACLE_NO_SUCH".into()).read(Path::new("")).expect_err("unset");
        assert_eq!(error.to_string(), "the secret's variable CORACLE_NO_SUCH is not set");
    }
}
