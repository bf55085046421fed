//! Images and OCI containers, and the shim that holds a pod. Knows nothing of Kubernetes.
