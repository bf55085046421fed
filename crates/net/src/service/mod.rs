//! The service proxy: services to endpoints, in nftables.

mod model;
mod proxy;

pub use model::{
    Endpoint, EndpointState, HostPort, Protocol, Service, ServiceModel, ServicePort, TrafficPolicy,
};
pub use proxy::{ProxyConfig, ProxyError, ServiceProxy};
