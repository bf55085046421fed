//! Tokens: what a board shows to join, and what it checks the cluster with.
//!
//! `K10<hash>::<user>:<secret>` is k3s' form. The hash is the SHA-256 of the authority's
//! certificate, so whoever has the token knows the cluster that it is for, and nobody can pose
//! as that. `K10<hash>::<id>.<secret>` carries a bootstrap token.

use std::fmt;
use std::fs;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::secrets::split;
use crate::config::Membership;
use crate::failure::{Failure, Outcome, While};

/// What a token with a hash begins with.
const PREFIX: &str = "K10";
/// Bytes of a secret that we make.
const SECRET_BYTES: usize = 16;
/// The largest file that is read as a token, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Whom a token speaks for.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// The server token: `server:SECRET`.
    Server(String),
    /// The agent token: `node:SECRET`.
    Node(String),
    /// A bootstrap token: `ID.SECRET`, of a Secret in `kube-system`.
    Bootstrap {
        /// Its public part.
        id: String,
        /// Its secret part.
        secret: String,
    },
    /// A secret alone: a server takes it for either token.
    Bare(String),
}
base::hides!(Credential);

/// A token as people hand it on.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the authority's certificate; without it the cluster cannot be checked.
    pub hash: Option<String>,
    /// The secret.
    pub credential: Credential,
}
base::hides!(Token, hash, credential);

impl Token {
    /// A token for the cluster of this authority (PEM).
    pub fn new(authority: &str, credential: Credential) -> Self {
        Token { hash: Some(hash(authority)), credential }
    }

    /// The secret part.
    pub fn secret(&self) -> &str {
        match &self.credential {
            Credential::Server(secret) | Credential::Node(secret) | Credential::Bare(secret) => {
                secret
            }
            Credential::Bootstrap { secret, .. } => secret,
        }
    }

    /// The token that the flags name, if any.
    pub fn of(membership: &Membership) -> Outcome<Option<Token>> {
        let text = match (&membership.token, &membership.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => {
                let doing = || format!("reading the token in {}", path.display());
                if fs::metadata(path).doing(doing)?.len() > FILE_BYTES_MAX {
                    return Err(Failure::new(format!(
                        "{} is too large for a token",
                        path.display()
                    ))
                    .hint("name a copy of a server's server/agent-token with --token-file"));
                }
                fs::read_to_string(path).doing(doing)?
            }
            (None, None) => return Ok(None),
        };
        text.trim().parse().map(Some).map_err(|what: String| {
            Failure::new(what).hint(
                "copy the whole line from a server's server/token or server/agent-token, or from \
                 `coracle token create`",
            )
        })
    }

    /// The certificate of the bundle that the hash is of.
    pub fn pinned(&self, bundle: &str) -> Option<String> {
        let wanted = self.hash.as_ref()?;
        split(bundle).into_iter().find(|cert| hash(cert) == *wanted)
    }
}

/// The hash of a token for the cluster of this authority (PEM, the first certificate counts).
pub fn hash(authority: &str) -> String {
    let cert = split(authority).into_iter().next().unwrap_or_default();
    hex(digest(&SHA256, cert.as_bytes()).as_ref())
}

/// Refuses a secret that is none, or that would be read as a token with a user or a hash.
pub fn must_be_plain(secret: &str) -> Outcome {
    match secret.parse::<Token>().map(|token| token.credential) {
        Ok(Credential::Bare(_)) => Ok(()),
        _ => Err(Failure::new(
            "the token is empty, or cannot be told from one with a user or a hash",
        )
        .hint("give the secret alone: letters and digits, without colon or dot")),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A secret that nobody can guess.
pub fn random_secret() -> Outcome<String> {
    Ok(hex(&random_bytes::<SECRET_BYTES>()?))
}

/// Bytes that nobody can guess.
pub fn random_bytes<const BYTES: usize>() -> Outcome<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(Failure::new("the kernel gives no random bytes")),
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(hash) = &self.hash {
            write!(f, "{PREFIX}{hash}::")?;
        }
        match &self.credential {
            Credential::Server(secret) => write!(f, "server:{secret}"),
            Credential::Node(secret) => write!(f, "node:{secret}"),
            Credential::Bootstrap { id, secret } => write!(f, "{id}.{secret}"),
            Credential::Bare(secret) => f.write_str(secret),
        }
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hashed = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once("::"));
        let (hash, rest) = match hashed {
            Some((hash, rest)) => {
                let good = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
                if !good {
                    return Err("the token's hash of the cluster is not whole".to_owned());
                }
                (Some(hash.to_ascii_lowercase()), rest)
            }
            None if text.starts_with(PREFIX) => {
                return Err("the token ends before its secret".to_owned());
            }
            None => (None, text),
        };
        if rest.is_empty() || rest.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err("the token is empty, or has letters that no token has".to_owned());
        }
        let credential = match rest.split_once(':') {
            Some(("server", secret)) if !secret.is_empty() => Credential::Server(secret.to_owned()),
            Some(("node", secret)) if !secret.is_empty() => Credential::Node(secret.to_owned()),
            Some(_) => return Err("the token is neither a server's nor a node's".to_owned()),
            None => match bootstrap(rest) {
                Some((id, secret)) => Credential::Bootstrap { id, secret },
                None if hash.is_some() => {
                    return Err("the token ends before its secret".to_owned());
                }
                None => Credential::Bare(rest.to_owned()),
            },
        };
        Ok(Token { hash, credential })
    }
}

/// The parts of a bootstrap token: six and sixteen lower-case letters and digits.
pub fn bootstrap(text: &str) -> Option<(String, String)> {
    let (id, secret) = text.split_once('.')?;
    let plain = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (plain(id, 6) && plain(secret, 16)).then(|| (id.to_owned(), secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let hash = "ab".repeat(32);
        for text in [
            format!("K10{hash}::server:0123"),
            format!("K10{hash}::node:0123"),
            format!("K10{hash}::abcdef.0123456789abcdef"),
            "abcdef.0123456789abcdef".to_owned(),
            "node:x".to_owned(),
            "a secret".replace(' ', "-"),
        ] {
            let token: Token = text.parse().expect("a token");
            assert_eq!(token.to_string(), text);
        }
    }

    #[test]
    fn a_secret_must_be_plain() {
        assert!(must_be_plain("0123abcd").is_ok());
        for wrong in ["server:x", "abcdef.0123456789abcdef", "two words", ""] {
            assert!(must_be_plain(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_that_was_cut_is_refused() {
        let hash = "ab".repeat(32);
        for (text, why) in [
            (format!("K10{}::node:x", &hash[1..]), "not whole"),
            (format!("K10{}", &hash[..30]), "ends before"),
            (format!("K10{hash}::"), "is empty"),
            (format!("K10{hash}::node:"), "neither"),
            (format!("K10{hash}::abcdef.0123"), "ends before"),
            (String::new(), "is empty"),
            ("two words".to_owned(), "letters"),
        ] {
            let error = text.parse::<Token>().expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
