//! Releases that live beside each other while a cluster is upgraded, and what a new one does at its
//! first start.

mod release;
mod skew;

pub use release::{Release, current};
pub use skew::{Skew, agent_of, server_beside};
