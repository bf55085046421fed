//! Typed client, shared caches and work queue, in process or over HTTPS.
