//! What this machine is called and where others reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::failure::{Failure, Hint, Outcome, While};

/// The host name in the form a node's name needs: lower case.
pub fn host_name() -> Outcome<String> {
    let name = nix::unistd::gethostname()
        .doing(|| "asking for the host name".into())
        .hint(|| "name this node with --node-name".into())?;
    Ok(name.to_string_lossy().trim().to_lowercase())
}

/// The address that the default route leaves from, or else the first one that is not loopback.
/// Asking the kernel for the route sends nothing.
///
/// `own` are the devices that we make ourselves: those of a board that runs pods already are there
/// also while it waits for an address from its network.
pub fn node_address(own: &[&str]) -> Outcome<IpAddr> {
    by_default_route().or_else(|| first_address(own)).ok_or_else(|| {
        Failure::new("this machine has no address but loopback")
            .hint("connect it to a network, or name an address with --node-ip")
    })
}

fn by_default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address kept for documentation (RFC 5737): connecting a datagram socket only looks up
    // the route.
    socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

fn first_address(own: &[&str]) -> Option<IpAddr> {
    getifaddrs()
        .ok()?
        .filter(|interface| {
            interface.flags.contains(InterfaceFlags::IFF_UP)
                && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
                && !own.contains(&interface.interface_name.as_str())
        })
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .map(IpAddr::from)
        .next()
}

/// True where an address of this machine is `wanted`.
pub fn is_local(wanted: IpAddr) -> bool {
    let Ok(mut interfaces) = getifaddrs() else { return false };
    interfaces.any(|interface| {
        interface.address.is_some_and(|address| match wanted {
            IpAddr::V4(ip) => address.as_sockaddr_in().is_some_and(|a| a.ip() == ip),
            IpAddr::V6(ip) => address.as_sockaddr_in6().is_some_and(|a| a.ip() == ip),
        })
    })
}
