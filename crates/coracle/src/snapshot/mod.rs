//! Snapshots: the whole cluster in one file, in a form that no engine owns.
//!
//! A snapshot is the store's dump at one revision. The cluster's keys are in it as the datastore
//! holds them, sealed with the server token; where the file is encrypted with a passphrase, the
//! token is in it too, so that the passphrase alone brings the cluster back.

mod age;
mod desk;
mod folder;
mod format;
mod names;
mod options;
mod restore;
mod retention;
mod s3;
mod schedule;
mod take;

pub use desk::{Desk, PATH, Refusal};
pub use folder::{Folder, check};
pub use format::Reason;
pub use names::{Listed, PRE_UPGRADE, of_present, prefix};
pub use options::{Places, S3Options, ScheduleOptions};
pub use restore::{may_replace, must_be_whole, read, restore};
pub use s3::Storage;
pub use schedule::{Plan, Tally, keep, prune};
pub use take::{Order, Saved, Source, take};
