//! Which datastore, in the words of a user: `--datastore-endpoint` and the files for TLS.

use std::path::{Path, PathBuf};

use crate::etcd::{Etcd, EtcdOptions};
use crate::sql::{Mysql, Postgres, Server};
use crate::{Driver, Sqlite};

/// Files for TLS to a datastore, as PEM. They are read again at each connection, so that
/// renewed certificates are taken up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who may have signed the datastore's certificate (`--datastore-cafile`).
    pub ca: Option<PathBuf>,
    /// Our own certificate (`--datastore-certfile`).
    pub cert: Option<PathBuf>,
    /// Its key (`--datastore-keyfile`).
    pub key: Option<PathBuf>,
}

/// A place to keep a cluster. `Display` names it without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datastore {
    /// SQLite in a folder: one server.
    Sqlite(PathBuf),
    /// etcd v3.
    Etcd(EtcdOptions),
    /// PostgreSQL.
    Postgres(Server),
    /// MySQL or MariaDB.
    Mysql(Server),
}

/// Why an endpoint cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the datastore endpoint {endpoint:?} {reason}")]
pub struct EndpointError {
    /// The endpoint, without its password.
    pub endpoint: String,
    /// What is wrong with it.
    pub reason: String,
    /// What a person can do about it.
    pub hint: &'static str,
}

/// What endpoints look like.
const FORMS: &str = "an endpoint is one of https://HOST:2379,https://HOST:2379 (etcd), \
     postgres://USER:PASSWORD@HOST:5432/DATABASE, mysql://USER:PASSWORD@tcp(HOST:3306)/DATABASE, \
     sqlite (the default)";

impl Datastore {
    /// Reads an endpoint in the forms that k3s' users know. Empty and `sqlite` stand for the
    /// database in `folder`.
    pub fn parse(endpoint: &str, files: TlsFiles, folder: &Path) -> Result<Self, EndpointError> {
        let endpoint = endpoint.trim();
        let refuse = |reason: String, hint| EndpointError {
            endpoint: without_password(endpoint),
            reason,
            hint,
        };
        if files.cert.is_some() != files.key.is_some() {
            let reason = "has a certificate without a key, or a key without a certificate".into();
            return Err(refuse(reason, "give both --datastore-certfile and --datastore-keyfile"));
        }
        let (scheme, rest) = endpoint.split_once("://").unwrap_or((endpoint, ""));
        match scheme {
            "" | "sqlite" if rest.is_empty() => Ok(Self::Sqlite(folder.into())),
            "sqlite" => Ok(Self::Sqlite(rest.into())),
            "http" | "https" => EtcdOptions::parse(endpoint, files)
                .map(Self::Etcd)
                .map_err(|reason| refuse(reason, FORMS)),
            "postgres" | "postgresql" => Server::parse_postgres(endpoint, files)
                .map(Self::Postgres)
                .map_err(|reason| refuse(reason, FORMS)),
            "mysql" => Server::parse_mysql(rest, files)
                .map(Self::Mysql)
                .map_err(|reason| refuse(reason, FORMS)),
            "nats" => Err(refuse("names NATS, which is not supported".into(), FORMS)),
            _ => Err(refuse("is of no known kind".into(), FORMS)),
        }
    }

    /// A driver for it. Nothing is touched, and nobody asked, before the store opens.
    pub fn driver(&self) -> Box<dyn Driver> {
        match self {
            Self::Sqlite(folder) => Box::new(Sqlite::driver(folder)),
            Self::Etcd(options) => Box::new(Etcd::driver(options.clone())),
            Self::Postgres(server) => Box::new(Postgres::driver(server.clone())),
            Self::Mysql(server) => Box::new(Mysql::driver(server.clone())),
        }
    }

    /// Whether several servers can use it at once.
    pub fn is_shared(&self) -> bool {
        !matches!(self, Self::Sqlite(_))
    }
}

impl std::fmt::Display for Datastore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(folder) => write!(f, "SQLite in {}", folder.display()),
            Self::Etcd(options) => options.fmt(f),
            Self::Postgres(server) | Self::Mysql(server) => server.fmt(f),
        }
    }
}

/// The endpoint as it may be shown: everything between user and host is left out.
fn without_password(endpoint: &str) -> String {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return endpoint.into() };
    let Some((user, host)) = rest.rsplit_once('@') else { return endpoint.into() };
    let user = user.split(':').next().unwrap_or_default();
    // A password may also stand among the options behind the question mark.
    let host = host.split('?').next().unwrap_or_default();
    format!("{scheme}://{user}@{host}")
}
