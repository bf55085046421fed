//! Snapshots: the whole cluster in one file, in a form that no engine owns.

pub mod age;
pub mod format;
