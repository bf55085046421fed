//! The pod addresses that a node is given.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;

use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile};

/// Gives each node its part of the pod addresses.
pub const NODE_IPAM: Controller = Controller {
    name: "cidrAllocator",
    // One key for all, so that no two nodes are given the same part at the same time.
    watches: |watches| watches.map::<Node>(|_, _| vec![Key::new("", "")]),
    reconcile: Reconcile::Plan(plan_addresses),
};

fn plan_addresses(cx: &Cx, _: &Key) -> Plan {
    let mut plan = Plan::default();
    let bits = cx.config.node_cidr_prefix_bits;
    let Some(parts) = Parts::of(&cx.config.cluster_cidr, bits) else { return plan };
    let nodes = cx.world.list::<Node>("");
    let cidr = |node: &Node| node.spec.as_ref().and_then(|s| s.pod_cidr.clone());
    let mut used: BTreeSet<String> = nodes.iter().filter_map(|node| cidr(node)).collect();
    for node in nodes.iter().filter(|node| cidr(node).is_none()) {
        let Some(free) = parts.iter().find(|part| !used.contains(part)) else {
            let note = "Node status is now: CIDRNotAvailable".to_owned();
            plan.push([Action::event(node.as_ref(), false, "CIDRNotAvailable", note)]);
            continue;
        };
        used.insert(free.clone());
        let mut given = node.as_ref().clone();
        let spec = given.spec.get_or_insert_default();
        spec.pod_cidr = Some(free.clone());
        spec.pod_cidrs = Some(vec![free]);
        plan.push(Action::change(node.as_ref(), &given, ""));
    }
    plan
}

/// The equal parts of an IPv4 network.
struct Parts {
    first: u32,
    count: u32,
    bits: u8,
}

impl Parts {
    fn of(cidr: &str, bits: u8) -> Option<Parts> {
        let (address, prefix) = cidr.split_once('/')?;
        let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let count = 1u32.checked_shl(u32::from(bits.checked_sub(prefix)?))?;
        (bits <= 32).then_some(Parts { first: address.to_bits(), count, bits })
    }

    fn iter(&self) -> impl Iterator<Item = String> {
        let step = 1u64 << (32 - u32::from(self.bits));
        (0..u64::from(self.count)).filter_map(move |part| {
            let address = u32::try_from(u64::from(self.first) + part * step).ok()?;
            Some(format!("{}/{}", Ipv4Addr::from_bits(address), self.bits))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::check;

    #[test]
    fn each_node_gets_the_lowest_free_part() {
        check(
            &NODE_IPAM,
            "",
            "
kind: Node
metadata: {name: well}
spec: {podCIDR: 10.42.0.0/24}
---
kind: Node
metadata: {name: new}
",
            r#"patch Node new {"spec":{"podCIDR":"10.42.1.0/24","podCIDRs":["10.42.1.0/24"]}}"#,
        );
    }
}
