//! One suite for every driver.

mod basics;
mod concurrent;
mod crash;
mod model;
mod recovery;
mod support;
mod vfs;
