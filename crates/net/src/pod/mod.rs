//! The pod network of one board: a bridge, a veth pair per pod, addresses that survive restarts,
//! routes to the other boards. Boards on one switch are reached by plain routes; a tunnel for
//! those beyond would be one more way of carrying out [`PodNetwork::set_peers`].

mod addresses;
mod network;
mod plan;
mod state;

pub use network::{Attachment, Peer, PodNetwork, PodNetworkConfig, PodNetworkError};
