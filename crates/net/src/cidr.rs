//! An address block.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A block of addresses, for instance `10.42.0.0/24`. Host bits are cleared when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not an address block.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address block such as 10.42.0.0/24")]
pub struct CidrParseError(String);

impl Cidr {
    /// The block of `prefix` bits that holds `address`; `None` if the prefix is too long for the
    /// address's family.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > family_bits(&address) {
            return None;
        }
        let address = match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & mask_v4(prefix)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & mask_v6(prefix)).into(),
        };
        Some(Self { address, prefix })
    }

    /// The first address of the block.
    pub fn network(&self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is a block of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether `address` lies in the block; false across families.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4()
            && Self::new(address, self.prefix).is_some_and(|block| block == *self)
    }

    /// The address `index` places after the first one; `None` beyond the end of the block.
    pub fn nth(&self, index: u64) -> Option<IpAddr> {
        let host_bits = u32::from(family_bits(&self.address) - self.prefix);
        if host_bits < 64 && index >> host_bits != 0 {
            return None;
        }
        Some(match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + u32::try_from(index).ok()?).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() + u128::from(index)).into(),
        })
    }

    /// How many addresses the block has, capped at `u64::MAX`.
    pub fn size(&self) -> u64 {
        let host_bits = u32::from(family_bits(&self.address) - self.prefix);
        1u64.checked_shl(host_bits).unwrap_or(u64::MAX)
    }
}

fn family_bits(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| CidrParseError(text.to_owned()))
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_clears_host_bits_and_prints() {
        for (text, printed) in [
            ("10.42.3.7/16", "10.42.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.168.1.1/32", "192.168.1.1/32"),
            ("fd00::5/64", "fd00::/64"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), printed);
        }
        for bad in ["10.42.0.0", "10.42.0.0/33", "x/8", "fd00::/129", "10.42.0.0/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn knows_its_members() {
        let block: Cidr = "10.42.0.0/30".parse().unwrap();
        assert!(block.contains("10.42.0.3".parse().unwrap()));
        assert!(!block.contains("10.42.0.4".parse().unwrap()));
        assert!(!block.contains("::ffff:10.42.0.1".parse().unwrap()));
        assert_eq!(block.nth(3), Some("10.42.0.3".parse().unwrap()));
        assert_eq!(block.nth(4), None);
        assert_eq!(block.size(), 4);
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert_eq!(all.size(), 1 << 32);
        assert_eq!("::/0".parse::<Cidr>().unwrap().size(), u64::MAX);
    }
}
