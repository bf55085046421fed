//! The image store: what is here, in layers that overlayfs mounts as they are.
//!
//! Layers are unpacked while they arrive and shared by chain id; the compressed form is never
//! written, which halves what a pull costs a memory card. Manifests and configurations are kept
//! as blobs by digest. `index.json` says which images there are; it is replaced atomically and
//! last, so a pull cut short leaves nothing but folders that the next collection removes.

mod archive;
mod config;
mod hello;
mod pull;
mod reference;
mod registries;
mod store;
pub(crate) mod unpack;

pub use config::{ImageConfig, RunConfig};
pub use hello::{HELLO_REFERENCE, hello_archive};
pub use reference::Reference;
pub use registries::Registries;
pub use store::{Image, Store, Used};
