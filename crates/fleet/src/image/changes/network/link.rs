use std::fmt;
use std::net::IpAddr;

/// One connection of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name of its interface, where one was chosen.
    pub name: Option<String>,
    /// Its Wi-Fi network; a wired one has none.
    pub radio: Option<Radio>,
    /// Its address.
    pub ip: Ip,
    /// The board counts as connected without it: a cable beside Wi-Fi, a router's way out.
    pub optional: bool,
}

impl Link {
    /// The interface's name, or a pattern for it: `end0`, `enp1s0` and `eth0` are all wired.
    pub fn pattern(&self) -> &str {
        match (&self.name, &self.radio) {
            (Some(name), _) => name,
            (None, Some(_)) => "wlan0",
            (None, None) => "e*",
        }
    }

    /// What its files are called by.
    pub fn title(&self) -> &str {
        match (&self.name, &self.radio) {
            (Some(name), _) => name,
            (None, Some(_)) => "wifi",
            (None, None) => "wired",
        }
    }
}

/// Where a connection's address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ip {
    /// From a server.
    Dhcp,
    /// From here.
    Static {
        /// The address.
        address: IpAddr,
        /// How much of it the subnet has in common.
        prefix: u8,
        /// Way out.
        gateway: Option<IpAddr>,
        /// Name servers.
        dns: Vec<IpAddr>,
    },
}

/// A Wi-Fi network. Its passphrase is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Radio {
    /// Its name.
    pub ssid: String,
    /// Its passphrase.
    pub passphrase: String,
    /// Country, for the channels that may be used.
    pub country: String,
}

impl fmt::Debug for Radio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Radio({:?}, {})", self.ssid, self.country)
    }
}

/// Addresses with a separator between them.
pub fn joined(addresses: &[IpAddr], separator: &str) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(separator)
}
