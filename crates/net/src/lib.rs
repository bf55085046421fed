//! Pod network, service proxy and DNS in the kernel's own terms. Knows nothing of Kubernetes.
//!
//! Four doors, each taking a plain model and carrying out the difference to what is loaded:
//!
//! - [`PodNetwork`] gives a network namespace its interface and address and keeps the routes to
//!   other boards;
//! - [`ServiceProxy`] turns a whole [`ServiceModel`] into one nftables transaction;
//! - [`Dns`] answers for the cluster's zone from a [`Zone`] and forwards the rest;
//! - [`vip::run`] keeps an address on one board of several.
//!
//! What is to be done is computed by pure functions (`pod::plan`, `service::plan`, `dns::answer`)
//! and can be printed; `linux` carries it out through netlink. Every socket is opened in the
//! network namespace of the calling thread, so several instances run side by side on one machine.

mod cidr;
pub mod dns;
mod firewall;
mod linux;
pub mod pod;
pub mod service;
pub mod vip;

pub use cidr::{Cidr, CidrParseError};
pub use dns::{Dns, DnsConfig, DnsError, Upstreams, Zone};
pub use linux::address::{AddressError, ServiceAddress};
pub use linux::disturbances::Disturbances;
pub use linux::outage::{LONGEST as LONGEST_OUTAGE, MAX_PORTS as MAX_OUTAGE_PORTS, Outage};
pub use linux::traffic::{Counts, Traffic};
pub use pod::{
    Attachment, Backend, POD_INTERFACE, Peer, PodNetwork, PodNetworkConfig, PodNetworkError,
    VxlanConfig,
};
pub use service::{
    Endpoint, EndpointState, HostPort, Protocol, ProxyConfig, ProxyError, Service, ServiceModel,
    ServicePort, ServiceProxy, TrafficPolicy,
};
pub use vip::{VipAddress, VipConfig, VipError, VipStatus};
