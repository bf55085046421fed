//! Many boards: the sandbox itself, then what a cluster of several boards must stand.

pub mod across;
mod faults;
mod input;
mod keys;
pub mod power;
mod rolling;
mod sandbox;
mod servers;
pub mod story;
mod trouble;
