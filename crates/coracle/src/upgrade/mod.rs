//! Releases that live beside each other while a cluster is upgraded, and what a new one does at its
//! first start.

mod note;
mod release;
mod skew;
mod start;

pub use release::{Release, current};
pub use skew::{agent_of, server_beside};
pub use start::{first_start, order};
