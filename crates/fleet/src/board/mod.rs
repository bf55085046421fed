//! What a board needs, as data: files with their content, packages, flags of the kernel. Pure; `up`
//! brings a board there over SSH, and `image` writes the same into an image.

pub mod cmdline;
mod config;
mod desired;
mod file;
pub mod fstab;
pub mod hosts;
pub mod paths;
pub mod unit;

pub use config::{Keys, changed_keys, config, read_config, render_config};
pub use desired::{Desired, Joining, Service, desired, packages};
pub use file::{After, File};
