//! Container logs: finding their files, and reading them for `kubectl logs`.

pub mod line;
pub mod read;
pub mod rotate;
