//! A connection to MySQL or MariaDB.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, Error, OptsBuilder, Params, Row, SslOpts, Value};
use tokio::sync::Notify;

use super::link::{self, FIRST_REVISION, LAYOUT, Link, Unwritten, Writes, remote, to_sql};
use super::server::{Encryption, Server};
use super::tls;
use crate::{Change, DriverError, Key, Revision};

/// After how long a silent peer is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
/// How often to look for what others wrote, after they have just written and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// Prepared statements kept by a connection: batches of different sizes are different ones.
const STATEMENTS_MAX: usize = 64;

/// Waits for a lock end soon. A server that hangs in a transaction must not keep the others
/// from writing: MariaDB ends the transaction (the comment is code to it alone), MySQL the
/// connection, since it knows no limit for transactions.
const SESSION: [&str; 5] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 4",
    "SET SESSION wait_timeout = 20",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "/*M!100300 SET SESSION idle_transaction_timeout = 5 */",
];

const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS coracle_meta (one TINYINT PRIMARY KEY, layout INT NOT NULL, \
     revision BIGINT NOT NULL) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS coracle_change (revision BIGINT PRIMARY KEY, batch BIGINT NOT NULL, \
     collection VARBINARY(400) NOT NULL, namespace VARBINARY(100) NOT NULL, \
     name VARBINARY(1000) NOT NULL, created BIGINT NOT NULL, value LONGBLOB) ENGINE=InnoDB",
    "CREATE TABLE IF NOT EXISTS coracle_object (collection VARBINARY(400) NOT NULL, \
     namespace VARBINARY(100) NOT NULL, name VARBINARY(1000) NOT NULL, created BIGINT NOT NULL, \
     revision BIGINT NOT NULL, PRIMARY KEY (collection, namespace, name), \
     UNIQUE KEY (revision)) ENGINE=InnoDB",
];

/// One connection.
pub struct MysqlLink {
    server: Server,
    connection: Conn,
}

impl MysqlLink {
    async fn number(&mut self, sql: &str) -> Result<Revision, DriverError> {
        let number: Result<Option<i64>, Error> = self.connection.query_first(sql).await;
        match number {
            Ok(Some(number)) => Ok(number.cast_unsigned()),
            Ok(None) => Err(remote(&self.server, "read from", None, "the counter is missing")),
            Err(error) => Err(refusal(&self.server, "read the revision of", error)),
        }
    }

    async fn read(
        &mut self,
        sql: &str,
        after: Revision,
        limit: i64,
    ) -> Result<Vec<Change>, DriverError> {
        let rows = self.connection.exec(sql, (to_sql(after), limit)).await;
        let rows: Vec<Row> = rows.map_err(|e| refusal(&self.server, "read from", e))?;
        let changes: Option<Vec<Change>> = rows.into_iter().map(change).collect();
        changes.ok_or_else(|| {
            remote(&self.server, "read from", None, "a row that is not as it was written")
        })
    }

    /// Writes all but the commit.
    async fn execute(&mut self, writes: &Writes<'_>) -> Result<(), Error> {
        let (put, gone) = writes.last_states();
        let sql = "UPDATE coracle_meta SET revision = ?";
        self.connection.exec_drop(sql, (to_sql(writes.counter),)).await?;
        if writes.changes.is_empty() {
            return Ok(());
        }
        let insert = writes.changes.iter().flat_map(|change| {
            let Change { key, created, revision, value } = change;
            let [collection, namespace, name] = parts(key);
            let value = value.as_deref().map_or(Value::NULL, Value::from);
            let batch = writes.batch.into();
            [number(*revision), batch, collection, namespace, name, number(*created), value]
        });
        let columns =
            "coracle_change (revision, batch, collection, namespace, name, created, value)";
        let sql = format!("INSERT INTO {columns} VALUES {}", rows(writes.changes.len(), 7));
        self.connection.exec_drop(sql, Params::Positional(insert.collect())).await?;
        if !put.is_empty() {
            let values = put.iter().flat_map(|change| {
                let [collection, namespace, name] = parts(&change.key);
                [collection, namespace, name, number(change.created), number(change.revision)]
            });
            let columns = "coracle_object (collection, namespace, name, created, revision)";
            let sql = format!(
                "INSERT INTO {columns} VALUES {} ON DUPLICATE KEY UPDATE \
                 created = VALUES(created), revision = VALUES(revision)",
                rows(put.len(), 5)
            );
            let values = Params::Positional(values.collect());
            self.connection.exec_drop(sql, values).await?;
        }
        if !gone.is_empty() {
            let sql = format!(
                "DELETE FROM coracle_object WHERE (collection, namespace, name) IN ({})",
                rows(gone.len(), 3)
            );
            let values = gone.iter().flat_map(|key| parts(key)).collect();
            self.connection.exec_drop(sql, Params::Positional(values)).await?;
        }
        Ok(())
    }
}

