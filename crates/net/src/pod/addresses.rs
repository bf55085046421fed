//! Which sandbox has which address. Pure; `state` keeps it on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Cidr;

/// The addresses given, and where the search for the next one starts. Addresses are not given
/// again at once: a client may still remember who had them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Addresses {
    /// Per block: the place of the last address given.
    #[serde(default)]
    last: BTreeMap<Cidr, u64>,
    /// What each sandbox has.
    #[serde(default)]
    sandboxes: BTreeMap<String, Vec<IpAddr>>,
}

/// No address is left in this block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exhausted(pub Cidr);

impl Addresses {
    /// What `sandbox` has.
    pub(super) fn get(&self, sandbox: &str) -> Option<&[IpAddr]> {
        self.sandboxes.get(sandbox).map(Vec::as_slice)
    }

    /// The sandboxes that have addresses.
    pub(super) fn sandboxes(&self) -> impl Iterator<Item = &str> {
        self.sandboxes.keys().map(String::as_str)
    }

    /// One address per block for `sandbox`: those it has, as far as they still fit the blocks,
    /// else new ones.
    pub(super) fn assign(
        &mut self,
        sandbox: &str,
        blocks: &[Cidr],
    ) -> Result<Vec<IpAddr>, Exhausted> {
        let before = self.sandboxes.get(sandbox).cloned().unwrap_or_default();
        let mut addresses = Vec::with_capacity(blocks.len());
        for block in blocks {
            let kept = before.iter().copied().find(|address| block.contains(*address));
            addresses.push(match kept {
                Some(address) => address,
                None => self.next(block)?,
            });
        }
        self.sandboxes.insert(sandbox.to_owned(), addresses.clone());
        Ok(addresses)
    }

    /// Frees what `sandbox` has; says whether it had anything.
    pub(super) fn release(&mut self, sandbox: &str) -> bool {
        self.sandboxes.remove(sandbox).is_some()
    }

    fn next(&mut self, block: &Cidr) -> Result<IpAddr, Exhausted> {
        // The first address names the network, the second is the bridge's, the last IPv4 address
        // of a block is for broadcasts.
        let first = 2;
        let end = if block.is_ipv4() { block.size().saturating_sub(1) } else { block.size() };
        let used: BTreeSet<IpAddr> = self.sandboxes.values().flatten().copied().collect();
        let start = self.last.get(block).map_or(first, |last| last.saturating_add(1)).max(first);
        // One of the first `used + 1` places must be free, so the search is short even in a
        // block of 2^64 addresses.
        let found = (start..end)
            .chain(first..start.min(end))
            .take(used.len() + 1)
            .filter_map(|index| Some((index, block.nth(index)?)))
            .find(|(_, address)| !used.contains(address));
        let (index, address) = found.ok_or(Exhausted(*block))?;
        self.last.insert(*block, index);
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn gives_each_its_own_and_the_same_again() {
        let mut addresses = Addresses::default();
        let blocks = [block("10.42.0.0/24"), block("fd00:42::/64")];
        let a = addresses.assign("a", &blocks).unwrap();
        let b = addresses.assign("b", &blocks).unwrap();
        assert_eq!(format!("{a:?} {b:?}"), "[10.42.0.2, fd00:42::2] [10.42.0.3, fd00:42::3]");
        assert_eq!(addresses.assign("a", &blocks).unwrap(), a);
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut addresses = Addresses::default();
        let blocks = [block("10.42.0.0/29")];
        let given: Vec<_> = ["a", "b", "c", "d", "e"]
            .map(|name| addresses.assign(name, &blocks).unwrap()[0].to_string())
            .into();
        assert_eq!(given, ["10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.5", "10.42.0.6"]);
        assert_eq!(addresses.assign("f", &blocks), Err(Exhausted(blocks[0])));
        assert!(addresses.release("b"));
        assert!(!addresses.release("b"));
        assert!(addresses.release("d"));
        assert_eq!(addresses.assign("f", &blocks).unwrap()[0].to_string(), "10.42.0.3");
        assert_eq!(addresses.assign("g", &blocks).unwrap()[0].to_string(), "10.42.0.5");
    }

    #[test]
    fn another_block_means_another_address() {
        let mut addresses = Addresses::default();
        addresses.assign("a", &[block("10.42.0.0/24")]).unwrap();
        let moved = addresses.assign("a", &[block("10.42.7.0/24")]).unwrap();
        assert_eq!(moved[0].to_string(), "10.42.7.2");
    }

    #[test]
    fn a_block_too_small_gives_nothing() {
        for text in ["10.42.0.0/32", "10.42.0.0/31"] {
            let blocks = [block(text)];
            let mut addresses = Addresses::default();
            assert_eq!(addresses.assign("a", &blocks), Err(Exhausted(blocks[0])), "{text}");
        }
    }

    #[test]
    fn survives_its_file_format() {
        let mut addresses = Addresses::default();
        addresses.assign("a", &[block("10.42.0.0/24"), block("fd00:42::/64")]).unwrap();
        let json = serde_json::to_string(&addresses).unwrap();
        assert_eq!(serde_json::from_str::<Addresses>(&json).unwrap(), addresses);
    }
}
