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

/// The endpoint as it may be shown. Passwords also stand among the options behind the question
/// mark, and one that was not escaped may look like a port.
fn without_password(endpoint: &str) -> String {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return endpoint.into() };
    if matches!(scheme, "http" | "https" | "sqlite") {
        return endpoint.into();
    }
    let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    let user = user.split(':').next().unwrap_or_default();
    let host = host.split(['?', ':']).next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    format!("{scheme}://{user}{at}{host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encryption;

    fn parse(endpoint: &str) -> Result<Datastore, EndpointError> {
        Datastore::parse(endpoint, TlsFiles::default(), Path::new("/data/db"))
    }

    #[test]
    fn endpoints_as_users_write_them() {
        for (endpoint, expected) in [
            ("", "SQLite in /data/db"),
            ("sqlite", "SQLite in /data/db"),
            ("sqlite:///other", "SQLite in /other"),
            (
                "https://a:2379,https://[fd00::1]:2379/",
                "etcd at https://a:2379,https://[fd00::1]:2379",
            ),
            ("http://127.0.0.1:2379", "etcd at http://127.0.0.1:2379"),
            ("postgres://u:p@db/k3s", "PostgreSQL at db:5432, database k3s"),
            ("postgresql://db:6432", "PostgreSQL at db:6432, database coracle"),
            (
                "postgres://u:p%40@[fd00::1]:1/d?sslmode=disable",
                "PostgreSQL at fd00::1:1, database d",
            ),
            ("postgres://u@/d?host=/run/postgresql", "PostgreSQL at /run/postgresql, database d"),
            ("mysql://u:p@tcp(db:3307)/k3s", "MySQL at db:3307, database k3s"),
            ("mysql://u:p@tcp(db)/?parseTime=true", "MySQL at db:3306, database coracle"),
            ("mysql://u:p@db/k3s", "MySQL at db:3306, database k3s"),
            ("mysql://u@unix(/run/mysqld.sock)/k3s", "MySQL at /run/mysqld.sock, database k3s"),
        ] {
            assert_eq!(parse(endpoint).map(|d| d.to_string()), Ok(expected.into()), "{endpoint}");
        }
    }

    #[test]
    fn passwords_are_read_and_never_shown() {
        for endpoint in ["postgres://u:s%40cret@db/d", "mysql://u:s%40cret@tcp(db)/d"] {
            let datastore = parse(endpoint).expect("an endpoint");
            let (Datastore::Postgres(server) | Datastore::Mysql(server)) = &datastore else {
                panic!("{datastore}");
            };
            assert_eq!(server.password.as_deref(), Some("s@cret"));
            assert!(!format!("{datastore} {datastore:?}").contains("cret"));
        }
        for endpoint in [
            "postgres://u:secret@db/d?what=1",
            "postgres://u:se%cret@db/d",
            "mysql://u:sec@ret@tcp(db/d",
            "oracle://u:secret@db/d",
            "postgres://db/d?password=secret&what=1",
            "postgres://u:secret?@db/d",
            "mysql://u:secret#1",
        ] {
            let refused = parse(endpoint).expect_err(endpoint).to_string();
            assert!(!refused.contains("cret"), "{refused}");
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (endpoint, expected) in [
            ("etcd", "is of no known kind"),
            ("https://a:2379,b:2379", "begins neither with https:// nor with http://"),
            ("https://a:2379/path", "is not of the form https://HOST:PORT"),
            ("https://a:port", "whose port is not a number"),
            ("nats://a", "NATS, which is not supported"),
            ("postgres://a,b/d", "names several hosts"),
            ("postgres://a/d?sslmode=verify-full", "--datastore-cafile"),
            ("postgres://a/d\"; DROP", "letters, digits, - and _ are allowed"),
            ("mysql://u@udp(a)/d", "the network \"udp\""),
            ("mysql://u@tcp(a/d", "closing parenthesis"),
        ] {
            let refused = parse(endpoint).expect_err(endpoint).to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        let ca = TlsFiles { ca: Some("ca".into()), ..TlsFiles::default() };
        let plain = Datastore::parse("http://a:2379", ca.clone(), Path::new(""));
        assert!(plain.is_err_and(|e| e.reason.contains("not encrypted")));
        let half = TlsFiles { cert: Some("cert".into()), ..TlsFiles::default() };
        let half = Datastore::parse("https://a:2379", half, Path::new(""));
        assert!(half.is_err_and(|e| e.reason.contains("certificate without a key")));
        let Ok(Datastore::Postgres(server)) = Datastore::parse("postgres://a/d", ca, Path::new(""))
        else {
            panic!("an endpoint");
        };
        assert_eq!(server.encryption, Encryption::Verify);
    }
}
