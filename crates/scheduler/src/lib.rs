//! Filter and score over an immutable snapshot, and a thin binder.
