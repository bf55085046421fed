//! nftables and connection tracking, behind one trait.

use std::collections::BTreeMap;
use std::io;

use nlink::netlink::netfilter::{ConntrackEntry, ConntrackFilter, IpProtocol};
use nlink::netlink::nftables::{self as nft, RawMessage, Transaction};
use nlink::netlink::types::AddressFamily;
use nlink::netlink::{Connection, Netfilter, Nftables, sysctl};

use super::{lower, os_error};
use crate::firewall::{Atom, Change, Family, Value};

/// The longest transaction that the kernel is asked to take.
const TRANSACTION_BYTES_MAX: usize = 256 << 20;
/// Elements in one message: an attribute holds 64 KiB and an element with a long chain name
/// takes about 300 bytes.
const ELEMENTS_PER_MESSAGE: usize = 128;

/// A connection that the kernel tracks, as far as we care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// Where the client sent to.
    pub destination: std::net::SocketAddr,
    /// Who answers.
    pub answering: std::net::SocketAddr,
}

/// The kernel's firewall.
#[async_trait::async_trait]
pub(crate) trait Firewall: Send + Sync {
    /// Carries out the changes in one transaction: all or none.
    async fn commit(&self, table: &str, family: Family, changes: &[Change]) -> io::Result<()>;
    /// Removes a table if it exists.
    async fn remove(&self, table: &str, family: Family) -> io::Result<()>;
    /// Chains of other programs whose policy drops forwarded IPv4 packets.
    async fn closed_forwards(&self) -> io::Result<Vec<String>>;
    /// Forgets the tracked UDP connections for which `stale` holds; says how many.
    async fn forget_udp(
        &self,
        family: Family,
        stale: &(dyn for<'a> Fn(&'a Tracked) -> bool + Send + Sync),
    ) -> io::Result<usize>;
}

/// How long the kernel remembers connections, in seconds, as kube-proxy sets it: one that one side has
/// closed must not lose its translation while the other still sends.
const REMEMBERED_S: [(&str, &str); 2] = [
    ("net.netfilter.nf_conntrack_tcp_timeout_established", "86400"),
    ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "3600"),
];

/// Has the kernel remember connections for long enough. It may not let us: services work all the same.
pub(crate) fn remember_connections() {
    for (key, seconds) in REMEMBERED_S {
        let differs = !sysctl::get(key).is_ok_and(|current| current == seconds);
        if differs && let Err(error) = sysctl::set(key, seconds) {
            tracing::debug!(key, %error, "connections are remembered for as long as the kernel likes");
        }
    }
}

/// The firewall of the network namespace of the calling thread. A socket lives as long as a call:
/// calls are rare, and an idle socket would tie us to one async runtime.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kernel;

#[async_trait::async_trait]
impl Firewall for Kernel {
    async fn commit(&self, table: &str, family: Family, changes: &[Change]) -> io::Result<()> {
        let connection = open()?;
        let mut transaction = connection.transaction();
        for change in changes {
            transaction = step(transaction, table, family, change).map_err(os_error)?;
        }
        transaction.commit(&connection).await.map_err(os_error)
    }

    async fn remove(&self, table: &str, family: Family) -> io::Result<()> {
        open()?.del_table_if_exists(table, lower::family(family)).await.map_err(os_error)?;
        Ok(())
    }

    async fn closed_forwards(&self) -> io::Result<Vec<String>> {
        // `NF_INET_FORWARD` and `NF_DROP` of linux/netfilter.h.
        const FORWARD: u32 = 2;
        const DROP: u32 = 0;
        let chains = open()?.list_chains().await.map_err(os_error)?;
        let closed = chains.iter().filter(|chain| {
            matches!(chain.family, nft::Family::Ip | nft::Family::Inet)
                && chain.hook == Some(FORWARD)
                && chain.policy == Some(DROP)
        });
        Ok(closed.map(|c| format!("{} {} {}", c.family.name(), c.table, c.name)).collect())
    }

    async fn forget_udp(
        &self,
        family: Family,
        stale: &(dyn for<'a> Fn(&'a Tracked) -> bool + Send + Sync),
    ) -> io::Result<usize> {
        let connection = Connection::<Netfilter>::new().map_err(os_error)?;
        let family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let udp = ConntrackFilter::new().family(family).proto(IpProtocol::Udp);
        let mut forgotten = 0;
        for entry in connection.get_conntrack_matching(&udp).await.map_err(os_error)? {
            if !tracked(&entry).is_some_and(|tracked| stale(&tracked)) {
                continue;
            }
            match connection.del_conntrack_entry(&entry).await {
                Ok(()) => forgotten += 1,
                Err(gone) if gone.is_not_found() => {}
                Err(error) => return Err(os_error(error)),
            }
        }
        Ok(forgotten)
    }
}

