//! What each command does.

pub mod agent;
pub mod datastore;
pub mod image;
pub mod install;
pub mod kubeconfig;
pub mod sandbox;
pub mod snapshot;
