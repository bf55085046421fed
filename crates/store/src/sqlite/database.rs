//! One SQLite file: its layout, how it is opened and checked, how rows go in and out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, ffi, params};
use sha2::{Digest, Sha256};

use crate::driver::Change;
use crate::local::Row;
use crate::{DriverError, Key, Options, Revision};

/// The layout this version writes (`user_version`).
const LAYOUT: i64 = 1;
/// Bytes of a page; a pod of 3 KiB and its row fit one.
const PAGE_BYTES: u64 = 4096;
/// A page in the log: the page and its header.
const FRAME_BYTES: u64 = PAGE_BYTES + 24;

/// Two tables of one shape: volatile rows stand together, so that a checkpoint of some
/// leases rewrites few pages. Rowid tables, since `WITHOUT ROWID` spreads a value of
/// 3 KiB over two pages. `sum` finds the damage that SQLite's own check cannot see.
const SCHEMA: &str = "
    CREATE TABLE object (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, namespace TEXT NOT NULL,
        name TEXT NOT NULL, created INTEGER NOT NULL, revision INTEGER NOT NULL,
        sum INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (collection, namespace, name));
    CREATE TABLE volatile (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, namespace TEXT NOT NULL,
        name TEXT NOT NULL, created INTEGER NOT NULL, revision INTEGER NOT NULL,
        sum INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (collection, namespace, name));
    CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 0), reserved INTEGER NOT NULL,
        clean INTEGER NOT NULL);
    INSERT INTO meta VALUES (0, 0, 1);
    PRAGMA user_version = 1;";

/// The statements of a table.
struct Table {
    put: &'static str,
    delete: &'static str,
    all: &'static str,
    collections: &'static str,
    take: &'static str,
    drop: &'static str,
}

macro_rules! table {
    ($name:literal, $other:literal) => {
        Table {
            put: concat!(
                "INSERT INTO ",
                $name,
                " (collection, namespace, name, created, revision, sum, value) ",
                "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (collection, namespace, name) ",
                "DO UPDATE SET created = ?4, revision = ?5, sum = ?6, value = ?7"
            ),
            delete: concat!(
                "DELETE FROM ",
                $name,
                " WHERE collection = ?1 AND namespace = ?2 AND name = ?3"
            ),
            all: concat!(
                "SELECT collection, namespace, name, created, revision, sum, value FROM ",
                $name
            ),
            collections: concat!("SELECT DISTINCT collection FROM ", $name),
            take: concat!(
                "INSERT INTO ",
                $other,
                " (collection, namespace, name, created, revision, sum, value) ",
                "SELECT collection, namespace, name, created, revision, sum, value FROM ",
                $name,
                " WHERE collection = ?1"
            ),
            drop: concat!("DELETE FROM ", $name, " WHERE collection = ?1"),
        }
    };
}

const OBJECT: Table = table!("object", "volatile");
const VOLATILE: Table = table!("volatile", "object");

/// What a database says of itself.
#[derive(Clone, Copy)]
pub(super) struct Meta {
    /// No revision handed out exceeds it.
    pub(super) reserved: Revision,
    /// Whether the store was closed.
    pub(super) clean: bool,
}

/// Why a database cannot be used.
pub(super) enum Trouble {
    /// Its contents are damaged, in a few words.
    Damaged(String),
    /// Something else, which another file would not help.
    Other(DriverError),
}

/// An open database.
pub(super) struct Database {
    path: PathBuf,
    connection: Connection,
    /// Pages in the log since it was last restarted, as SQLite reports after each commit.
    log_pages: Arc<AtomicU64>,
    seen_pages: u64,
    /// Pages in the log that were not brought over yet.
    pending_pages: u64,
    pub(super) fsyncs: u64,
    pub(super) bytes_written: u64,
}

