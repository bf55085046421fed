//! The project's own checks and builds.

fn main() {}
