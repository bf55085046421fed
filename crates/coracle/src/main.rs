//! The binary: command line, configuration, wiring, start and stop in order.

fn main() {}
