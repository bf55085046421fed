//! The real thing: real sockets, and network namespaces that each test makes for itself.

mod dns;
mod lab;
mod pods;
mod services;
