//! The Internet checksum with the pseudo header of IPv4 or IPv6. Pure.

use std::net::IpAddr;

/// A sum in the making.
pub(super) struct Checksum(u64);

impl Checksum {
    /// The checksum of a packet, its own field being zero; 0 for one whose field is right.
    pub(super) fn over(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
        let mut sum = Self(u64::from(protocol));
        for address in [source, destination] {
            match address {
                IpAddr::V4(v4) => sum.add(&v4.octets()),
                IpAddr::V6(v6) => sum.add(&v6.octets()),
            }
        }
        sum.0 += payload.len() as u64;
        sum.add(payload);
        sum.finish()
    }

    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            self.0 += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }

    fn finish(mut self) -> u16 {
        while self.0 > 0xffff {
            self.0 = (self.0 & 0xffff) + (self.0 >> 16);
        }
        !u16::try_from(self.0).unwrap_or(0)
    }
}
