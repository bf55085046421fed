use std::fmt;

/// A board that could not be reached or did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshError {
    /// The board.
    pub board: String,
    /// What sort of trouble it is.
    pub refusal: Refusal,
    /// What ssh or the command said, in one line; of a host key that has changed, the command that
    /// removes the old one.
    pub said: String,
}

/// Sorts of trouble on the way to a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody answers.
    Unreachable,
    /// Nobody answers, and the other boards know it at another address than the file does.
    Elsewhere,
    /// Its host key is not known.
    UnknownHostKey,
    /// Its host key is another than it was.
    ChangedHostKey,
    /// It does not let us in.
    Denied,
    /// sudo does not let us.
    Sudo,
    /// It took too long.
    TimedOut,
    /// The command failed.
    Failed,
    /// There is no ssh on this machine.
    NoSsh,
}

impl Refusal {
    /// Sorts what ssh says when it ends with 255.
    pub fn of(said: &str) -> Self {
        let has = |text: &str| said.contains(text);
        if has("REMOTE HOST IDENTIFICATION HAS CHANGED") || has("key has changed") {
            Refusal::ChangedHostKey
        } else if has("host key is known for") || has("Host key verification failed") {
            Refusal::UnknownHostKey
        } else if has("Permission denied") || has("Too many authentication failures") {
            Refusal::Denied
        } else {
            Refusal::Unreachable
        }
    }

    /// Whether the board is merely away: others go on without it.
    pub fn is_away(self) -> bool {
        matches!(self, Refusal::Unreachable | Refusal::Elsewhere)
    }
}

impl SshError {
    /// An error of a board.
    pub fn new(board: &str, refusal: Refusal, said: impl Into<String>) -> Self {
        Self { board: board.into(), refusal, said: said.into() }
    }

    /// The next step.
    pub fn hint(&self) -> String {
        let board = &self.board;
        match self.refusal {
            Refusal::Unreachable => {
                format!(
                    "is {board} on, is its address right (`coracle discover` shows who is there), and \
                     does `ssh` reach it?"
                )
            }
            Refusal::Elsewhere => "boards are not moved to other addresses: put the old one back into \
                                   the file, or give the board its new one (by a reservation in your \
                                   router) and restart it"
                .into(),
            Refusal::UnknownHostKey => {
                "compare its fingerprint with the board's own (`ssh-keygen -lf \
                 /etc/ssh/ssh_host_ed25519_key.pub` there) and add it with `ssh` once; \
                 --accept-new-host-keys believes what is shown"
                    .into()
            }
            Refusal::ChangedHostKey => format!(
                "if {board} was set up anew, remove its old key (`{}`); if not, another board may \
                 have its address by now, or somebody poses as it",
                self.said
            ),
            Refusal::Denied => {
                "is the public key in the account's authorized_keys (`ssh-copy-id` puts it \
                                there), and the account right (ssh.user)?"
                    .into()
            }
            Refusal::Sudo => {
                "say where the password stands (`ssh: {sudoPassword: {file: PATH}}`), or let \
                 the account use sudo without one"
                    .into()
            }
            Refusal::TimedOut => format!("see what {board} is doing, and run the command again"),
            Refusal::Failed => "mend that, and run the command again: it goes on from there".into(),
            Refusal::NoSsh => "apt install openssh-client".into(),
        }
    }
}

impl fmt::Display for SshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { board, refusal, said } = self;
        match refusal {
            Refusal::Unreachable | Refusal::Elsewhere => {
                write!(f, "{board} cannot be reached: {said}")
            }
            Refusal::UnknownHostKey => write!(f, "the host key of {board} is not known"),
            Refusal::ChangedHostKey => write!(f, "the host key of {board} has changed"),
            Refusal::Denied => write!(f, "{board} does not let us in: {said}"),
            Refusal::Sudo => write!(f, "sudo on {board}: {said}"),
            Refusal::TimedOut => write!(f, "{board} took too long: {said}"),
            Refusal::Failed => write!(f, "{board}: {said}"),
            Refusal::NoSsh => write!(f, "starting ssh: {said}"),
        }
    }
}

impl std::error::Error for SshError {}
