//! The stage: a board in a network namespace of its own, a client beside it, the real kubectl.
//!
//! ```text
//!  client 192.0.2.2 --- 192.0.2.1 board: coracle server, its pods, a registry on 127.0.0.1
//! ```
//!
//! All that a board makes on the machine (processes, mounts, cgroups, namespaces, folders) goes
//! with the value, also when a test panics.

mod board;
mod boards;
mod cleanup;
mod http;
mod image;
mod kubectl;
mod machine;
mod member;
mod netns;
mod registry;
mod stack;
mod wait;

pub use board::{BOARD_ADDRESS, Board, SHELL, coracle, tools};
pub use boards::{Boards, RECOVERY};
pub use cleanup::pids_with;
pub use http::get;
pub use image::{Image, busybox};
pub use kubectl::{Kubectl, Run, both};
pub use machine::Machine;
pub use member::Member;
pub use netns::Netns;
pub use registry::Registry;
pub use stack::Stack;
pub use wait::{eventually, eventually_some, within};
