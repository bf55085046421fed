//! What a cluster can hold: the table of resources, schemas, defaulting, validation, patches. Pure functions.

pub mod apply;
#[cfg(test)]
mod arbitrary;
pub mod convert;
pub mod custom;
mod member;
pub mod openapi;
pub mod patch;
pub mod placement;
pub mod protobuf;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod sysctl;
pub mod table;
