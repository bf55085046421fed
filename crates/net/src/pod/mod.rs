//! The pod network of one board: a bridge, a veth pair per pod, addresses that survive restarts,
//! routes to the other boards, through a tunnel to those beyond a router.

mod addresses;
mod network;
mod peers;
mod plan;
mod state;

pub use network::{Attachment, Peer, PodNetwork, PodNetworkConfig, PodNetworkError};
pub(crate) use peers::Ground;
pub use peers::{Backend, VxlanConfig};
pub use plan::POD_INTERFACE;
