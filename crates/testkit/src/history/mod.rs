//! What clients saw of a cluster while it was in trouble, and whether a correct one could have
//! shown them that.
//!
//! A [`Workload`] writes, reads, lists and watches ConfigMaps through several servers at once and
//! notes every call with the times at which it began and ended: a [`History`]. [`judge`] is a pure
//! function over it. It asks what Jepsen's tests of etcd ask: no acknowledged write is lost,
//! compare-and-swap is linear for each object, revisions grow in the order of acknowledgement, and
//! every watch is ordered and free of gaps. A call whose answer never came may have happened or
//! not, at any time after it began.
//!
//! The general search (`register`) does not lean on watches, the rules over revisions
//! (`revisions`, `watches`) do: what one is blind to the other sees.

mod caller;
mod follow;
mod record;
mod register;
mod revisions;
mod verdict;
mod watches;
mod workload;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod text;

pub use record::{Call, Change, Event, History, Listing, Operation, Outcome, Segment, Stored};
pub use verdict::{Violation, judge};
pub use workload::{Run, Workload, WorkloadError};
