//! Pod network, service proxy and DNS in the kernel's own terms. Knows nothing of Kubernetes.
