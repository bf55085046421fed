//! What each command does.

pub mod image;
pub mod install;
pub mod kubeconfig;
pub mod sandbox;
pub mod snapshot;
