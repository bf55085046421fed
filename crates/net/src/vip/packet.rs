//! The advertisement on the wire (RFC 9568, section 5). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::checksum::Checksum;

/// VRRP's number among the protocols over IP.
pub(super) const PROTOCOL: u8 = 112;
/// What every packet's TTL must be on arrival: it has passed no router.
pub(super) const TTL: u8 = 255;
/// The multicast groups that members listen to.
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The same for IPv6.
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The longest interval that fits the field's 12 bits, in centiseconds.
pub(super) const INTERVAL_CENTISECONDS_MAX: u16 = 0x0fff;
/// Addresses that an advertisement may carry: the count is a byte.
pub(super) const ADDRESSES_MAX: usize = 255;
/// The longest advertisement.
pub(super) const PACKET_BYTES_MAX: usize = HEADER_BYTES + ADDRESSES_MAX * 16;

/// Version 3, type 1 (advertisement).
const VERSION_AND_TYPE: u8 = 0x31;
const HEADER_BYTES: usize = 8;
const CHECKSUM_OFFSET: usize = 6;

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// The group's number.
    pub router_id: u8,
    /// The sender's priority.
    pub priority: u8,
    /// How often the sender speaks, in centiseconds.
    pub interval: u16,
    /// The group's addresses.
    pub addresses: Vec<IpAddr>,
}

/// Why a packet is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("shorter than its own header says")]
    Short,
    #[error("no VRRP advertisement of version 3")]
    Version,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it carries no address, or more than it has room for")]
    Addresses,
    #[error("its interval is zero")]
    Interval,
}

