//! Many boards: the sandbox itself, then what a cluster of several boards must stand.

mod across;
mod faults;
mod input;
mod keys;
mod power;
mod rolling;
mod sandbox;
mod servers;
mod story;
mod trouble;