fn tracked(entry: &ConntrackEntry) -> Option<Tracked> {
    let end = |ip: Option<std::net::IpAddr>, port: Option<u16>| Some((ip?, port?).into());
    Some(Tracked {
        destination: end(entry.orig.dst_ip, entry.orig.dst_port)?,
        answering: end(entry.reply.src_ip, entry.reply.src_port)?,
    })
}

fn open() -> io::Result<Connection<Nftables>> {
    let connection = Connection::<Nftables>::new().map_err(os_error)?;
    // A transaction is one datagram, and the kernel refuses one that is longer than the send
    // buffer's limit. Raising it needs a privilege that a rootless test may lack; short
    // transactions work without.
    let raised = nix::sys::socket::setsockopt(
        connection.socket(),
        nix::sys::socket::sockopt::SndBufForce,
        &TRANSACTION_BYTES_MAX,
    );
    if let Err(error) = raised {
        tracing::debug!(%error, "the netlink send buffer keeps its default limit");
    }
    Ok(connection)
}

fn step(
    transaction: Transaction,
    table: &str,
    of: Family,
    change: &Change,
) -> nlink::Result<Transaction> {
    let family = lower::family(of);
    Ok(match change {
        Change::ResetTable => reset(transaction, table, family),
        Change::DeleteTable => transaction.del_table(table, family),
        Change::AddSet { name, set } => transaction.add_set(lower::set(table, name, of, set)),
        Change::AddChain { name, hook } => {
            let mut chain = nft::Chain::new(table, name.as_str())?.family(family);
            if let Some(hook) = hook {
                chain = chain.base(lower::hook(*hook)?);
            }
            transaction.add_chain(chain)
        }
        Change::FlushChain { name } => transaction.flush_chain(table, name, family),
        Change::DeleteElements { name, set, elements } => {
            let set = lower::set(table, name, of, set);
            in_chunks(transaction, elements, |transaction, chunk| {
                transaction.del_set_elements(&set, chunk)
            })?
        }
        Change::AddElements { name, set, elements } => {
            let set = lower::set(table, name, of, set);
            in_chunks(transaction, elements, |transaction, chunk| {
                transaction.add_set_elements(&set, chunk)
            })?
        }
        Change::AddRule { chain, rule } => {
            transaction.add_rule(lower::rule(table, chain, of, rule)?)
        }
        Change::DeleteChain { name } => transaction.del_chain(table, name, family),
        Change::DeleteSet { name } => transaction.del_set(table, name, family),
    })
}

/// Kernels before 6.3 cannot delete a table that may not exist, so it is made first.
fn reset(transaction: Transaction, table: &str, family: nft::Family) -> Transaction {
    const NFT_MSG_NEWTABLE: u8 = 0;
    const NFTA_TABLE_NAME: u16 = 1;
    const NLM_F_CREATE: u16 = 0x400;
    let length = u16::try_from(4 + table.len() + 1).unwrap_or(u16::MAX);
    let mut attribute = Vec::new();
    attribute.extend_from_slice(&length.to_ne_bytes());
    attribute.extend_from_slice(&NFTA_TABLE_NAME.to_ne_bytes());
    attribute.extend_from_slice(table.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    transaction
        .raw(RawMessage::new(NFT_MSG_NEWTABLE, family).flags(NLM_F_CREATE).attrs(attribute))
        .del_table(table, family)
        .add_table(table, family)
}

fn in_chunks(
    mut transaction: Transaction,
    elements: &BTreeMap<Vec<Atom>, Value>,
    add: impl Fn(Transaction, &[nft::SetElement]) -> Transaction,
) -> nlink::Result<Transaction> {
    let lowered: Vec<nft::SetElement> = elements
        .iter()
        .map(|(key, value)| lower::element(key, value))
        .collect::<nlink::Result<_>>()?;
    for chunk in lowered.chunks(ELEMENTS_PER_MESSAGE) {
        transaction = add(transaction, chunk);
    }
    Ok(transaction)
}

/// A firewall that only takes notes.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    /// The changes of every transaction, in order.
    pub commits: std::sync::Arc<std::sync::Mutex<Vec<Vec<Change>>>>,
    /// What the next transactions answer, first to last; success when it runs out.
    pub failures: std::sync::Arc<std::sync::Mutex<Vec<io::ErrorKind>>>,
}

#[cfg(test)]
#[async_trait::async_trait]
impl Firewall for Recorder {
    async fn commit(&self, _: &str, _: Family, changes: &[Change]) -> io::Result<()> {
        self.commits.lock().unwrap().push(changes.to_vec());
        match self.failures.lock().unwrap().pop() {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    async fn remove(&self, _: &str, _: Family) -> io::Result<()> {
        Ok(())
    }

    async fn closed_forwards(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn forget_udp(
        &self,
        _: Family,
        _: &(dyn for<'a> Fn(&'a Tracked) -> bool + Send + Sync),
    ) -> io::Result<usize> {
        Ok(0)
    }
}
