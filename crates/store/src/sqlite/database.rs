//! One SQLite file: its layout, how it is opened, and how rows go in and out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};

use crate::driver::Change;
use crate::local::Row;
use crate::{DriverError, Key, Revision};

/// The layout this version writes (`user_version`).
const LAYOUT: i64 = 1;

/// Two tables of one shape: volatile rows stand together, so that a checkpoint of some
/// leases rewrites few pages. Rowid tables, since a value of 3 KiB then fits one page.
const SCHEMA: &str = "
    CREATE TABLE object (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, namespace TEXT NOT NULL,
        name TEXT NOT NULL, created INTEGER NOT NULL, revision INTEGER NOT NULL,
        value BLOB NOT NULL, UNIQUE (collection, namespace, name));
    CREATE TABLE volatile (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, namespace TEXT NOT NULL,
        name TEXT NOT NULL, created INTEGER NOT NULL, revision INTEGER NOT NULL,
        value BLOB NOT NULL, UNIQUE (collection, namespace, name));
    CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 0), reserved INTEGER NOT NULL,
        clean INTEGER NOT NULL);
    INSERT INTO meta VALUES (0, 0, 1);
    PRAGMA user_version = 1;";

/// A table's name and its statements.
struct Table {
    put: &'static str,
    delete: &'static str,
    all: &'static str,
}

macro_rules! table {
    ($name:literal) => {
        Table {
            put: concat!(
                "INSERT INTO ",
                $name,
                " (collection, namespace, name, created, revision, value) ",
                "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (collection, namespace, name) ",
                "DO UPDATE SET created = ?4, revision = ?5, value = ?6"
            ),
            delete: concat!(
                "DELETE FROM ",
                $name,
                " WHERE collection = ?1 AND namespace = ?2 AND name = ?3"
            ),
            all: concat!(
                "SELECT collection, namespace, name, created, revision, value FROM ",
                $name
            ),
        }
    };
}

const OBJECT: Table = table!("object");
const VOLATILE: Table = table!("volatile");

/// What a database says of itself.
pub(super) struct Meta {
    pub(super) reserved: Revision,
    pub(super) clean: bool,
}

/// An open database.
pub(super) struct Database {
    path: PathBuf,
    connection: Connection,
}

impl Database {
    /// Opens or makes the database.
    pub(super) fn open(path: &Path) -> Result<Self, DriverError> {
        let connection =
            Connection::open(path).map_err(|e| failure("open the database", path, e))?;
        let mut database = Self { path: path.into(), connection };
        database.set_up().map_err(|e| failure("set up the database", path, e))?;
        let found = database.layout()?;
        if found > LAYOUT {
            return Err(DriverError::TooNew { path: path.into(), found, known: LAYOUT });
        }
        Ok(database)
    }

    fn set_up(&mut self) -> rusqlite::Result<()> {
        let c = &mut self.connection;
        c.pragma_update(None, "page_size", 4096)?;
        c.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        c.pragma_update(None, "synchronous", "full")?;
        c.set_prepared_statement_cache_capacity(16);
        let layout: i64 = c.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if layout == 0 {
            let t = c.transaction()?;
            t.execute_batch(SCHEMA)?;
            t.commit()?;
        }
        Ok(())
    }

    fn layout(&self) -> Result<i64, DriverError> {
        let layout = self.connection.query_row("PRAGMA user_version", [], |r| r.get(0));
        layout.map_err(|e| self.failure("read the layout", e))
    }

    /// Reads what the database says of itself.
    pub(super) fn meta(&self) -> Result<Meta, DriverError> {
        let read = |r: &rusqlite::Row<'_>| {
            Ok(Meta { reserved: r.get::<_, i64>(0)?.cast_unsigned(), clean: r.get(1)? })
        };
        let meta = self.connection.query_row("SELECT reserved, clean FROM meta", [], read);
        let meta = meta.optional().map_err(|e| self.failure("read the revision", e))?;
        Ok(meta.unwrap_or(Meta { reserved: 0, clean: false }))
    }

    /// Brings up all rows.
    pub(super) fn load(&mut self, sink: &mut dyn FnMut(Change)) -> Result<(), DriverError> {
        for table in [OBJECT, VOLATILE] {
            self.load_table(&table, sink).map_err(|e| self.failure("load the objects", e))?;
        }
        Ok(())
    }

    fn load_table(&self, table: &Table, sink: &mut dyn FnMut(Change)) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(table.all)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = |i| Ok::<Arc<str>, rusqlite::Error>(row.get_ref(i)?.as_str()?.into());
            let key = Key { collection: text(0)?, namespace: text(1)?, name: text(2)? };
            let value = row.get_ref(5)?.as_blob()?.to_vec();
            let number = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
            let (created, revision) = (number(3)?, number(4)?);
            sink(Change { key, created, revision, value: Some(value.into()) });
        }
        Ok(())
    }

    /// Writes rows in one transaction; on return they are on the disk.
    pub(super) fn commit(
        &mut self,
        rows: &[Row],
        reserved: Option<Revision>,
        clean: bool,
    ) -> Result<(), DriverError> {
        let path = &self.path;
        let write = || {
            let transaction = self.connection.transaction()?;
            for row in rows {
                write_row(&transaction, row)?;
            }
            if let Some(reserved) = reserved {
                let sql = "UPDATE meta SET reserved = ?1, clean = ?2";
                transaction.prepare_cached(sql)?.execute(params![reserved.cast_signed(), clean])?;
            }
            transaction.commit()
        };
        let mut write = write;
        write().map_err(|e| failure("commit", path, e))
    }

    fn failure(&self, doing: &'static str, source: rusqlite::Error) -> DriverError {
        failure(doing, &self.path, source)
    }
}

fn write_row(transaction: &Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
    let table = if row.volatile { VOLATILE } else { OBJECT };
    let Key { collection, namespace, name } = &row.key;
    match &row.value {
        Some(value) => transaction.prepare_cached(table.put)?.execute(params![
            &**collection,
            &**namespace,
            &**name,
            row.created.cast_signed(),
            row.revision.cast_signed(),
            &**value
        ])?,
        None => transaction.prepare_cached(table.delete)?.execute(params![
            &**collection,
            &**namespace,
            &**name
        ])?,
    };
    Ok(())
}

/// Names the two failures a person can do something about.
fn failure(doing: &'static str, path: &Path, source: rusqlite::Error) -> DriverError {
    let path = path.into();
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => DriverError::Full { path },
        _ => DriverError::Sqlite { doing, path, source },
    }
}
