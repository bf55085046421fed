//! Boards over SSH, by the `ssh` of this machine: its agent, its configuration, its known hosts and
//! jump hosts are the person's own and work as they are used to. An SSH library of our own was turned
//! down: it would know none of them, and take 2 MB of the binary.
//!
//! What runs on a board comes over standard input, never in arguments, which everybody on the board
//! may read; so does the password of sudo.

mod error;
mod folder;
mod remote;
mod system;
mod target;

pub use error::{Refusal, SshError};
pub use remote::{Answer, Remote, Work};
pub use system::System;
pub(crate) use system::quoted;
pub use target::{Become, Target};
