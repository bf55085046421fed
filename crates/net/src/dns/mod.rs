//! Cluster DNS: answers for the cluster's own zone, forwards the rest.
//!
//! Names and records follow the Kubernetes specification "DNS-Based Service Discovery" 1.1.0 and,
//! where it is silent, CoreDNS's `kubernetes` plugin with `pods insecure` and TTL 5.

//!
//! [`hold`] is a process of its own that answers, and [`Keeper`] the side that knows the names:
//! pods must be able to ask while whoever watches the cluster is away.

mod answer;
mod cache;
mod forward;
mod handler;
mod holder;
mod keeper;
mod protocol;
mod serve;
mod server;
mod sockets;
mod wire;
mod zone;

pub use holder::hold;
pub use keeper::{Keeper, KeeperConfig, KeeperError, Launch, Others};
pub use protocol::{Level, Report};
pub use server::{Dns, DnsConfig, DnsError, Upstreams};
pub use zone::{Names, Zone, ZoneEndpoint, ZonePort, ZoneService, ZoneTarget};
