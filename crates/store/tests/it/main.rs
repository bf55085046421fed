//! One suite for every driver.

mod basics;
mod support;
