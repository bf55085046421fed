//! What every crate may lean on: quantities, the clock and randomness seams, back-off, beats,
//! and the printing of error chains. Nothing here knows of Kubernetes objects or of I/O.

mod backoff;
mod beat;
mod chain;
mod clock;
pub mod names;
mod quantity;

pub use backoff::Backoff;
pub use beat::next_beat;
pub use chain::chain;
pub use clock::{Clock, ManualClock, SystemClock};
pub use quantity::{Quantity, QuantityError};
