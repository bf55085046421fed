//! Cards and sticks: a stock image of Raspberry Pi OS, Debian or Ubuntu becomes one for a board.
//!
//! [`Layout`] is what an image has, [`changes()`] decides what is to be different (pure), [`Source::prepare`] puts
//! that into a copy and reads it back, [`device`] writes it to a card, and [`first_start`] is what is left
//! for the board itself. Neither root nor a loop device is needed for all but the card: partition
//! tables are read here, FAT is written by a crate, ext4 by e2fsprogs' `debugfs`, and all of it is read
//! back by a reader that none of these has a part in.

mod apply;
mod change;
mod changes;
mod copy;
pub mod device;
mod error;
mod ext;
mod files;
pub mod first_start;
mod given;
mod ioctl;
mod layout;
mod prepare;
mod table;
mod volume;
mod window;

pub use change::{Change, Content, Owner};
pub use changes::{Given, Ip, Plan, Radio, changes, connecting, fixed, fixing, wireless_files};
pub use copy::Packing;
pub use error::{Doing, ImageError};
pub use files::{Files, Node};
pub use layout::Layout;
pub use prepare::Source;
pub use table::{Partition, Table};