impl Database {
    /// Opens or makes the database and checks all of it. An empty file is made into a new
    /// database only if nothing was ever stored here.
    pub(super) fn open(path: &Path, used: bool) -> Result<Self, Trouble> {
        if used && std::fs::metadata(path).map_or(0, |m| m.len()) == 0 {
            return Err(Trouble::Damaged("the file is missing or empty".into()));
        }
        let trouble = |e| trouble("open the database", path, e);
        let connection = connect(path, OpenFlags::default()).map_err(trouble)?;
        let mut database = Self {
            path: path.into(),
            connection,
            log_pages: Arc::default(),
            seen_pages: 0,
            pending_pages: 0,
            fsyncs: 0,
            bytes_written: 0,
        };
        let layout = database.set_up().map_err(trouble)?;
        if layout > LAYOUT {
            let error = DriverError::TooNew { path: path.into(), found: layout, known: LAYOUT };
            return Err(Trouble::Other(error));
        }
        if layout == 0 {
            if used {
                return Err(Trouble::Damaged("the file holds no objects table".into()));
            }
            database
                .connection
                .execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))
                .map_err(trouble)?;
        }
        check(&database.connection, path)?;
        Ok(database)
    }

    fn set_up(&mut self) -> rusqlite::Result<i64> {
        let c = &mut self.connection;
        c.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
        c.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        c.pragma_update(None, "synchronous", "full")?;
        c.set_prepared_statement_cache_capacity(16);
        // A hook of our own takes the place of SQLite's automatic checkpoint, which would
        // let the writer that happens to fill the log wait for it.
        let pages = self.log_pages.clone();
        c.wal_hook(Some(move |_: &mut _, n: std::ffi::c_int| {
            pages.store(u64::try_from(n).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        c.query_row("PRAGMA user_version", [], |r| r.get(0))
    }

    /// Reads a finished copy back and checks it.
    pub(super) fn check_copy(path: &Path) -> Result<(), DriverError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(path, flags);
        let connection = connection.map_err(|e| failure("open the copy", path, e))?;
        check(&connection, path).map_err(|trouble| match trouble {
            Trouble::Damaged(reason) => DriverError::BadCopy { path: path.into(), reason },
            Trouble::Other(error) => error,
        })
    }

    /// What a database says of itself, read on its own; for a damaged one, if that part of
    /// it can be read.
    pub(super) fn peek(path: &Path) -> Option<Meta> {
        read_meta(&evidence(path).ok()?).ok()
    }

    /// Takes over what a damaged database put aside still holds: every readable row that
    /// matches its checksum and is newer than ours. Gives how many there were.
    pub(super) fn salvage(&mut self, damaged: &Path) -> Result<usize, DriverError> {
        let mut found = Vec::new();
        for (table, volatile) in [(OBJECT, false), (VOLATILE, true)] {
            let visit = &mut |change: Change, sum: i64| {
                let Change { key, created, revision, value } = change;
                let matches =
                    sum_of(&key, created, revision, value.as_deref().unwrap_or_default()) == sum;
                if matches {
                    found.push(Row { key, created, revision, value, volatile });
                }
                true
            };
            // Where reading breaks off is where the damage begins: what came before it counts.
            if let Ok(connection) = evidence(damaged) {
                let _ = visit_rows(&connection, &table, visit);
            }
        }
        let mut ours = HashMap::new();
        self.load(&mut |change| {
            ours.insert(change.key, change.revision);
        })?;
        found.retain(|row| ours.get(&row.key).is_none_or(|&known| row.revision > known));
        self.commit(&found, None)?;
        Ok(found.len())
    }

    /// Reads what the database says of itself.
    pub(super) fn meta(&self) -> Result<Meta, DriverError> {
        read_meta(&self.connection).map_err(|e| failure("read the revision of", &self.path, e))
    }

    /// Moves collections whose class has changed to the table of their class.
    pub(super) fn sort(&mut self, options: &Options) -> Result<(), DriverError> {
        let sort = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for (table, volatile) in [(OBJECT, false), (VOLATILE, true)] {
                let collections: Vec<String> = transaction
                    .prepare(table.collections)?
                    .query_map([], |r| r.get(0))?
                    .collect::<Result<_, _>>()?;
                for name in collections.iter().filter(|c| options.is_volatile(c) != volatile) {
                    transaction.execute(table.take, [name])?;
                    transaction.execute(table.drop, [name])?;
                }
            }
            transaction.commit()
        };
        sort(&mut self.connection).map_err(|e| failure("sort the collections of", &self.path, e))
    }

    /// Brings up all rows.
    pub(super) fn load(&mut self, sink: &mut dyn FnMut(Change)) -> Result<(), DriverError> {
        for table in [OBJECT, VOLATILE] {
            let visit = &mut |change: Change, _| {
                sink(change);
                true
            };
            visit_rows(&self.connection, &table, visit)
                .map_err(|e| failure("load the objects of", &self.path, e))?;
        }
        Ok(())
    }

    /// Writes rows in one transaction; on return they are on the disk.
    pub(super) fn commit(&mut self, rows: &[Row], meta: Option<Meta>) -> Result<(), DriverError> {
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for row in rows {
                write_row(&transaction, row)?;
            }
            if let Some(Meta { reserved, clean }) = meta {
                let sql = "UPDATE meta SET reserved = ?1, clean = ?2";
                let parameters = params![reserved.cast_signed(), clean];
                transaction.prepare_cached(sql)?.execute(parameters)?;
            }
            transaction.commit()
        };
        write(&mut self.connection).map_err(|e| failure("commit to", &self.path, e))?;
        self.account();
        Ok(())
    }

    /// Counts what the last commit has added to the log.
    fn account(&mut self) {
        let pages = self.log_pages.load(Ordering::Relaxed);
        let restarted = pages < self.seen_pages;
        let added = if restarted { pages } else { pages - self.seen_pages };
        self.seen_pages = pages;
        self.pending_pages = if restarted { added } else { self.pending_pages + added };
        self.bytes_written += added * FRAME_BYTES;
        self.fsyncs += 1;
    }

    /// Whether the log is long enough to be brought over into the database.
    pub(super) fn is_log_full(&self, max_pages: u64) -> bool {
        self.pending_pages >= max_pages
    }

    /// Brings the log over into the database, so that it can start from its beginning.
    pub(super) fn shorten_log(&mut self) -> Result<(), DriverError> {
        let read = |r: &rusqlite::Row<'_>| r.get::<_, i64>(2);
        // Also after a failure the next try waits for more pages: no busy loop on a bad disk.
        let pending = std::mem::take(&mut self.pending_pages);
        let done = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], read);
        let done = done.map_err(|e| failure("shorten the log of", &self.path, e))?;
        // A page that changed often is brought over once, so this is an upper bound.
        self.bytes_written += pending.min(done.unsigned_abs()) * PAGE_BYTES;
        self.fsyncs += 2;
        Ok(())
    }

    /// Closes the file; SQLite brings the log over and removes it.
    pub(super) fn close(self) -> Result<(), DriverError> {
        let Self { connection, path, .. } = self;
        connection.close().map_err(|(_, e)| failure("close", &path, e))
    }
}

