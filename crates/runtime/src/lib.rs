//! Images and OCI containers, and the shim that holds a pod. Knows nothing of Kubernetes.
//!
//! [`Runtime`] is the one trait that a caller sees, in CRI's vocabulary: a *sandbox* is what
//! the containers of a pod share (namespaces, cgroup, log folder), a *container* runs in it
//! from an *image*. `Native` implements it with one shim process per sandbox, libcontainer
//! and overlayfs; a containerd or CRI-O behind its socket would be a second implementation.
//!
//! The program that links this crate calls `shim::main` first thing when its first argument
//! is `shim::ARGUMENT`: shims are the same executable, entered without an async runtime.

pub mod container;
pub mod error;
pub mod image;
pub mod images;
pub mod memory;
pub mod native;
pub mod runtime;
pub mod sandbox;
mod seccomp;
pub mod session;
pub mod shim;

pub use container::{
    Capabilities, ContainerConfig, ContainerFilter, ContainerId, ContainerInfo, ContainerState,
    ContainerStatus, Device, Hugepage, Mount, Process, Propagation, Reason, Resources, Seccomp,
    Security, Stats, UserSpec,
};
pub use error::{Error, Result};
pub use image::{FsUsage, ImageId, ImageInfo, Progress, ProgressSink, RegistryAuth};
pub use native::{Native, NativeConfig, disk_usage};
pub use runtime::{Event, Runtime, RuntimeStatus, VersionInfo};
pub use sandbox::{
    SandboxConfig, SandboxFilter, SandboxId, SandboxInfo, SandboxState, SandboxStatus,
};
pub use session::{ExecOutput, ExecRequest, Input, Output, Session, SessionControl};
