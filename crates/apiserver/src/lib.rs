//! Requests to objects: the Kubernetes API over the store.
