//! Carrying plans out, through netlink.

pub(crate) mod address;
