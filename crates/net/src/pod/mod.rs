//! The pod network of one board: a bridge, a veth pair per pod, addresses that survive restarts,
//! routes to the other boards.

mod network;

pub use network::{Attachment, Peer, PodNetwork, PodNetworkConfig, PodNetworkError};
