//! A connection to PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::link::{self, FIRST_REVISION, LAYOUT, Link, Unwritten, Writes, remote, to_sql};
use super::server::{Encryption, Server};
use super::tls;
use crate::{Change, DriverError, Key, Revision};

/// How long making a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(4);
/// After how long a silent peer is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
/// How long the kernel waits for a peer to confirm what was sent.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(8);

/// Waits for a lock, and transactions that nobody goes on with, end soon: a server that
/// hangs must not keep the others from writing. What is acknowledged is on the disk.
const SESSION: &str = "
    SET lock_timeout = '4s'; SET idle_in_transaction_session_timeout = '5s';
    SET statement_timeout = '30s'; SET client_min_messages = warning;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local');";

/// Two servers that start at once must not make the tables both.
const SCHEMA: &str = r#"
    SELECT pg_advisory_xact_lock(4805711);
    CREATE TABLE IF NOT EXISTS coracle_meta (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        layout integer NOT NULL, revision bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS coracle_change (
        revision bigint PRIMARY KEY, batch bigint NOT NULL,
        collection text COLLATE "C" NOT NULL, namespace text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL, created bigint NOT NULL, value bytea);
    CREATE TABLE IF NOT EXISTS coracle_object (
        collection text COLLATE "C", namespace text COLLATE "C", name text COLLATE "C",
        created bigint NOT NULL, revision bigint NOT NULL UNIQUE,
        PRIMARY KEY (collection, namespace, name));"#;

/// One connection with its prepared statements.
pub struct PostgresLink {
    server: Server,
    client: Client,
    statements: Statements,
}

struct Statements {
    insert: Statement,
    put: Statement,
    delete: Statement,
    count: Statement,
    changes: Statement,
    objects: Statement,
}

impl PostgresLink {
    fn error(&self, doing: &'static str) -> impl Fn(Error) -> DriverError {
        let server = self.server.clone();
        move |error| refusal(&server, doing, error)
    }

    async fn number(&self, sql: &str) -> Result<i64, DriverError> {
        let row = self.client.query_one(sql, &[]).await;
        let number = row.and_then(|row| row.try_get(0));
        number.map_err(self.error("read the revision of"))
    }
}

impl Link for PostgresLink {
    const POLL: Option<(Duration, Duration)> = None;
    const IDLE_MAX: Duration = Duration::from_secs(3600);

    async fn connect(server: &Server, news: Option<Arc<Notify>>) -> Result<Self, DriverError> {
        let listens = news.is_some();
        let client = match connect_to(server, &server.database, news.clone()).await {
            Err(error) if is(&error, &SqlState::UNDEFINED_DATABASE) => {
                make_database(server).await?;
                connect_to(server, &server.database, news).await
            }
            other => other,
        };
        let client = client.map_err(|e| e.into_error(server))?;
        let refused = |error| refusal(server, "prepare", error);
        client.batch_execute(SESSION).await.map_err(refused)?;
        set_up(&client).await.map_err(refused)?;
        if listens {
            client.batch_execute("LISTEN coracle").await.map_err(refused)?;
        }
        let layout = client.query_one("SELECT layout FROM coracle_meta", &[]).await;
        let found: i32 = layout.and_then(|row| row.try_get(0)).map_err(refused)?;
        if found > LAYOUT {
            let path = server.to_string().into();
            return Err(DriverError::TooNew { path, found: found.into(), known: LAYOUT.into() });
        }
        let statements = prepare(&client).await.map_err(refused)?;
        Ok(Self { server: server.clone(), client, statements })
    }

    async fn lock(&mut self) -> Result<Revision, DriverError> {
        let begin = self.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED");
        let lock = self.client.query_one("SELECT revision FROM coracle_meta FOR UPDATE", &[]);
        let (begun, row) = tokio::join!(begin, lock);
        let number: Result<i64, Error> = begun.and(row).and_then(|row| row.try_get(0));
        Ok(number.map_err(self.error("begin to write to"))?.cast_unsigned())
    }

    async fn writer_of(&mut self, revision: Revision) -> Result<Option<i64>, DriverError> {
        let sql = "SELECT batch FROM coracle_change WHERE revision = $1";
        let row = self.client.query_opt(sql, &[&to_sql(revision)]).await;
        let batch = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
        batch.map_err(self.error("look for a write in"))
    }

    async fn write(&mut self, writes: &Writes<'_>) -> Result<(), Unwritten> {
        let insert = Columns::of(writes.changes.iter());
        let values: Vec<Option<&[u8]>> =
            writes.changes.iter().map(|change| change.value.as_deref()).collect();
        let (put, gone) = writes.last_states();
        let put = Columns::of(put.into_iter());
        let (collections, namespaces, names) = parts(gone.iter().copied());
        let (batch, counter) = (writes.batch, to_sql(writes.counter));
        let s = &self.statements;
        let inserted: [&(dyn ToSql + Sync); 7] = [
            &insert.revisions,
            &insert.collections,
            &insert.namespaces,
            &insert.names,
            &insert.created,
            &values,
            &batch,
        ];
        let stands: [&(dyn ToSql + Sync); 5] =
            [&put.revisions, &put.collections, &put.namespaces, &put.names, &put.created];
        let goes: [&(dyn ToSql + Sync); 3] = [&collections, &namespaces, &names];
        let counted: [&(dyn ToSql + Sync); 1] = [&counter];
        // One way there and back: the server takes them in this order, and after a refusal
        // the commit rolls back.
        let mut statements: Vec<(&Statement, &[&(dyn ToSql + Sync)])> =
            vec![(&s.insert, &inserted), (&s.count, &counted)];
        if !put.names.is_empty() {
            statements.push((&s.put, &stands));
        }
        if !gone.is_empty() {
            statements.push((&s.delete, &goes));
        }
        let statements =
            statements.into_iter().map(|(s, p)| self.client.execute_raw(s, p.iter().copied()));
        let commit = async {
            match writes.commit {
                true => self.client.batch_execute("COMMIT").await,
                false => Ok(()),
            }
        };
        let (executed, committed) = tokio::join!(try_join_all(statements), commit);
        let error = match (executed, committed) {
            (Ok(_), Ok(())) => return Ok(()),
            (Err(error), _) | (Ok(_), Err(error)) => error,
        };
        // What the server itself refused is rolled back; without its word it may be done, and
        // a server that shuts down may have ended the connection after the commit.
        let refused = error.code().is_some_and(|state| !state.code().starts_with("57P"));
        let open = !refused;
        Err(Unwritten { open, error: refusal(&self.server, "write to", error) })
    }

    async fn roll_back(&mut self) -> Result<(), DriverError> {
        self.client.batch_execute("ROLLBACK").await.map_err(self.error("write to"))
    }

    async fn counter(&mut self) -> Result<Revision, DriverError> {
        Ok(self.number("SELECT revision FROM coracle_meta").await?.cast_unsigned())
    }

    async fn changes(&mut self, after: Revision, limit: i64) -> Result<Vec<Change>, DriverError> {
        let rows = self.client.query(&self.statements.changes, &[&to_sql(after), &limit]).await;
        let changes = rows.and_then(|rows| rows.into_iter().map(change).collect());
        changes.map_err(self.error("read the changes of"))
    }

    async fn begin_reading(&mut self) -> Result<Revision, DriverError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.client.batch_execute(begin).await.map_err(self.error("read"))?;
        self.counter().await
    }

    async fn objects(&mut self, after: Revision, limit: i64) -> Result<Vec<Change>, DriverError> {
        let rows = self.client.query(&self.statements.objects, &[&to_sql(after), &limit]).await;
        let changes = rows.and_then(|rows| rows.into_iter().map(change).collect());
        changes.map_err(self.error("load the objects of"))
    }

    async fn holdings(&mut self) -> Result<Vec<(String, i64)>, DriverError> {
        let sql = "SELECT collection, count(*) FROM coracle_object GROUP BY collection";
        let rows = self.client.query(sql, &[]).await;
        let held = rows.and_then(|rows| {
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        });
        held.map_err(self.error("look into"))
    }

    async fn prune(&mut self, upto: Revision) -> Result<(), DriverError> {
        let sql = "DELETE FROM coracle_change c WHERE c.revision <= $1 AND NOT EXISTS \
                   (SELECT 1 FROM coracle_object o WHERE o.revision = c.revision)";
        let pruned = self.client.execute(sql, &[&to_sql(upto)]).await;
        pruned.map(|_| ()).map_err(self.error("prune"))
    }
}

