//! Cluster DNS: answers for the cluster's own zone, forwards the rest.
//!
//! Names and records follow the Kubernetes specification "DNS-Based Service Discovery" 1.1.0 and,
//! where it is silent, CoreDNS's `kubernetes` plugin with `pods insecure` and TTL 5.

mod answer;
mod cache;
mod forward;
mod handler;
mod server;
mod zone;

pub use server::{Dns, DnsConfig, DnsError, Upstreams};
pub use zone::{Zone, ZoneEndpoint, ZonePort, ZoneService, ZoneTarget};
