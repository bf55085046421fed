//! `cluster.yaml`: what a stack of boards should be. The file is the only state that there is beside
//! what the boards hold; secrets stand elsewhere and are named here ([`Secret`]).
//!
//! A file is read in three steps: into a tree that knows the line of every value (`document`), by
//! the JSON schema into what serde can decode (`shape`), and past the rules that no schema can say
//! (`rules`). Each goes on after what it finds, so that a person sees all of it at once.

mod cluster;
mod document;
mod model;
mod problem;
mod rules;
mod secret;
mod shape;
mod syntax;
#[cfg(test)]
mod tests;

pub use cluster::SCHEMA;
pub use model::*;
pub use problem::{Problem, Problems, Spot};
pub use rules::{DECIDED, DEFAULT_PODS, DEFAULT_SERVICES, Flags, Refuses};
pub use secret::{Hidden, SecretError};
pub(crate) use syntax::dns_label;
pub use syntax::{bytes, mac};
