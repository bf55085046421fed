//! SQL servers that several of us share.

mod mysql;
mod postgres;
mod server;

pub use mysql::Mysql;
pub use postgres::Postgres;
pub use server::{DEFAULT_DATABASE, Encryption, Server};
