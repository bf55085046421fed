//! Several boards on one machine, for people who try things out and for tests of many boards:
//! each board is a set of namespaces held by a small process that is its init, all boards are
//! joined by a bridge in a namespace of its own, and trouble is made where it happens in a rack:
//! at the plug, at the cable, at the clock, at the disk.
//!
//! Nothing here knows what a board runs: the caller names the command and writes its
//! configuration. Everything that a sandbox is made of is either a process whose end takes it
//! along (namespaces, links, mounts) or lies in the sandbox's folder or control groups, so that
//! taking it down needs no record of what was made. Containers were turned down as boards: a
//! board runs containers itself, and a laptop may have no engine for them.

mod cgroup;
mod clock;
mod enter;
mod error;
mod fault;
mod init;
mod network;
mod plan;
mod process;
mod root;
mod rules;
mod run;
mod state;
mod wire;

pub use error::Error;
pub use fault::{Cut, Faults, Wire, parse_duration_ms, parse_loss};
pub use init::ARGUMENT as INIT_ARGUMENT;
pub use init::main as init_main;
pub use plan::{Board, Options, Plan, Role};
pub use process::Stop;
pub use run::Sandbox;
pub use state::{BASE_FOLDER, list};
pub use wire::ARGUMENT as WIRE_ARGUMENT;
pub use wire::main as wire_main;
