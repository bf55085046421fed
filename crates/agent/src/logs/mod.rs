//! Container logs: rotation, and reading them for `kubectl logs`.

pub mod rotate;
