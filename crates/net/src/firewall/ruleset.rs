//! The parts of nftables that we use, close to nft's own words (nft(8)).

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::Cidr;

/// Which protocol family a table is for. A table per family keeps address matches free of guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether `address` belongs to this family.
    pub(crate) fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// nft's name for the family.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// Everything a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// The family.
    pub family: Family,
    /// Named sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Chains.
    pub chains: BTreeMap<String, Chain>,
}

/// A named set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// The fields of a key.
    pub key: Vec<KeyType>,
    /// What a key leads to.
    pub data: SetData,
    /// `Some`: elements are added by packets and expire.
    pub timeout: Option<Duration>,
    /// What is in it; empty for a set that packets fill.
    pub elements: BTreeMap<Vec<Atom>, Value>,
}

impl Set {
    /// An empty set or map that we fill ourselves.
    pub(crate) fn new(key: &[KeyType], data: SetData) -> Self {
        Self { key: key.to_vec(), data, timeout: None, elements: BTreeMap::new() }
    }

    /// Whether both can hold the same elements, so that one becomes the other in place.
    pub(crate) fn same_shape(&self, other: &Self) -> bool {
        self.key == other.key && self.data == other.data && self.timeout == other.timeout
    }
}

/// What a field of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    /// An address of the table's family.
    Address,
    /// A transport protocol's number.
    Protocol,
    /// A port.
    Port,
    /// A number made by the rule (which endpoint).
    Index,
}

/// What a map leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetData {
    /// It is a set.
    None,
    /// A verdict.
    Verdict,
    /// An address and port.
    Target,
}

/// One field of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Atom {
    Address(IpAddr),
    Protocol(u8),
    Port(u16),
    Index(u32),
}

/// What one key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Present,
    Verdict(Verdict),
    Target(SocketAddr),
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Jump(String),
    Goto(String),
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Where packets enter it; `None` for one that is only jumped to.
    pub hook: Option<Hook>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Filter or NAT.
    pub kind: HookKind,
    /// The place in a packet's way.
    pub point: HookPoint,
    /// Lower runs earlier.
    pub priority: i32,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookKind {
    Filter,
    Nat,
}

/// The places in a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Source,
    Destination,
    Protocol,
    DestinationPort,
}

/// A rule: statements in order, the first that does not match ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule(pub Vec<Statement>);

/// Makes a rule.
pub(crate) fn rule(statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule(statements.into_iter().collect())
}

/// A match or an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// The address lies in the block, or does not.
    InBlock { field: Field, block: Cidr, inside: bool },
    /// The fields are in the set.
    InSet { fields: Vec<Field>, set: String },
    /// The fields' verdict in the map, if they have one.
    Lookup { fields: Vec<Field>, map: String },
    /// The address is one of this machine's.
    Local(Field),
    /// The transport protocol.
    ProtocolIs(u8),
    /// The first packet of a connection.
    ConnectionNew,
    /// The packet belongs to no connection that the kernel knows, or not at this point of it.
    ConnectionInvalid,
    /// The connection's destination has been translated.
    ConnectionTranslated,
    /// The mark has this bit.
    Marked(u32),
    /// Sets the bit in the mark.
    SetMark(u32),
    /// Takes the bit from the mark.
    ClearMark(u32),
    /// Remembers the source for the set's timeout.
    Remember { set: String },
    /// Translates the destination.
    Translate(SocketAddr),
    /// Translates the destination to one of the map's `count` targets, at random.
    BalanceTargets { count: u32, map: String },
    /// Goes to one of the map's `count` verdicts, at random.
    BalanceVerdicts { count: u32, map: String },
    /// Source becomes this machine's address.
    Masquerade,
    /// Answers with a TCP reset.
    RejectReset,
    /// Answers with ICMP port unreachable.
    RejectUnreachable,
    /// A plain verdict.
    Verdict(Verdict),
}