impl Link for MysqlLink {
    const POLL: Option<(Duration, Duration)> = Some(POLL);
    const IDLE_MAX: Duration = Duration::from_secs(10);

    async fn connect(server: &Server, _news: Option<Arc<Notify>>) -> Result<Self, DriverError> {
        let refused = |error| refusal(server, "connect to", error);
        let mut connection = Conn::new(options(server)).await.map_err(refused)?;
        for statement in SESSION {
            connection.query_drop(statement).await.map_err(refused)?;
        }
        set_up(&mut connection, server).await?;
        let layout: Result<Option<i32>, Error> =
            connection.query_first("SELECT layout FROM coracle_meta").await;
        match layout.map_err(refused)? {
            Some(found) if found > LAYOUT => Err(DriverError::TooNew {
                path: server.to_string().into(),
                found: found.into(),
                known: LAYOUT.into(),
            }),
            _ => Ok(Self { server: server.clone(), connection }),
        }
    }

    async fn lock(&mut self) -> Result<Revision, DriverError> {
        let begun = self.connection.query_drop("BEGIN").await;
        begun.map_err(|e| refusal(&self.server, "begin to write to", e))?;
        self.number("SELECT revision FROM coracle_meta FOR UPDATE").await
    }

    async fn writer_of(&mut self, revision: Revision) -> Result<Option<i64>, DriverError> {
        let sql = "SELECT batch FROM coracle_change WHERE revision = ?";
        let batch = self.connection.exec_first(sql, (to_sql(revision),)).await;
        batch.map_err(|e| refusal(&self.server, "look for a write in", e))
    }

    async fn write(&mut self, writes: &Writes<'_>) -> Result<(), Unwritten> {
        let refused = |open, error| Unwritten { open, error };
        if let Err(error) = self.execute(writes).await {
            return Err(refused(false, refusal(&self.server, "write to", error)));
        }
        if !writes.commit {
            return Ok(());
        }
        let committed = self.connection.query_drop("COMMIT").await;
        // Even a refusal may come from a connection that was ended after the commit.
        committed.map_err(|error| refused(true, refusal(&self.server, "commit to", error)))
    }

    async fn roll_back(&mut self) -> Result<(), DriverError> {
        let done = self.connection.query_drop("ROLLBACK").await;
        done.map_err(|e| refusal(&self.server, "write to", e))
    }

    async fn counter(&mut self) -> Result<Revision, DriverError> {
        self.number("SELECT revision FROM coracle_meta").await
    }

    async fn changes(&mut self, after: Revision, limit: i64) -> Result<Vec<Change>, DriverError> {
        let sql = "SELECT revision, collection, namespace, name, created, value \
                   FROM coracle_change WHERE revision > ? ORDER BY revision LIMIT ?";
        self.read(sql, after, limit).await
    }

    async fn begin_reading(&mut self) -> Result<Revision, DriverError> {
        for statement in [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        ] {
            let done = self.connection.query_drop(statement).await;
            done.map_err(|e| refusal(&self.server, "read", e))?;
        }
        self.counter().await
    }

    async fn objects(&mut self, after: Revision, limit: i64) -> Result<Vec<Change>, DriverError> {
        let sql = "SELECT o.revision, o.collection, o.namespace, o.name, o.created, c.value \
                   FROM coracle_object o JOIN coracle_change c ON c.revision = o.revision \
                   WHERE o.revision > ? ORDER BY o.revision LIMIT ?";
        self.read(sql, after, limit).await
    }

    async fn holdings(&mut self) -> Result<Vec<(String, i64)>, DriverError> {
        let sql = "SELECT collection, count(*) FROM coracle_object GROUP BY collection";
        let held = self.connection.query(sql).await;
        held.map_err(|e| refusal(&self.server, "look into", e))
    }

    async fn prune(&mut self, upto: Revision) -> Result<(), DriverError> {
        let sql = "DELETE c FROM coracle_change c \
                   LEFT JOIN coracle_object o ON o.revision = c.revision \
                   WHERE c.revision <= ? AND o.revision IS NULL";
        let pruned = self.connection.exec_drop(sql, (to_sql(upto),)).await;
        pruned.map_err(|e| refusal(&self.server, "prune", e))
    }
}

/// So many rows of so many question marks.
fn rows(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    vec![row; rows].join(",")
}