/// Changes by column.
struct Columns<'a> {
    revisions: Vec<i64>,
    collections: Vec<&'a str>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    created: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(changes: impl Iterator<Item = &'a Change> + Clone) -> Self {
        let (collections, namespaces, names) = parts(changes.clone().map(|c| &c.key));
        Self {
            revisions: changes.clone().map(|c| to_sql(c.revision)).collect(),
            collections,
            namespaces,
            names,
            created: changes.map(|c| to_sql(c.created)).collect(),
        }
    }
}

type Parts<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>);

fn parts<'a>(keys: impl Iterator<Item = &'a Key> + Clone) -> Parts<'a> {
    (
        keys.clone().map(|k| &*k.collection).collect(),
        keys.clone().map(|k| &*k.namespace).collect(),
        keys.map(|k| &*k.name).collect(),
    )
}

fn change(row: Row) -> Result<Change, Error> {
    let text = |n| row.try_get::<_, &str>(n);
    let number = |n| row.try_get::<_, i64>(n).map(i64::cast_unsigned);
    let value: Option<Vec<u8>> = row.try_get(5)?;
    Ok(Change {
        revision: number(0)?,
        key: Key::new(text(1)?, text(2)?, text(3)?),
        created: number(4)?,
        value: value.map(Into::into),
    })
}