impl Packet {
    /// The bytes behind the IP header.
    pub(super) fn encode(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let [high, low] = (self.interval & INTERVAL_CENTISECONDS_MAX).to_be_bytes();
        let mut bytes =
            vec![VERSION_AND_TYPE, self.router_id, self.priority, count, high, low, 0, 0];
        for address in self.addresses.iter().take(ADDRESSES_MAX) {
            match address {
                IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
            }
        }
        let sum = Checksum::over(source, destination, PROTOCOL, &bytes);
        bytes[CHECKSUM_OFFSET..HEADER_BYTES].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads what stands behind the IP header of a packet between these addresses.
    pub(super) fn decode(
        bytes: &[u8],
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Self, Malformed> {
        let &[kind, router_id, priority, count, high, low, _, _, ..] = bytes else {
            return Err(Malformed::Short);
        };
        if kind != VERSION_AND_TYPE {
            return Err(Malformed::Version);
        }
        let width = if source.is_ipv4() { 4 } else { 16 };
        let length = HEADER_BYTES + usize::from(count) * width;
        // Ethernet pads short packets; what follows the addresses is not the sender's.
        let bytes = bytes.get(..length).ok_or(Malformed::Short)?;
        if Checksum::over(source, destination, PROTOCOL, bytes) != 0 {
            return Err(Malformed::Checksum);
        }
        if count == 0 {
            return Err(Malformed::Addresses);
        }
        let interval = u16::from_be_bytes([high, low]) & INTERVAL_CENTISECONDS_MAX;
        if interval == 0 {
            return Err(Malformed::Interval);
        }
        let addresses = bytes[HEADER_BYTES..].chunks_exact(width).filter_map(address).collect();
        Ok(Self { router_id, priority, interval, addresses })
    }

    /// How often the sender speaks.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.interval) * 10)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// An IPv4 packet as a raw socket gives it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub ttl: u8,
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads the IPv4 header.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        if bytes[0] >> 4 != 4 || header < 20 || total < header {
            return None;
        }
        let address = |at: usize| Some(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?.into());
        Some(Self {
            ttl: *bytes.get(8)?,
            source: address(12)?,
            destination: address(16)?,
            payload: bytes.get(header..total)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn packet() -> Packet {
        let addresses = vec![ip("192.0.2.40"), ip("192.0.2.41")];
        Packet { router_id: 51, priority: 100, interval: 20, addresses }
    }

    #[test]
    fn the_bytes_are_those_of_the_rfc() {
        let bytes = packet().encode(ip("192.0.2.1"), GROUP_V4.into());
        assert_eq!(bytes[..6], [0x31, 51, 100, 2, 0, 20]);
        assert_eq!(bytes[8..], [192, 0, 2, 40, 192, 0, 2, 41]);
        // Computed by hand: pseudo header c000 0201 e000 0012 0070 0010, then the packet.
        assert_eq!(u16::from_be_bytes([bytes[6], bytes[7]]), 0x43cf);
    }

    #[test]
    fn what_is_written_is_read() {
        let pairs = [
            (packet(), ip("192.0.2.1"), GROUP_V4.into()),
            (packet(), ip("192.0.2.1"), ip("192.0.2.2")),
            (
                Packet { priority: 0, interval: 4095, addresses: vec![ip("fd00::40")], ..packet() },
                ip("fe80::1"),
                GROUP_V6.into(),
            ),
        ];
        for (packet, source, destination) in pairs {
            let mut bytes = packet.encode(source, destination);
            assert_eq!(Packet::decode(&bytes, source, destination).as_ref(), Ok(&packet));
            bytes.extend_from_slice(&[0xaa; 18]);
            assert_eq!(Packet::decode(&bytes, source, destination), Ok(packet), "with padding");
        }
    }

    #[test]
    fn a_packet_that_was_altered_anywhere_is_refused() {
        let (source, destination) = (ip("192.0.2.1"), GROUP_V4.into());
        let good = packet().encode(source, destination);
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                assert!(Packet::decode(&bad, source, destination).is_err(), "bit {bit} of {byte}");
            }
        }
        for length in 0..good.len() {
            assert!(Packet::decode(&good[..length], source, destination).is_err());
        }
        assert!(Packet::decode(&good, ip("192.0.2.3"), destination).is_err());
    }

    #[test]
    fn a_right_checksum_alone_is_not_enough() {
        let (source, destination) = (ip("192.0.2.1"), GROUP_V4.into());
        let of = |packet: Packet| {
            Packet::decode(&packet.encode(source, destination), source, destination)
        };
        assert_eq!(of(Packet { addresses: vec![], ..packet() }), Err(Malformed::Addresses));
        assert_eq!(of(Packet { interval: 0, ..packet() }), Err(Malformed::Interval));
        // Version 2 of the protocol has another meaning for half of the fields.
        let mut two = packet().encode(source, destination);
        two[0] = 0x21;
        assert_eq!(Packet::decode(&two, source, destination), Err(Malformed::Version));
    }

    #[test]
    fn noise_is_refused_without_a_panic() {
        let mut random = fastrand::Rng::with_seed(9568);
        for _ in 0..200_000 {
            let mut bytes: Vec<u8> = (0..random.usize(0..80)).map(|_| random.u8(..)).collect();
            if let Some(first) = bytes.first_mut().filter(|_| random.bool()) {
                *first = if random.bool() { 0x45 } else { VERSION_AND_TYPE };
            }
            if let Some(datagram) = Datagram::decode(&bytes) {
                let (from, to) = (datagram.source.into(), datagram.destination.into());
                let _ = Packet::decode(datagram.payload, from, to);
            }
            let _ = Packet::decode(&bytes, ip("fe80::1"), GROUP_V6.into());
            let _ = Packet::decode(&bytes, ip("192.0.2.1"), GROUP_V4.into());
        }
    }

    #[test]
    fn the_header_of_ipv4_is_taken_off() {
        let payload = [1, 2, 3, 4];
        let mut bytes = vec![0x46, 0xc0, 0, 28, 0, 0, 0, 0, 255, PROTOCOL, 0, 0];
        bytes.extend_from_slice(&[192, 0, 2, 1, 224, 0, 0, 18, 0, 0, 0, 0]);
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&[9; 10]);
        let datagram = Datagram::decode(&bytes).unwrap();
        assert_eq!((datagram.source.to_string(), datagram.ttl), ("192.0.2.1".into(), 255));
        assert_eq!(datagram.payload, payload);
        for length in 0..28 {
            assert_eq!(Datagram::decode(&bytes[..length]), None);
        }
    }
}
