use std::net::IpAddr;
use std::path::PathBuf;

use super::quoted;
use crate::config::{Board, Ssh};

/// The port that host keys are kept without.
const SSH_PORT: u16 = 22;

/// A board as ssh is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The board's name.
    pub name: String,
    /// What to connect to.
    pub host: String,
    /// Account, where it is not left to ssh's own configuration.
    pub user: Option<String>,
    /// Port, likewise.
    pub port: Option<u16>,
    /// File of the private key, likewise.
    pub key: Option<PathBuf>,
    /// Hosts to go through, likewise.
    pub jump: Option<String>,
    /// File of known host keys, likewise.
    pub known_hosts: Option<PathBuf>,
}

impl Target {
    /// The board, reached as `ssh` (already merged with what all boards have in common) says.
    pub fn new(board: &Board, ssh: &Ssh) -> Self {
        let bare = |address: IpAddr| address.to_string();
        Self {
            name: board.name.clone(),
            host: ssh.host.clone().unwrap_or_else(|| bare(board.address)),
            user: ssh.user.clone(),
            port: ssh.port,
            key: ssh.key.clone(),
            jump: ssh.jump.clone(),
            known_hosts: ssh.known_hosts.clone(),
        }
    }

    /// The command that makes this machine forget the board's host key.
    pub fn forgetting(&self) -> String {
        let host = match self.port {
            Some(port) if port != SSH_PORT => quoted(&format!("[{}]:{port}", self.host)),
            _ => self.host.clone(),
        };
        let file = self.known_hosts.as_ref().map(|file| format!(" -f {}", file.display()));
        format!("ssh-keygen -R {host}{}", file.unwrap_or_default())
    }

    /// The arguments of ssh that say how the board is reached; the host comes last.
    pub fn arguments(&self) -> Vec<String> {
        let mut line = Vec::new();
        let mut option = |text: String| line.extend(["-o".to_owned(), text]);
        if let Some(user) = &self.user {
            option(format!("User={user}"));
        }
        if let Some(port) = self.port {
            option(format!("Port={port}"));
        }
        if let Some(file) = &self.known_hosts {
            option(format!("UserKnownHostsFile={}", file.display()));
        }
        if let Some(jump) = &self.jump {
            option(format!("ProxyJump={jump}"));
        }
        if let Some(key) = &self.key {
            option("IdentitiesOnly=yes".into());
            line.extend(["-i".to_owned(), key.display().to_string()]);
        }
        // A host name never begins with a dash here, whatever a file says.
        line.extend(["--".to_owned(), self.host.clone()]);
        line
    }
}

/// How root is become on a board.
#[derive(Clone, PartialEq, Eq)]
pub enum Become {
    /// The login is root.
    Root,
    /// sudo asks nothing.
    Sudo,
    /// sudo asks for this.
    Password(String),
}

impl std::fmt::Debug for Become {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Become::Root => "Root",
            Become::Sudo => "Sudo",
            Become::Password(_) => "Password(hidden)",
        })
    }
}

impl Become {
    /// A command run as root.
    pub fn command(&self, command: &str) -> String {
        match self {
            Become::Root => command.to_owned(),
            Become::Sudo => format!("sudo -n {command}"),
            // -k: what sudo remembers would leave the password to be read by the command.
            Become::Password(_) => format!("sudo -k -S -p '' {command}"),
        }
    }

    /// What comes first on its standard input.
    pub fn preface(&self) -> String {
        match self {
            Become::Password(password) => format!("{password}\n"),
            _ => String::new(),
        }
    }
}
