//! One suite for every driver.

mod basics;
mod concurrent;
mod model;
mod recovery;
mod support;