/// Prints the table as nft would list it, near enough to read and to compare in tests.
impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ip = self.family.name();
        for (name, set) in &self.sets {
            let noun = if set.data == SetData::None { "set" } else { "map" };
            write!(f, "{noun} {name} {{ ")?;
            if let Some(timeout) = set.timeout {
                write!(f, "timeout {}s ", timeout.as_secs())?;
            }
            for (index, (key, value)) in set.elements.iter().enumerate() {
                write!(f, "{}{}", if index == 0 { "" } else { ", " }, Concat(key))?;
                match value {
                    Value::Present => {}
                    Value::Verdict(verdict) => write!(f, " : {verdict}")?,
                    Value::Target(target) => write!(f, " : {target}")?,
                }
            }
            writeln!(f, "{}}}", if set.elements.is_empty() { "" } else { " " })?;
        }
        for (name, chain) in &self.chains {
            match chain.hook {
                Some(hook) => writeln!(
                    f,
                    "chain {name} {{ {:?} hook {:?} priority {}",
                    hook.kind, hook.point, hook.priority
                )?,
                None => writeln!(f, "chain {name} {{")?,
            }
            for rule in &chain.rules {
                f.write_str("  ")?;
                for (index, statement) in rule.0.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { " " })?;
                    write_statement(f, ip, statement)?;
                }
                writeln!(f)?;
            }
            writeln!(f, "}}")?;
        }
        Ok(())
    }
}

fn write_statement(f: &mut Formatter<'_>, ip: &str, statement: &Statement) -> fmt::Result {
    let fields = |fields: &[Field]| {
        let names: Vec<String> = fields.iter().map(|field| field_name(ip, *field)).collect();
        names.join(" . ")
    };
    match statement {
        Statement::InBlock { field, block, inside } => {
            write!(f, "{} {}{block}", field_name(ip, *field), if *inside { "" } else { "!= " })
        }
        Statement::InSet { fields: keys, set } => write!(f, "{} @{set}", fields(keys)),
        Statement::Lookup { fields: keys, map } => write!(f, "{} vmap @{map}", fields(keys)),
        Statement::Local(Field::Source) => f.write_str("fib saddr type local"),
        Statement::Local(_) => f.write_str("fib daddr type local"),
        Statement::ProtocolIs(number) => write!(f, "meta l4proto {}", Atom::Protocol(*number)),
        Statement::ConnectionNew => f.write_str("ct state new"),
        Statement::ConnectionInvalid => f.write_str("ct state invalid"),
        Statement::ConnectionTranslated => f.write_str("ct status dnat"),
        Statement::Marked(bit) => write!(f, "meta mark & {bit:#x} != 0"),
        Statement::SetMark(bit) => write!(f, "meta mark set meta mark | {bit:#x}"),
        Statement::ClearMark(bit) => write!(f, "meta mark set meta mark & ~{bit:#x}"),
        Statement::Remember { set } => write!(f, "update @{set} {{ {ip} saddr }}"),
        Statement::Translate(target) => write!(f, "dnat to {target}"),
        Statement::BalanceTargets { count, map } => {
            write!(f, "dnat to numgen random mod {count} map @{map}")
        }
        Statement::BalanceVerdicts { count, map } => {
            write!(f, "numgen random mod {count} vmap @{map}")
        }
        Statement::Masquerade => f.write_str("masquerade fully-random"),
        Statement::RejectReset => f.write_str("reject with tcp reset"),
        Statement::RejectUnreachable => f.write_str("reject"),
        Statement::Verdict(verdict) => verdict.fmt(f),
    }
}

fn field_name(ip: &str, field: Field) -> String {
    match field {
        Field::Source => format!("{ip} saddr"),
        Field::Destination => format!("{ip} daddr"),
        Field::Protocol => "meta l4proto".to_owned(),
        Field::DestinationPort => "th dport".to_owned(),
    }
}

struct Concat<'a>(&'a [Atom]);

impl Display for Concat<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, atom) in self.0.iter().enumerate() {
            write!(f, "{}{atom}", if index == 0 { "" } else { " . " })?;
        }
        Ok(())
    }
}

impl Display for Atom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Protocol(6) => f.write_str("tcp"),
            Self::Protocol(17) => f.write_str("udp"),
            Self::Protocol(132) => f.write_str("sctp"),
            Self::Protocol(number) => number.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::Index(index) => index.fmt(f),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}
