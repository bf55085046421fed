//! What a sandbox consists of: names and addresses, decided once and written down.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A laptop runs no more, and the addresses below hold no more.
const MAX_BOARDS: usize = 32;
/// Boards of one segment each have a network of 254 addresses; so many fit beside each other.
const MAX_SUBNETS: u8 = 4;
/// The first board's last number; below are the router and what users choose.
const FIRST_HOST: u8 = 11;
/// The last number of the virtual address.
const VIRTUAL_HOST: u8 = 100;
/// The last number of the machine that the sandbox runs on.
const MACHINE_HOST: u8 = 254;
/// Sandboxes take networks out of 10.87.0.0/16, which neither container engines nor home
/// routers use by default.
const NETWORK: [u8; 2] = [10, 87];
/// Longest name: it is part of paths and control groups.
const MAX_NAME_BYTES: usize = 32;
/// The name of the namespace that joins the boards.
pub(crate) const SWITCH: &str = "switch";

/// What a person asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How many boards are servers.
    pub servers: u8,
    /// How many boards are agents only.
    pub agents: u8,
    /// How many segments there are; servers are all in the first.
    pub subnets: u8,
    /// True where the servers share a virtual address.
    pub vip: bool,
    /// What the first server keeps its data in, as the caller understands it.
    pub datastore: String,
    /// Size of each board's own disk; without one the machine's disk is shared.
    pub disk_mib: Option<u32>,
}

/// What a board is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs `coracle server`.
    Server,
    /// Runs `coracle agent`.
    Agent,
}

impl Role {
    /// The command that such a board runs.
    pub fn command(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Agent => "agent",
        }
    }
}

/// One board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// Its host name, and so its node's name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The segment it is plugged into, from 0.
    pub subnet: u8,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network card's address.
    pub mac: [u8; 6],
}

/// A whole sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Which of the networks is the first of its own.
    pub network: u8,
    /// What was asked for.
    pub options: Options,
    /// Where programs are looked for on the boards.
    pub path: String,
    /// The boards, servers first.
    pub boards: Vec<Board>,
}

impl Plan {
    /// Decides names and addresses; `network` is one that `networks_taken` does not hold.
    pub fn new(name: &str, options: Options, path: String, taken: &[u8]) -> Result<Self> {
        check_name(name)?;
        check_options(&options)?;
        let network = free_network(options.subnets, taken).ok_or_else(|| {
            Error::new("all networks for sandboxes are in use")
                .with_hint("`coracle sandbox ls` shows them; take one down")
        })?;
        let mut plan = Plan { name: name.to_owned(), network, options, path, boards: Vec::new() };
        let servers = (1..=plan.options.servers).map(|n| (Role::Server, n));
        let agents = (1..=plan.options.agents).map(|n| (Role::Agent, n));
        for (index, (role, number)) in servers.chain(agents).enumerate() {
            // Agents fill the segments from the last one, so that one of two is across.
            let subnet = match role {
                Role::Server => 0,
                Role::Agent => plan.options.subnets - 1 - (number - 1) % plan.options.subnets,
            };
            let host = FIRST_HOST + u8::try_from(index).unwrap_or(u8::MAX - FIRST_HOST);
            let address = plan.host(subnet, host);
            let [a, b, c, d] = address.octets();
            plan.boards.push(Board {
                name: format!("{}-{number}", role.command()),
                role,
                subnet,
                address,
                mac: [0x02, 0xc0, a, b, c, d],
            });
        }
        Ok(plan)
    }

