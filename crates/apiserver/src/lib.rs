//! Requests to objects: the Kubernetes API over the store.
//!
//! A request becomes a [`RequestInfo`], is authenticated, impersonated, limited and authorized
//! in `chain`, and is then answered by one of: the generic verbs (`registry`), the virtual
//! review kinds, the kubelet proxies, discovery, OpenAPI, health or metrics. There is no
//! hand-written router per kind: what differs between kinds is data in `api::resource`.

mod access;
mod admission;
mod aggregation;
mod audit;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod bootstrap_token;
mod cached;
mod chain;
mod compaction;
mod compress;
mod config;
mod definitions;
mod discovery;
mod endpoints;
mod feed;
mod flow;
mod fresh;
mod health;
mod keeper;
mod metrics;
mod notes;
mod objects;
mod openapi;
mod outside;
mod parsed;
mod policy_status;
mod presence;
mod proxy;
mod quota;
mod registry;
mod request;
mod response;
mod reviews;
mod route;
mod serve;
mod server;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;
mod token_request;
mod user;
mod waiting;
mod webhook;

pub use access::{Access, FrontProxy};
pub use admission::AdmissionPlugins;
pub use audit::{AuditOptions, EventServerOptions, LogOptions, Policy};
pub use authn::{
    Anonymous, AuthenticationConfiguration, ClaimRule, ExtraMapping, Issuer, JwtAuthenticator,
    Mapping, Mappings, PathCondition, StaticTokens, UserRule,
};
pub use authz::{AuthorizerOptions, Authorizers, Selectors};
pub use bootstrap::BootstrapError;
pub use config::{Config, KubeletClient, Limits, ServiceAccountConfig, Tolerations, Version};
pub use metrics::{MetricKind, MetricsPage};
pub use outside::{Caller, Outside};
pub use presence::Presence;
pub use registry::JsonCodec;
pub use request::{Body, BoxError, Request, RequestInfo, Response};
pub use serve::Front;
pub use server::{ApiServer, InProcess, NewError};
pub use user::User;
pub use webhook::authorization::AuthorizationWebhookOptions;
pub use webhook::remote::RemoteConfig;
pub use webhook::token::TokenWebhookOptions;
