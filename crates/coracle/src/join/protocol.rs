//! What a joining board and a server say to each other, as JSON over HTTPS.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::secrets::{Equal, Secrets};
use crate::failure::Failure;

/// The bundle of authorities, for whoever holds a token to check it against.
pub const AUTHORITIES: &str = "/cacerts";
/// A node joins, or comes back.
pub const JOIN: &str = "/v1-coracle/join";
/// A further server asks for the cluster's secrets.
pub const SERVER: &str = "/v1-coracle/server-bootstrap";
/// An administrator changes tokens or authorities.
pub const CHANGE: &str = "/v1-coracle/change";

/// What a board says of itself.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The name of its Node.
    pub name: String,
    /// What it alone knows: nobody else may take the name later.
    pub password: String,
    /// Its version, as its Node will say it.
    pub version: String,
    /// Its clock, in milliseconds since 1970.
    pub time_ms: i64,
    /// The request (PKCS #10, PEM) for its client certificate, where it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}
base::hides!(Hello, name, version);

/// What a node is told that may join.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// What every node must know of the cluster.
    pub settings: Equal,
    /// The authorities of servers, PEM.
    pub server_ca: String,
    /// The authorities of clients, PEM.
    pub client_ca: String,
    /// Host and port of each server.
    pub servers: Vec<String>,
    /// The client certificate that was asked for, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What a further server is given.
#[derive(Clone, Serialize, Deserialize)]
pub struct Handover {
    /// The cluster's secrets.
    pub secrets: Secrets,
    /// Where the members of the cluster's etcd are; none where the datastore is another.
    pub etcd: Vec<String>,
}

/// What an administrator asks for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub enum Change {
    /// Another server token.
    ServerToken {
        /// The new one.
        token: String,
    },
    /// All leaves anew.
    Leaves,
    /// New authorities and a new service-account key beside the old ones.
    Authorities,
    /// An end to the trust in the old ones.
    Finish {
        /// Even where nodes have not taken the new ones yet.
        force: bool,
    },
}
base::hides!(Change);

/// What has come of a change.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The generation of the secrets that resulted.
    pub generation: u64,
    /// The token of servers, whole.
    pub server_token: String,
    /// The token of agents, whole.
    pub agent_token: String,
}
base::hides!(Changed, generation);

/// Why something is refused, and the next step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// Of the answer.
    #[serde(skip)]
    pub code: StatusCode,
    /// What is wrong.
    pub error: String,
    /// What to do about it.
    pub hint: String,
}

impl Refusal {
    /// A refusal with its HTTP code.
    pub fn new(code: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal { code, error: error.into(), hint: hint.into() }
    }

    /// What the server could not do, although it should.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let hint = "the log of that server may say more; try again";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, base::chain(error), hint)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::new(refusal.error).hint(refusal.hint)
    }
}