    /// A board by its name.
    pub fn board(&self, name: &str) -> Result<&Board> {
        self.boards.iter().find(|board| board.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.boards.iter().map(|board| board.name.as_str()).collect();
            Error::new(format!("the sandbox {} has no board {name:?}", self.name))
                .with_hint(format!("its boards are {}", names.join(", ")))
        })
    }

    /// The router of a segment: the switch itself.
    pub fn router(&self, subnet: u8) -> Ipv4Addr {
        self.host(subnet, 1)
    }

    /// The network of a segment, without its prefix of 24 bits.
    pub fn segment(&self, subnet: u8) -> Ipv4Addr {
        self.host(subnet, 0)
    }

    /// The address of the machine that the sandbox runs on.
    pub fn machine(&self) -> Ipv4Addr {
        self.host(0, MACHINE_HOST)
    }

    /// The virtual address, where there is one.
    pub fn vip(&self) -> Option<Ipv4Addr> {
        self.options.vip.then(|| self.host(0, VIRTUAL_HOST))
    }

    /// The link on the machine that leads to the switch.
    pub(crate) fn machine_link(&self) -> String {
        format!("coracle-sb{}", self.network)
    }

    fn host(&self, subnet: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK[0], NETWORK[1], self.network + subnet, host)
    }

    /// The networks that this sandbox uses.
    pub(crate) fn networks(&self) -> impl Iterator<Item = u8> {
        self.network..self.network + self.options.subnets
    }
}

/// Which networks for sandboxes an address belongs to.
pub(crate) fn network_of(address: Ipv4Addr) -> Option<u8> {
    let [a, b, network, _] = address.octets();
    ([a, b] == NETWORK).then_some(network)
}

fn free_network(count: u8, taken: &[u8]) -> Option<u8> {
    (0..=u8::MAX - MAX_SUBNETS)
        .step_by(usize::from(MAX_SUBNETS))
        .find(|first| (*first..first + count).all(|network| !taken.contains(&network)))
}

pub(crate) fn check_name(name: &str) -> Result {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.bytes().all(plain)
        && !name.starts_with('-')
    {
        true => Ok(()),
        false => Err(Error::new(format!("{name:?} cannot be a sandbox's name"))
            .with_hint("use up to 32 small letters, digits and dashes")),
    }
}

fn check_options(options: &Options) -> Result {
    let boards = usize::from(options.servers) + usize::from(options.agents);
    if options.servers == 0 {
        return Err(Error::new("a cluster needs a server").with_hint("use --servers 1 or more"));
    }
    if boards > MAX_BOARDS {
        return Err(Error::new(format!("{boards} boards are too many for one machine"))
            .with_hint(format!("use up to {MAX_BOARDS}")));
    }
    match options.subnets {
        1..=MAX_SUBNETS => Ok(()),
        other => Err(Error::new(format!("{other} subnets cannot be made"))
            .with_hint(format!("use 1 to {MAX_SUBNETS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(servers: u8, agents: u8, subnets: u8) -> Options {
        let datastore = "etcd".into();
        Options { servers, agents, subnets, vip: true, datastore, disk_mib: None }
    }

    fn shown(servers: u8, agents: u8, subnets: u8) -> String {
        let plan = Plan::new("lab", options(servers, agents, subnets), String::new(), &[]);
        let rows = plan.expect("a plan").boards;
        rows.iter().map(|b| format!("{} {}\n", b.name, b.address)).collect()
    }

    #[test]
    fn boards_are_named_and_numbered() {
        assert_eq!(
            shown(3, 2, 1),
            "server-1 10.87.0.11\nserver-2 10.87.0.12\nserver-3 10.87.0.13\n\
             agent-1 10.87.0.14\nagent-2 10.87.0.15\n"
        );
    }

    #[test]
    fn agents_fill_the_segments_from_the_last() {
        assert_eq!(
            shown(1, 3, 2),
            "server-1 10.87.0.11\nagent-1 10.87.1.12\nagent-2 10.87.0.13\nagent-3 10.87.1.14\n"
        );
    }

    #[test]
    fn networks_in_use_are_passed_over() {
        let plan = Plan::new("lab", options(1, 0, 2), String::new(), &[1, 4]).expect("a plan");
        assert_eq!(plan.segment(0), Ipv4Addr::new(10, 87, 8, 0));
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert!(Plan::new("lab", options(1, 0, 1), String::new(), &all).is_err());
    }

    #[test]
    fn nonsense_is_refused_with_the_next_step() {
        for (servers, agents, subnets) in [(0, 1, 1), (3, 30, 1), (1, 0, 0), (1, 0, 5)] {
            let refused = Plan::new("lab", options(servers, agents, subnets), String::new(), &[]);
            assert!(refused.expect_err("refused").hint().is_some());
        }
        for name in ["", "A", "a/b", "-a", "..", &"a".repeat(33)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
