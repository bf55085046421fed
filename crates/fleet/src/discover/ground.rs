use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use crate::Trouble;

/// The network that this machine is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// The interface.
    pub device: String,
    /// This machine's address there.
    pub own: Ipv4Addr,
    /// The network.
    pub subnet: Ipv4Net,
    /// The way out of it.
    pub gateway: Option<Ipv4Addr>,
}

impl Ground {
    /// The network of the default route, or the one that a subnet is reached by.
    pub fn find(subnet: Option<Ipv4Net>) -> Result<Ground, Trouble> {
        let failed = |what: String| {
            Trouble::new(what, "name the boards' network with --subnet 192.168.1.0/24")
        };
        let default = default_route(&super::read("/proc/net/route"));
        let addresses = getifaddrs()
            .map_err(|error| failed(format!("this machine's addresses cannot be read: {error}")))?;
        let own: Vec<(String, Ipv4Net)> = addresses.filter_map(|entry| of(&entry)).collect();
        let wanted = |(device, net): &&(String, Ipv4Net)| match (subnet, &default) {
            (Some(subnet), _) => subnet.contains(&net.addr()) || net.contains(&subnet.network()),
            (None, Some((by, _))) => device == by,
            (None, None) => !net.addr().is_loopback(),
        };
        let (device, net) = own.iter().find(wanted).ok_or_else(|| {
            failed("this machine is on no network that boards could be on".into())
        })?;
        let gateway = default.filter(|(by, gateway)| by == device && net.contains(gateway));
        Ok(Ground {
            device: device.clone(),
            own: net.addr(),
            subnet: subnet.unwrap_or(*net).trunc(),
            gateway: gateway.map(|(_, gateway)| gateway),
        })
    }
}

fn of(entry: &InterfaceAddress) -> Option<(String, Ipv4Net)> {
    let address = entry.address.as_ref()?.as_sockaddr_in()?.ip();
    let mask = entry.netmask.as_ref()?.as_sockaddr_in()?.ip();
    let net = Ipv4Net::with_netmask(address, mask).ok()?;
    Some((entry.interface_name.clone(), net))
}

/// Device and gateway of the default route in `/proc/net/route`, whose numbers are in the machine's
/// own order of bytes.
fn default_route(text: &str) -> Option<(String, Ipv4Addr)> {
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [device, "00000000", gateway, ..] = fields.as_slice() else { return None };
        let gateway = u32::from_str_radix(gateway, 16).ok().filter(|number| *number != 0)?;
        Some(((*device).to_owned(), Ipv4Addr::from(gateway.to_ne_bytes())))
    })
}

/// Addresses and hardware addresses of `/proc/net/arp`; entries that are not complete are of hosts
/// that did not answer.
pub(super) fn neighbours(text: &str) -> Vec<(Ipv4Addr, String)> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, flags, mac, ..] = fields.as_slice() else { return None };
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()?;
        let complete = flags & COMPLETE != 0;
        Some((address.parse().ok()?, crate::config::mac(mac)?)).filter(|_| complete)
    };
    text.lines().skip(1).filter_map(entry).collect()
}

/// ATF_COM of the kernel.
const COMPLETE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_is_found() {
        let gateway = u32::from_ne_bytes([192, 168, 1, 1]);
        let text = format!(
            "Iface\tDestination\tGateway \tFlags\n\
             eth0\t0001A8C0\t00000000\t0001\n\
             eth0\t00000000\t{gateway:08X}\t0003\n"
        );
        let expected = ("eth0".to_owned(), Ipv4Addr::new(192, 168, 1, 1));
        assert_eq!(default_route(&text), Some(expected));
        assert_eq!(default_route("Iface\n"), None);
    }

    #[test]
    fn neighbours_are_those_that_answered() {
        let text = "IP address  HW type  Flags  HW address         Mask  Device\n\
                    10.0.0.7    0x1      0x2    DC:A6:32:00:00:07  *     eth0\n\
                    10.0.0.8    0x1      0x0    dc:a6:32:00:00:08  *     eth0\n";
        let expected = (Ipv4Addr::new(10, 0, 0, 7), "dc:a6:32:00:00:07".to_owned());
        assert_eq!(neighbours(text), [expected]);
    }
}