async fn set_up(client: &Client) -> Result<(), Error> {
    let first = format!(
        "BEGIN; {SCHEMA} INSERT INTO coracle_meta (layout, revision) \
         VALUES ({LAYOUT}, {FIRST_REVISION}) ON CONFLICT DO NOTHING; COMMIT"
    );
    // Who has no right to make tables may still use them.
    let found = client.query_one("SELECT to_regclass('coracle_object') IS NOT NULL", &[]).await?;
    if found.try_get(0)? {
        return Ok(());
    }
    client.batch_execute(&first).await
}

async fn prepare(client: &Client) -> Result<Statements, Error> {
    let unnest =
        "SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::bigint[]";
    let changes = "SELECT revision, collection, namespace, name, created, value FROM coracle_change \
                   WHERE revision > $1 ORDER BY revision LIMIT $2";
    let objects = "SELECT o.revision, o.collection, o.namespace, o.name, o.created, c.value \
                   FROM coracle_object o JOIN coracle_change c USING (revision) \
                   WHERE o.revision > $1 ORDER BY o.revision LIMIT $2";
    Ok(Statements {
        insert: client
            .prepare(&format!(
                "INSERT INTO coracle_change \
                 (revision, collection, namespace, name, created, value, batch) \
                 SELECT *, $7::bigint FROM ({unnest}, $6::bytea[])) AS new"
            ))
            .await?,
        put: client
            .prepare(&format!(
                "INSERT INTO coracle_object (revision, collection, namespace, name, created) \
                 {unnest}) ON CONFLICT (collection, namespace, name) \
                 DO UPDATE SET created = excluded.created, revision = excluded.revision"
            ))
            .await?,
        delete: client
            .prepare(
                "DELETE FROM coracle_object o \
                 USING unnest($1::text[], $2::text[], $3::text[]) AS g (collection, namespace, name) \
                 WHERE o.collection = g.collection AND o.namespace = g.namespace \
                 AND o.name = g.name",
            )
            .await?,
        count: client
            .prepare("WITH told AS (SELECT pg_notify('coracle', '')) \
                      UPDATE coracle_meta SET revision = $1 FROM told")
            .await?,
        changes: client.prepare(changes).await?,
        objects: client.prepare(objects).await?,
    })
}

