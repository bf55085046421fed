//! Pods of this node: what they shall be, what they are, what to do next.

pub mod admission;
pub mod conditions;
pub mod env;
mod env_file;
pub mod expand;
pub mod fields;
pub mod hosts;
pub mod plan;
pub mod preemption;
pub mod qos;
pub mod resize;
pub mod resizing;
pub mod resources;
pub mod restart;
pub mod security;
pub mod status;
pub mod view;
