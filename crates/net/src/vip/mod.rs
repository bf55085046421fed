//! One address that is always on one board of several: VRRP version 3 (RFC 9568), able to share
//! its group with keepalived.
//!
//! [`run`] is a member. `machine` decides (pure), `packet` and `announce` know the bytes (pure),
//! `router` carries out. The addresses are put on the interface with a lifetime of seconds that is
//! renewed while they are held, so that they vanish by themselves when whoever held them is killed
//! or stands still: no two boards answer for one address for longer than that. Keepalived's other
//! way, an address that stays until somebody removes it, was turned down for this. The real
//! hardware address is used, as keepalived does by default; the protocol's virtual one would need
//! a device of its own.

mod announce;
mod checksum;
mod link;
mod machine;
mod packet;
mod router;
mod socket;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use machine::State;

/// The interval that makes a take-over a matter of three quarters of a second.
const INTERVAL_CENTISECONDS: u16 = 20;

/// A virtual address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VipAddress {
    /// The address.
    pub ip: IpAddr,
    /// The length of the prefix; the whole address where nothing is said.
    pub prefix: u8,
}

impl FromStr for VipAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let wrong = || format!("{text:?} is no address such as 192.168.1.40 or 192.168.1.40/24");
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.parse().map_err(|_| wrong()))?;
        let usable = prefix > 0
            && prefix <= bits
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !ip.is_loopback();
        usable.then_some(Self { ip, prefix }).ok_or_else(wrong)
    }
}

impl fmt::Display for VipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl TryFrom<String> for VipAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<VipAddress> for String {
    fn from(address: VipAddress) -> Self {
        address.to_string()
    }
}

/// How a member takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipConfig {
    /// The addresses of the group. Those of one family move together; the families are two groups
    /// of the same number, as the protocol has it.
    pub addresses: Vec<VipAddress>,
    /// The interface; `None` takes the one whose network holds the address, or that of the default
    /// route.
    pub interface: Option<String>,
    /// The group's number, 1 to 255; another one for every group of a segment.
    pub router_id: u8,
    /// How often the holder speaks, in centiseconds, 1 to 4095.
    pub interval: u16,
    /// Whether one of lower priority is pushed aside while it is alive.
    pub preempt: bool,
    /// How long such a one is let be.
    pub preempt_delay: Duration,
    /// The other members, where multicast does not reach them; none means multicast.
    pub unicast_peers: Vec<IpAddr>,
}

impl VipConfig {
    /// A group with these addresses and keepalived's customary number.
    pub fn new(addresses: Vec<VipAddress>) -> Self {
        Self {
            addresses,
            interface: None,
            router_id: 51,
            interval: INTERVAL_CENTISECONDS,
            preempt: true,
            preempt_delay: Duration::ZERO,
            unicast_peers: Vec::new(),
        }
    }

    fn complaint(&self) -> Option<String> {
        let distinct: BTreeSet<IpAddr> = self.addresses.iter().map(|address| address.ip).collect();
        let max = packet::INTERVAL_CENTISECONDS_MAX;
        if self.addresses.is_empty() || self.addresses.len() > packet::ADDRESSES_MAX {
            Some(format!("a group has 1 to {} addresses", packet::ADDRESSES_MAX))
        } else if distinct.len() < self.addresses.len() {
            Some("an address is named twice".to_owned())
        } else if self.router_id == 0 {
            Some("a group's number is 1 to 255".to_owned())
        } else if self.interval == 0 || self.interval > max {
            Some(format!("the interval is 1 to {max} centiseconds"))
        } else {
            None
        }
    }
}

/// What [`run`] tells about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// Whether this is about the IPv4 addresses.
    pub ipv4: bool,
    /// Where the member stands.
    pub state: State,
    /// The interface, once there is one.
    pub interface: Option<String>,
}

/// Why a member could not take part.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// The configuration cannot work.
    #[error("virtual address: {0}")]
    Config(String),
    /// The board has a virtual address as its own.
    #[error("{0} is an address that this board has for good, so it cannot be the virtual one")]
    Taken(IpAddr),
    /// The kernel refused.
    #[error("{action}")]
    Kernel {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Takes part until `priority` says `None` or its sender is gone, and leaves in order: the
/// addresses are off the interface and the others know. The priority is 1 to 254 (255 takes the
/// addresses at once and never yields them); a falling one hands over to whoever is better.
pub async fn run(
    config: VipConfig,
    priority: watch::Receiver<Option<u8>>,
    tell: Arc<dyn Fn(VipStatus) + Send + Sync>,
) -> Result<(), VipError> {
    if let Some(complaint) = config.complaint() {
        return Err(VipError::Config(complaint));
    }
    let members = [true, false]
        .into_iter()
        .filter(|v4| config.addresses.iter().any(|address| address.ip.is_ipv4() == *v4))
        .map(|v4| router::Router::run(config.clone(), v4, priority.clone(), tell.clone()));
    futures::future::try_join_all(members).await.map(drop)
}
