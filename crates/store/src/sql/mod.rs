//! SQL servers that several of us share.

mod driver;
mod link;
mod mysql;
mod postgres;
mod server;
mod tls;

pub use server::{DEFAULT_DATABASE, Encryption, Server};

/// The driver for PostgreSQL.
pub type Postgres = driver::Sql<postgres::PostgresLink>;

/// The driver for MySQL and MariaDB.
pub type Mysql = driver::Sql<mysql::MysqlLink>;
