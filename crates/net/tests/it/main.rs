//! The real thing: real sockets, and network namespaces that each test makes for itself.

mod boards;
mod dns;
mod keeper;
mod lab;
mod outage;
mod pods;
mod services;
mod vip;
