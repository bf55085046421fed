//! One suite for every driver.

mod basics;
mod concurrent;
mod crash;
mod full;
mod kill;
mod model;
mod recovery;
mod remote;
mod support;
mod vfs;
