//! A fault on purpose: this board hears and says nothing, wholly or on some ports, for a while.
//!
//! The kernel itself ends it. What is dropped stands in a set whose elements expire, so that the
//! board comes back even when every process of ours has died meanwhile. A timer of ours, or an
//! address taken away and given back, was turned down: both need somebody alive to heal.

use std::io;
use std::time::Duration;

use nix::net::if_::if_nameindex;
use nlink::netlink::nftables::{
    BaseChain, Chain, ChainType, Family, Hook, PacketField, Priority, Rule, Set, SetElement,
    SetKeyType, Transaction,
};
use nlink::netlink::{Connection, Nftables};

use super::os_error;

/// The table that holds the fault.
const TABLE: &str = "coracle-drill";
/// Before everything else, connection tracking included.
const PRIORITY: i32 = -400;
/// No fault lasts longer.
pub const LONGEST: Duration = Duration::from_secs(180);
/// Most ports of a fault.
pub const MAX_PORTS: usize = 16;
/// Protocols that make up the network: TCP, UDP, ICMP, ICMPv6, VRRP.
const PROTOCOLS: [u8; 5] = [6, 17, 1, 58, 112];

/// What is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The board from all others; what happens on it goes on.
    Network {
        /// The bridge of its pods, which are on it.
        bridge: String,
    },
    /// These TCP ports, here and elsewhere, from this board.
    Ports(Vec<u16>),
}

impl Outage {
    /// Begins the fault, in place of any other. It ends by itself.
    pub async fn begin(&self, lasting: Duration) -> io::Result<()> {
        let lasting = lasting.min(LONGEST);
        Self::end().await?;
        let connection = Connection::<Nftables>::new().map_err(os_error)?;
        let mut transaction = connection.transaction().add_table(TABLE, Family::Inet);
        let (key, elements) = match self {
            Outage::Network { .. } => {
                (SetKeyType::InetProto, PROTOCOLS.map(SetElement::inet_proto).to_vec())
            }
            Outage::Ports(ports) => {
                let ports = ports.iter().take(MAX_PORTS).copied().map(SetElement::port);
                (SetKeyType::InetService, ports.collect())
            }
        };
        let set = Set::new(TABLE, "cut").key_type(key).timeout(lasting);
        transaction = transaction.add_set(set.clone()).add_set_elements(&set, &elements);
        for (name, hook) in [("in", Hook::Prerouting), ("out", Hook::Postrouting)] {
            transaction = transaction.add_chain(chain(Family::Inet, name, hook)?);
            for rule in self.rules(name) {
                transaction = transaction.add_rule(rule.family(Family::Inet));
            }
        }
        if let Outage::Network { bridge } = self {
            transaction = cut_arp(transaction, bridge, lasting)?;
        }
        transaction.commit(&connection).await.map_err(os_error)
    }

    fn rules(&self, chain: &str) -> Vec<Rule> {
        let device = |name: &str| match chain {
            "in" => Rule::new(TABLE, chain).match_iif(name),
            _ => Rule::new(TABLE, chain).match_oif(name),
        };
        let cut = |field| Rule::new(TABLE, chain).match_in_set(field, "cut").drop();
        let mut rules = vec![device("lo").accept()];
        match self {
            Outage::Network { bridge } => {
                rules.push(device(bridge).accept());
                rules.push(cut(PacketField::L4Proto));
            }
            Outage::Ports(_) => {
                rules.extend([PacketField::TcpDport, PacketField::TcpSport].map(cut));
            }
        }
        rules
    }

    /// Ends any fault now, and removes what is left of one that has ended by itself.
    pub async fn end() -> io::Result<()> {
        let connection = Connection::<Nftables>::new().map_err(os_error)?;
        for family in [Family::Inet, Family::Arp] {
            connection.del_table_if_exists(TABLE, family).await.map_err(os_error)?;
        }
        Ok(())
    }
}

fn chain(family: Family, name: &str, hook: Hook) -> io::Result<Chain> {
    let no_devices: [&str; 0] = [];
    let priority = Priority::from_i32(PRIORITY);
    let place =
        BaseChain::try_new(ChainType::Filter, hook, priority, no_devices).map_err(os_error)?;
    Ok(Chain::new(TABLE, name).map_err(os_error)?.family(family).base(place))
}

/// A board that still answered for its addresses would keep the virtual address from who has
/// taken it over. In ARP only the device tells what is the board's own network.
fn cut_arp(transaction: Transaction, bridge: &str, lasting: Duration) -> io::Result<Transaction> {
    let devices = if_nameindex()?;
    let outside = devices.iter().filter(|device| {
        let name = device.name().to_bytes();
        name != b"lo" && name != bridge.as_bytes()
    });
    let elements: Vec<_> = outside.map(|device| SetElement::ifindex(device.index())).collect();
    let set =
        Set::new(TABLE, "cut").family(Family::Arp).key_type(SetKeyType::IfIndex).timeout(lasting);
    let mut transaction = transaction.add_table(TABLE, Family::Arp).add_set(set.clone());
    transaction = transaction.add_set_elements(&set, &elements);
    for (name, hook, field) in
        [("in", Hook::Input, PacketField::Iif), ("out", Hook::Output, PacketField::Oif)]
    {
        let rule = Rule::new(TABLE, name).match_in_set(field, "cut").drop();
        transaction = transaction
            .add_chain(chain(Family::Arp, name, hook)?)
            .add_rule(rule.family(Family::Arp));
    }
    Ok(transaction)
}