fn number(revision: Revision) -> Value {
    to_sql(revision).into()
}

fn parts(key: &Key) -> [Value; 3] {
    [&key.collection, &key.namespace, &key.name].map(|part| Value::from(part.as_bytes()))
}

fn change(mut row: Row) -> Option<Change> {
    let mut number = |n| row.take_opt::<i64, _>(n)?.ok().map(i64::cast_unsigned);
    let (revision, created) = (number(0)?, number(4)?);
    let mut text = |n| String::from_utf8(row.take_opt::<Vec<u8>, _>(n)?.ok()?).ok();
    let key = Key::new(text(1)?, text(2)?, text(3)?);
    let value: Option<Vec<u8>> = row.take_opt(5)?.ok()?;
    Some(Change { key, created, revision, value: value.map(Into::into) })
}

fn options(server: &Server) -> OptsBuilder {
    let mut options = OptsBuilder::default()
        .user(Some(&server.user))
        .pass(server.password.as_ref())
        .stmt_cache_size(STATEMENTS_MAX)
        .tcp_keepalive(Some(KEEPALIVE_IDLE))
        .prefer_socket(false)
        .tcp_nodelay(true);
    options = match server.is_socket() {
        true => options.socket(Some(&server.host)),
        false => options.ip_or_hostname(&server.host).tcp_port(server.port),
    };
    let files = &server.files;
    // Without a CA of ours nobody is verified, but the client insists on having roots.
    let tls = SslOpts::default().with_disable_built_in_roots(files.ca.is_some());
    let roots = files.ca.iter().map(|path| path.clone().into()).collect();
    let identity = files.cert.clone().zip(files.key.clone());
    let identity = identity.map(|(cert, key)| ClientIdentity::new(cert.into(), key.into()));
    let tls = tls.with_root_certs(roots).with_client_identity(identity);
    match server.encryption {
        Encryption::Off => options,
        Encryption::Verify => options.ssl_opts(tls),
        Encryption::Prefer | Encryption::Require => {
            options.ssl_opts(tls.with_danger_accept_invalid_certs(files.ca.is_none()))
        }
    }
}

/// Makes database and tables if they are not there; one server at a time.
async fn set_up(connection: &mut Conn, server: &Server) -> Result<(), DriverError> {
    let refused = |error| refusal(server, "prepare the database of", error);
    let database = format!("`{}`", server.database);
    let used = connection.query_drop(format!("USE {database}")).await;
    if used.is_err() {
        let make = format!("CREATE DATABASE IF NOT EXISTS {database}");
        connection.query_drop(make).await.map_err(refused)?;
        connection.query_drop(format!("USE {database}")).await.map_err(refused)?;
    }
    let found: Result<Option<Row>, Error> =
        connection.query_first("SHOW TABLES LIKE 'coracle_object'").await;
    if found.map_err(refused)?.is_some() {
        return Ok(());
    }
    connection.query_drop("DO GET_LOCK('coracle', 10)").await.map_err(refused)?;
    let first = format!("INSERT IGNORE INTO coracle_meta VALUES (1, {LAYOUT}, {FIRST_REVISION})");
    let [meta, change, object] = TABLES;
    // The table that is looked for comes last, so that whoever finds it finds the rest.
    for statement in [meta, &first, change, object, "DO RELEASE_LOCK('coracle')"] {
        connection.query_drop(statement).await.map_err(refused)?;
    }
    Ok(())
}

/// Server errors that a person can do something about.
const ACCESS_DENIED: [u16; 3] = [1044, 1045, 1142];
const DISK_FULL: [u16; 2] = [1021, 1114];
const TOO_MANY_CONNECTIONS: u16 = 1040;
const PACKET_TOO_LARGE: u16 = 1153;

fn refusal(server: &Server, doing: &'static str, error: Error) -> DriverError {
    if tls::is_refusal(&error) {
        return link::refused(server, doing, Some(tls::HINT), error);
    }
    let hint = match &error {
        Error::Server(refused) => match refused.code {
            code if ACCESS_DENIED.contains(&code) => {
                let hint = "check user and password of the datastore endpoint, and their rights";
                return link::refused(server, doing, Some(hint), error);
            }
            code if DISK_FULL.contains(&code) => Some("free some space on the database's disk"),
            TOO_MANY_CONNECTIONS => Some("raise max_connections there"),
            PACKET_TOO_LARGE => Some("raise max_allowed_packet there to 16M or more"),
            _ => None,
        },
        _ => Some("check that the database runs there and that this board reaches it"),
    };
    remote(server, doing, hint, error)
}
