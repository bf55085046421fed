//! A stack of boards from one file: from bare Debian to a cluster, over real SSH.

mod disk;
mod figures;
mod interrupted;
mod refused;
mod router;
mod servers;
mod stack;
mod up;
