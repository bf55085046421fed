//! How far apart the releases of a cluster's boards may be, as upstream has it for its own parts:
//! API servers one minor, a kubelet never newer than its API server and at most three minors older.

use super::Release;
use crate::failure::Failure;

/// A release names the API level it serves, so its minors stand for upstream's.
const MAX_SERVER_MINORS_APART: u32 = 1;
/// Upstream's limit for kubelets.
const MAX_AGENT_MINORS_BEHIND: u32 = 3;

/// Two releases that must not meet, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Skew {
    what: String,
    /// The next step.
    pub hint: String,
}

impl From<Skew> for Failure {
    fn from(skew: Skew) -> Self {
        Failure::new(skew.what).hint(skew.hint)
    }
}

/// Whether a server may run beside another of its cluster.
pub fn server_beside(own: Release, name: &str, other: Release) -> Result<(), Skew> {
    if own.major == other.major && own.minor.abs_diff(other.minor) <= MAX_SERVER_MINORS_APART {
        return Ok(());
    }
    let hint = if own.major != other.major {
        format!("there is no way from {other} to {own} but a new cluster and a restored snapshot")
    } else if own > other {
        format!(
            "upgrade one minor release at a time: bring {name} and all other servers to {}.{} \
             first; where {name} is gone for good, `kubectl delete node {name}`",
            own.major,
            own.minor - MAX_SERVER_MINORS_APART
        )
    } else {
        format!("install {}.{} or newer on this board", other.major, other.minor - 1)
    };
    let what = format!("this server is of release {own}, and the server {name} of {other}");
    Err(Skew { what, hint })
}

/// Whether an agent may join a server.
pub fn agent_of(agent: Release, server: Release) -> Result<(), Skew> {
    let what = || format!("this agent is of release {agent}, and its server of {server}");
    if agent.major > server.major || (agent.major == server.major && agent.minor > server.minor) {
        return Err(Skew {
            what: format!("{}; an agent must not be newer", what()),
            hint: format!(
                "upgrade the servers first, or install {}.{} on this board",
                server.major, server.minor
            ),
        });
    }
    let oldest = server.minor.saturating_sub(MAX_AGENT_MINORS_BEHIND);
    if agent.major < server.major || agent.minor < oldest {
        return Err(Skew {
            what: format!("{}; that is too far behind", what()),
            hint: format!("install {}.{} on this board", server.major, server.minor),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(text: &str) -> Release {
        text.parse().expect("a release")
    }

    #[test]
    fn servers_are_at_most_one_minor_apart() {
        for (own, other, expected) in [
            ("0.1.0", "0.1.9", ""),
            ("0.2.0", "0.1.0", ""),
            ("0.1.0", "0.2.0", ""),
            (
                "0.3.0",
                "0.1.0",
                "upgrade one minor release at a time: bring pi and all other servers to 0.2 first",
            ),
            ("0.1.0", "0.3.0", "install 0.2 or newer on this board"),
            ("1.0.0", "0.9.0", "there is no way from 0.9.0 to 1.0.0"),
        ] {
            let found = server_beside(release(own), "pi", release(other));
            let hint = found.err().map(|skew| skew.hint).unwrap_or_default();
            assert!(
                hint.starts_with(expected) && hint.is_empty() == expected.is_empty(),
                "{own} beside {other}: {hint}"
            );
        }
    }

    #[test]
    fn agents_are_never_newer_and_not_far_behind() {
        for (agent, server, expected) in [
            ("0.1.5", "0.1.0", "fine"),
            ("0.1.0", "0.4.0", "fine"),
            (
                "0.2.0",
                "0.1.9",
                "this agent is of release 0.2.0, and its server of 0.1.9; an agent must not be newer",
            ),
            (
                "0.1.0",
                "0.5.0",
                "this agent is of release 0.1.0, and its server of 0.5.0; that is too far behind",
            ),
            (
                "1.0.0",
                "0.9.0",
                "this agent is of release 1.0.0, and its server of 0.9.0; an agent must not be newer",
            ),
        ] {
            let found = agent_of(release(agent), release(server));
            assert_eq!(found.err().map_or("fine".into(), |skew| skew.to_string()), expected);
        }
    }
}
