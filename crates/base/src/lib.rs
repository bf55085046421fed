//! What every crate may lean on: quantities, the clock and randomness seams, back-off, beats, the
//! printing of error chains, and small files that outlive power cuts. Nothing here knows of
//! Kubernetes objects.

mod backoff;
mod beat;
mod chain;
mod clock;
pub mod files;
mod hides;
pub mod kept;
pub mod names;
mod quantity;

pub use backoff::Backoff;
pub use beat::next_beat;
pub use chain::chain;
pub use clock::{Clock, ManualClock, SystemClock};
pub use quantity::{Quantity, QuantityError};
