//! `cluster.yaml`: what a stack of boards should be. The file is the only state that there is beside
//! what the boards hold; secrets stand elsewhere and are named here ([`Secret`]).

mod model;

pub use model::*;
