//! Several API servers over one datastore.

mod numbers;
mod presence;
mod reads;
