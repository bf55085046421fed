//! Carrying plans out, through netlink.

pub(crate) mod address;
pub(crate) mod disturbances;
pub(crate) mod firewall;
mod ground;
pub(crate) mod links;
mod lower;
pub(crate) mod outage;
pub(crate) mod traffic;
pub(crate) mod tunnel;

/// What nlink reports, as the one error type that our own errors carry as their source.
pub(crate) fn os_error(error: nlink::Error) -> std::io::Error {
    let kind = error.errno().map_or(std::io::ErrorKind::Other, |errno| {
        std::io::Error::from_raw_os_error(errno.abs()).kind()
    });
    std::io::Error::new(kind, error)
}
