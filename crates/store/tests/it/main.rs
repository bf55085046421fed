//! One suite for every driver.

mod basics;
mod concurrent;
mod crash;
mod etcds;
mod faults;
mod full;
mod kill;
mod model;
mod process;
mod proxy;
mod recovery;
mod remote;
mod shared;
mod sqls;
mod support;
mod tls;
mod vfs;
