//! The API server in this process over a real store in a folder of its own.

#[path = "../../../testkit/src/config.rs"]
mod config;
mod corners;
mod delete;
mod harness;
mod list;
mod mutated;
mod protobuf;
mod views;
mod watch;
mod write;
