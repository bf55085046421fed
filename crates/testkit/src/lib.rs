//! In-process cluster, fake node, seeded faults, tiny OCI images. Tests only.
