//! Cluster DNS: answers for the cluster's own zone, forwards the rest.

mod server;
mod zone;

pub use server::{Dns, DnsConfig, DnsError, Upstreams};
pub use zone::{Zone, ZoneEndpoint, ZonePort, ZoneService, ZoneTarget};
