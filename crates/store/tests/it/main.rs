//! One suite for every driver.

mod basics;
mod concurrent;
mod crash;
mod etcds;
mod full;
mod kill;
mod model;
mod process;
mod recovery;
mod remote;
mod sqls;
mod support;
mod vfs;
