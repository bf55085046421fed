//! The service proxy: services to endpoints, in nftables.

mod flows;
mod model;
mod plan;
mod proxy;

pub use model::{
    Endpoint, EndpointState, HostPort, Protocol, Service, ServiceModel, ServicePort, TrafficPolicy,
};
pub use proxy::{ProxyConfig, ProxyError, ServiceProxy};
