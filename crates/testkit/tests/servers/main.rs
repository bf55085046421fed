//! Several API servers over one datastore.

mod reads;
