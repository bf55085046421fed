//! Whether a board may join: pure checks, each with the refusal that it ends in.

use http::StatusCode;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use super::passwords;
use super::protocol::{Hello, Refusal};
use super::secrets::Secrets;
use super::token::Credential;
use crate::server;
use crate::upgrade::{self, Release};

/// Clocks that are further apart make certificates and tokens expire at the wrong moment.
pub const CLOCK_TOLERANCE_SECONDS: i64 = 300;
const WHERE_TOKENS_ARE: &str = "a server keeps its tokens in server/token and server/agent-token; \
     `coracle token create` there makes another";

/// Who asks, as its token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds the server token: may have the cluster's secrets.
    Server,
    /// May join as a node.
    Node,
}

/// The role that a token gives; a bootstrap token's Secret is looked up elsewhere.
pub fn role(credential: &Credential, secrets: &Secrets) -> Result<Role, Refusal> {
    let (server, node) = (&secrets.server_token, &secrets.agent_token);
    let role = match credential {
        Credential::Server(secret) => same(secret, server).then_some(Role::Server),
        Credential::Node(secret) => same(secret, node).then_some(Role::Node),
        Credential::Bare(secret) if same(secret, server) => Some(Role::Server),
        Credential::Bare(secret) => same(secret, node).then_some(Role::Node),
        Credential::Bootstrap { .. } => None,
    };
    role.ok_or_else(|| {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "the token is not one of this cluster's",
            WHERE_TOKENS_ARE,
        )
    })
}

/// Refuses an agent's token where a server's is needed.
pub fn must_be_server(role: Role) -> Result<(), Refusal> {
    match role {
        Role::Server => Ok(()),
        Role::Node => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "an agent's token does not let a server join",
            "take the server token: a server keeps it in server/token",
        )),
    }
}

/// Refuses what cannot be a node's name. It becomes part of paths of the API, where a `?` or a `/`
/// would make it speak of other objects than the node's own.
pub fn name(hello: &Hello) -> Result<(), Refusal> {
    if server::is_node_name(&passwords::secret_name(&hello.name)) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        format!("{:?} cannot be a node's name", hello.name),
        "letters, digits, dots and dashes can; choose one with --node-name",
    ))
}

/// Refuses a board whose clock is too far from this server's.
pub fn clock(hello: &Hello, now: Timestamp) -> Result<(), Refusal> {
    let apart = hello.time_ms.saturating_sub(now.as_millisecond()) / 1000;
    if apart.abs() <= CLOCK_TOLERANCE_SECONDS {
        return Ok(());
    }
    let direction = if apart > 0 { "ahead of" } else { "behind" };
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        format!(
            "the clock of {} is {} s {direction} this server's ({now:.0})",
            hello.name,
            apart.abs()
        ),
        "set the clock (`timedatectl set-ntp true`), then start again",
    ))
}

/// Refuses an agent whose release does not go with this server's.
pub fn agent_version(hello: &Hello, own: Release) -> Result<(), Refusal> {
    upgrade::agent_of(release(hello)?, own)
        .map_err(|skew| Refusal::new(StatusCode::FORBIDDEN, skew.to_string(), skew.hint))
}

/// Refuses a server whose release does not go with this one's.
pub fn server_version(hello: &Hello, own: Release, own_name: &str) -> Result<(), Refusal> {
    upgrade::server_beside(release(hello)?, own_name, own)
        .map_err(|skew| Refusal::new(StatusCode::FORBIDDEN, skew.to_string(), skew.hint))
}

fn release(hello: &Hello) -> Result<Release, Refusal> {
    Release::of_version(&hello.version).ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("{:?} is no version of Coracle's", hello.version),
            "install the binary that the servers run",
        )
    })
}

/// Compares secrets by their digests: how long that takes says nothing about them.
pub fn same(given: &str, wanted: &str) -> bool {
    digest(&SHA256, given.as_bytes()).as_ref() == digest(&SHA256, wanted.as_bytes()).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(time_ms: i64, version: &str) -> Hello {
        Hello {
            name: "pi".into(),
            password: String::new(),
            version: version.into(),
            time_ms,
            request: None,
        }
    }

    #[test]
    fn a_name_that_would_speak_of_another_object_is_refused() {
        let named = |text: &str| Hello { name: text.into(), ..hello(0, "") };
        for fine in ["pi", "pi-1.home"] {
            assert!(name(&named(fine)).is_ok(), "{fine}");
        }
        let long = "a".repeat(240);
        for wrong in
            ["", "Pi", "other.node-password.coracle?x=", "../configmaps/x", "a%2fb", "-a", &long]
        {
            let refusal = name(&named(wrong)).expect_err("refused");
            assert_eq!(refusal.code, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_is_refused_with_how_wrong_it_is() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let ms = now.as_millisecond();
        for fine in [ms, ms + 299_000, ms - 299_000] {
            assert!(clock(&hello(fine, ""), now).is_ok());
        }
        for (wrong, text) in [
            (ms + 3_600_000, "the clock of pi is 3600 s ahead of this server's"),
            (0, "the clock of pi is 1795262400 s behind this server's"),
        ] {
            let refusal = clock(&hello(wrong, ""), now).expect_err("refused");
            assert!(refusal.error.starts_with(text), "{}", refusal.error);
        }
    }

    #[test]
    fn versions_that_do_not_go_together_are_refused() {
        let own: Release = "0.5.0".parse().expect("a release");
        for (version, refused) in [
            ("v1.36.0+coracle0.5.0", ""),
            ("v1.36.0+coracle0.2.9", ""),
            ("v1.36.0+coracle0.6.0", "must not be newer"),
            ("v1.36.0+coracle0.1.0", "too far behind"),
            ("v1.36.0", "is no version of Coracle's"),
        ] {
            let error = agent_version(&hello(0, version), own).err().map(|r| r.error);
            match refused {
                "" => assert_eq!(error, None, "{version}"),
                text => assert!(error.as_ref().is_some_and(|e| e.contains(text)), "{error:?}"),
            }
        }
    }
}