/// Why there is no connection.
enum NoConnection {
    Tls(DriverError),
    Postgres(Error),
}

impl NoConnection {
    fn into_error(self, server: &Server) -> DriverError {
        match self {
            Self::Tls(error) => error,
            Self::Postgres(error) => refusal(server, "connect to", error),
        }
    }
}

fn is(error: &NoConnection, state: &SqlState) -> bool {
    matches!(error, NoConnection::Postgres(error) if error.code() == Some(state))
}

async fn connect_to(
    server: &Server,
    database: &str,
    news: Option<Arc<Notify>>,
) -> Result<Client, NoConnection> {
    let mut config = Config::new();
    config.user(&server.user).dbname(database).port(server.port).application_name("coracle");
    config.connect_timeout(CONNECT_PATIENCE).keepalives_idle(KEEPALIVE_IDLE);
    config.tcp_user_timeout(UNCONFIRMED_MAX);
    match server.is_socket() {
        true => config.host_path(&server.host),
        false => config.host(&server.host),
    };
    if let Some(password) = &server.password {
        config.password(password);
    }
    config.ssl_mode(match server.encryption {
        Encryption::Off => tokio_postgres::config::SslMode::Disable,
        Encryption::Prefer => tokio_postgres::config::SslMode::Prefer,
        Encryption::Require | Encryption::Verify => tokio_postgres::config::SslMode::Require,
    });
    let tls = MakeRustlsConnect::new(tls::config(server).map_err(NoConnection::Tls)?);
    let (client, mut connection) = config.connect(tls).await.map_err(NoConnection::Postgres)?;
    let pump = async move {
        let mut messages =
            std::pin::pin!(futures::stream::poll_fn(|cx| connection.poll_message(cx)));
        while let Some(Ok(message)) = futures::StreamExt::next(&mut messages).await {
            if let (AsyncMessage::Notification(_), Some(news)) = (message, &news) {
                news.notify_one();
            }
        }
        // Whoever waits for news must see that none will come.
        if let Some(news) = news {
            news.notify_one();
        }
    };
    tokio::spawn(pump);
    Ok(client)
}

async fn make_database(server: &Server) -> Result<(), DriverError> {
    let client = connect_to(server, "postgres", None).await.map_err(|e| e.into_error(server))?;
    let made = client.batch_execute(&format!("CREATE DATABASE \"{}\"", server.database)).await;
    match made {
        // Another server was faster.
        Err(error)
            if [&SqlState::DUPLICATE_DATABASE, &SqlState::UNIQUE_VIOLATION]
                .contains(&error.code().unwrap_or(&SqlState::SUCCESSFUL_COMPLETION)) =>
        {
            Ok(())
        }
        other => other.map_err(|error| refusal(server, "make the database of", error)),
    }
}

/// Names the refusals that a person can do something about.
fn refusal(server: &Server, doing: &'static str, error: Error) -> DriverError {
    if tls::is_refusal(&error) {
        return link::refused(server, doing, Some(tls::HINT), error);
    }
    let state = error.code().cloned();
    let refused = match state.as_ref().map(SqlState::code) {
        // Classes and states of the SQL standard: login, rights, no such database.
        Some(code) if code.starts_with("28") => {
            Some("check user and password of the datastore endpoint, and pg_hba.conf there")
        }
        Some("42501") => Some("let this user own the database: ALTER DATABASE ... OWNER TO ..."),
        Some("3D000") => Some("make the database, or let this user make it (CREATEDB)"),
        _ => None,
    };
    if refused.is_some() {
        return link::refused(server, doing, refused, error);
    }
    let hint = match state {
        Some(s) if s == SqlState::DISK_FULL => Some("free some space on the database's disk"),
        Some(s) if s == SqlState::TOO_MANY_CONNECTIONS => Some("raise max_connections there"),
        None => Some("check that PostgreSQL runs there and that this board reaches it"),
        Some(_) => None,
    };
    remote(server, doing, hint, error)
}
