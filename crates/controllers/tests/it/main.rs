//! Controllers and scheduler together, against the real API server in this process.

mod apps;
mod boards;
mod harness;
mod jobs;
mod nodes;
mod scheduling;
mod statefulsets;
