//! A stack of boards from one file, `cluster.yaml`: what it will be (`plan`), cards and sticks for it
//! (`image`), whether its boards are fit (`check`), and bringing it up over SSH (`up`). Decisions are
//! pure functions over [`config::Cluster`] and what was found on the boards; what touches a board or an
//! image file stands at the edge.

pub mod board;
pub mod check;
pub mod config;
pub mod discover;
pub mod facts;
pub mod hardware;
pub mod image;
pub mod init;
pub mod nearest;
pub mod plan;
pub mod program;
pub mod router;
pub mod ssh;
mod trouble;
pub mod up;

pub use trouble::Trouble;
