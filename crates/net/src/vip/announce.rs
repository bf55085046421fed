//! The frames that tell a segment where an address is now. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Checksum;

/// A hardware address.
pub(super) type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// All nodes of a segment, and the hardware address that leads to them.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;

/// The Ethernet frames that announce `address` at `mac`. For IPv4 both a request and a reply:
/// some hosts take an address from the one only, some from the other.
pub(super) fn frames(mac: Mac, address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(v4) => [1, 2].map(|operation| arp(mac, v4, operation)).into(),
        IpAddr::V6(v6) => vec![advertisement(mac, v6)],
    }
}

/// A gratuitous ARP packet (RFC 5227, section 3).
fn arp(mac: Mac, address: Ipv4Addr, operation: u8) -> Vec<u8> {
    let target = if operation == 1 { [0; 6] } else { mac };
    let head = [0, 1, 0x08, 0, 6, 4, 0, operation];
    let ip = address.octets();
    [&BROADCAST[..], &mac, &[0x08, 0x06], &head, &mac, &ip, &target, &ip].concat()
}

/// An unsolicited neighbour advertisement (RFC 4861, section 7.2.6), from the address itself.
fn advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    /// "Router" and "override" (the cached hardware address).
    const FLAGS: u8 = 0x80 | 0x20;
    /// The sender's hardware address, one unit of 8 bytes.
    const OPTION: [u8; 2] = [2, 1];
    let ip = address.octets();
    let mut body = [&[136, 0, 0, 0, FLAGS, 0, 0, 0][..], &ip, &OPTION, &mac].concat();
    let sum = Checksum::over(address.into(), ALL_NODES.into(), ICMPV6, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], ICMPV6, 255];
    [&ALL_NODES_MAC[..], &mac, &[0x86, 0xdd], &head, &ip, &ALL_NODES.octets(), &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn arp_names_the_address_as_sender_and_as_target() {
        let frames = frames(MAC, "192.0.2.40".parse().unwrap());
        assert_eq!(frames.len(), 2);
        for (frame, operation) in frames.iter().zip([1, 2]) {
            assert_eq!(frame.len(), 42);
            assert_eq!(frame[..6], BROADCAST);
            assert_eq!(frame[21], operation);
            assert_eq!((&frame[22..28], &frame[28..32]), (&MAC[..], &[192, 0, 2, 40][..]));
            assert_eq!(frame[38..42], [192, 0, 2, 40]);
        }
    }

    #[test]
    fn a_neighbour_advertisement_has_a_right_checksum() {
        let address: Ipv6Addr = "fd00::40".parse().unwrap();
        let frames = frames(MAC, address.into());
        let [frame] = frames.as_slice() else { panic!("one frame") };
        let body = &frame[54..];
        assert_eq!((body[0], body[4], body.len()), (136, 0xa0, 32));
        assert_eq!(Checksum::over(address.into(), ALL_NODES.into(), ICMPV6, body), 0);
        assert_eq!(body[26..], MAC);
    }
}
