//! How controllers, the scheduler and the agent reach the API: `kube`'s client over the API
//! server's own service in the same process or over HTTPS, one shared cache per kind for the
//! whole process, and the work queue that every reconciler stands on.
//!
//! kube-runtime's `Controller` was turned down: it owns a reflector per controller, where all of
//! ours share one per kind, and its scheduler keeps a task per object.

mod balance;
mod informer;
pub mod leader;
mod pod;
mod queue;
mod recorder;
mod slim;
mod transport;
mod unread;

pub use balance::{BalanceError, Balancer, ReachError};
pub use informer::{Cache, Change, Informer, Informers, Key, Object};
pub use pod::Pod;
pub use queue::{Outcome, Queue};
pub use recorder::{Kind as EventKind, Recorder};
pub use transport::{HttpsConfig, TransportError, https, in_process, message};