/// Opens a connection that shares the log's index with the others of this process in memory.
/// Elsewhere it would be a mapped file, whose pages the kernel writes out after each commit.
pub(super) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    Connection::open_with_flags_and_vfs(path, flags, c"unix-excl")
}

/// Opens a damaged database so that closing it changes nothing.
fn evidence(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn read_meta(connection: &Connection) -> rusqlite::Result<Meta> {
    let read = |r: &rusqlite::Row<'_>| {
        Ok(Meta { reserved: r.get::<_, i64>(0)?.cast_unsigned(), clean: r.get(1)? })
    };
    connection.query_row("SELECT reserved, clean FROM meta", [], read)
}

/// Checks the file's structure and every row's sum.
fn check(connection: &Connection, path: &Path) -> Result<(), Trouble> {
    let trouble = |e| trouble("check the database", path, e);
    let found: String =
        connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(trouble)?;
    if found != "ok" {
        return Err(Trouble::Damaged(found.trim().replace('\n', ", ")));
    }
    for table in [OBJECT, VOLATILE] {
        let mut bad = None;
        let visit = &mut |change: Change, sum: i64| {
            let value = change.value.as_deref().unwrap_or_default();
            if sum_of(&change.key, change.created, change.revision, value) != sum {
                bad = Some(change.key);
            }
            bad.is_none()
        };
        visit_rows(connection, &table, visit).map_err(trouble)?;
        if let Some(key) = bad {
            return Err(Trouble::Damaged(format!("{key} does not match its checksum")));
        }
    }
    read_meta(connection).map_err(|_| Trouble::Damaged("the revision is missing".into()))?;
    Ok(())
}

/// Visits the rows of a table with their sums, until told to stop.
fn visit_rows(
    connection: &Connection,
    table: &Table,
    visit: &mut dyn FnMut(Change, i64) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(table.all)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |i| Ok::<Arc<str>, rusqlite::Error>(row.get_ref(i)?.as_str()?.into());
        let number = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
        let key = Key { collection: text(0)?, namespace: text(1)?, name: text(2)? };
        let value = row.get_ref(6)?.as_blob()?.to_vec();
        let (created, revision) = (number(3)?, number(4)?);
        if !visit(Change { key, created, revision, value: Some(value.into()) }, row.get(5)?) {
            break;
        }
    }
    Ok(())
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
            sum_of(&row.key, row.created, row.revision, value),
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

/// The first eight bytes of SHA-256 over a row; the parts' lengths keep them apart.
fn sum_of(key: &Key, created: Revision, revision: Revision, value: &[u8]) -> i64 {
    let mut hash = Sha256::new();
    for part in [&*key.collection, &*key.namespace, &*key.name] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(created.to_le_bytes());
    hash.update(revision.to_le_bytes());
    hash.update(value);
    let digest: [u8; 32] = hash.finalize().into();
    digest[..8].iter().fold(0, |sum, &byte| sum << 8 | i64::from(byte))
}

/// Names the failures that a person can do something about.
pub(super) fn failure(doing: &'static str, path: &Path, source: rusqlite::Error) -> DriverError {
    let path = path.into();
    let extended = source.sqlite_error().map_or(0, |e| e.extended_code);
    match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => DriverError::Full { path },
        // The log's shared index could not grow, which only a full disk refuses.
        _ if extended == ffi::SQLITE_IOERR_SHMSIZE => DriverError::Full { path },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            DriverError::Unwritable { path, source: Box::new(source) }
        }
        _ => DriverError::Sqlite { doing, path, source },
    }
}

/// Tells damage from the rest: an unreadable sector counts as damage, a refused write not.
fn trouble(doing: &'static str, path: &Path, source: rusqlite::Error) -> Trouble {
    let unreadable = [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_DATA];
    let extended = source.sqlite_error().map_or(0, |e| e.extended_code);
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Trouble::Damaged(source.to_string())
        }
        _ if unreadable.contains(&extended) => Trouble::Damaged(source.to_string()),
        // The check found a column of another type, which nobody but damage puts there.
        None => Trouble::Damaged(source.to_string()),
        _ => Trouble::Other(failure(doing, path, source)),
    }
}
