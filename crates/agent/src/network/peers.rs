//! Keeps the ways to other boards' pods in step with the Nodes and with this board's links.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::Informer;
use k8s_openapi::api::core::v1::Node;
use net::{Disturbances, Peer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Attach;

/// Names the address that other boards send a node's pod traffic to, where it is not the node's
/// internal address.
const NOTE_ADDRESS: &str = "coracle.io/pod-network-address";
/// Says `vxlan` on a node that sends its pods' packets through the tunnel to everybody.
pub(crate) const NOTE_BACKEND: &str = "coracle.io/network-backend";
/// Changes within this time are one change: a link that comes up tells so several times.
const GATHER: Duration = Duration::from_millis(100);
/// Pause after the kernel refused, doubling.
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The other boards, sorted by name: those that have been given pod addresses and say where they
/// are. Pure.
pub fn peers<'a>(nodes: impl IntoIterator<Item = &'a Node>, own: &str) -> Vec<Peer> {
    let mut out: Vec<Peer> = nodes.into_iter().filter_map(peer).collect();
    out.retain(|peer| peer.node != own);
    out.sort_by(|a, b| a.node.cmp(&b.node));
    out
}

fn peer(node: &Node) -> Option<Peer> {
    let name = node.metadata.name.clone()?;
    let spec = node.spec.as_ref()?;
    let one = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.is_none());
    let blocks = spec.pod_cidrs.iter().flatten().chain(one);
    let pod_cidrs: Vec<net::Cidr> = blocks.filter_map(|block| block.parse().ok()).collect();
    let note = |key| node.metadata.annotations.as_ref().and_then(|notes| notes.get(key));
    let tunnel = note(NOTE_BACKEND).is_some_and(|backend| backend == "vxlan");
    let noted = note(NOTE_ADDRESS);
    let noted: Vec<IpAddr> = noted
        .iter()
        .flat_map(|text| text.split(','))
        .filter_map(|ip| ip.trim().parse().ok())
        .collect();
    let node_ips = if noted.is_empty() { internal_addresses(node) } else { noted };
    let known = !pod_cidrs.is_empty() && !node_ips.is_empty();
    known.then_some(Peer { node: name, pod_cidrs, node_ips, tunnel })
}

fn internal_addresses(node: &Node) -> Vec<IpAddr> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

/// Tells the pod network who is there.
pub(crate) struct Peers {
    network: Arc<dyn Attach>,
    node: String,
    nodes: Informer<Node>,
    changed: Arc<Notify>,
    /// What was last complained about, to say it once.
    complaint: Option<String>,
}

impl Peers {
    /// Watches the nodes; nothing happens before [`Peers::run`].
    pub(crate) fn new(network: Arc<dyn Attach>, node: &str, nodes: Informer<Node>) -> Self {
        let changed = Arc::new(Notify::new());
        let news = changed.clone();
        // Heartbeats change a Node all the time; where it is and what it has do not.
        nodes.on_change(move |change| {
            if change.old.as_deref().and_then(peer) != change.new.as_deref().and_then(peer) {
                news.notify_one();
            }
        });
        Self { network, node: node.to_owned(), nodes, changed, complaint: None }
    }

    /// Keeps in step until `stop`. Routes stay: pods go on talking while the agent is away.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            // Half a list would take ways away that pods still use.
            _ = self.nodes.synced() => {}
            () = stop.cancelled() => return,
        }
        let mut disturbances = self.network.disturbances().await;
        let mut failures = 0;
        while !stop.is_cancelled() {
            failures = if self.apply().await { 0 } else { failures + 1 };
            tokio::select! {
                () = self.changed.notified() => {}
                () = disturbed(&mut disturbances) => {}
                () = tokio::time::sleep(RETRY.jittered(failures)), if failures > 0 => {}
                () = stop.cancelled() => return,
            }
            gather(&mut disturbances).await;
            if disturbances.is_none() {
                disturbances = self.network.disturbances().await;
            }
        }
    }

    async fn apply(&mut self) -> bool {
        let nodes = self.nodes.list();
        let peers = peers(nodes.iter().map(|node| &**node), &self.node);
        let outcome = self.network.set_peers(&peers).await;
        let complaint = outcome.err();
        if complaint != self.complaint {
            match &complaint {
                Some(error) => tracing::warn!(error, "pods of other nodes are out of reach"),
                None => tracing::info!(peers = peers.len(), "pods of all nodes are in reach again"),
            }
            self.complaint.clone_from(&complaint);
        }
        complaint.is_none()
    }
}

/// Returns at the next disturbance; never where nobody tells. A listener that broke off is news
/// itself, and is gone afterwards.
async fn disturbed(listener: &mut Option<Disturbances>) {
    match listener {
        Some(disturbances) => {
            if disturbances.next().await.is_err() {
                *listener = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// Lets what belongs together arrive.
async fn gather(listener: &mut Option<Disturbances>) {
    let all = async {
        while listener.is_some() {
            disturbed(listener).await;
        }
    };
    let _ = tokio::time::timeout(GATHER, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, spec: serde_json::Value, addresses: &[(&str, &str)]) -> Node {
        let addresses: Vec<_> =
            addresses.iter().map(|(kind, ip)| json!({"type": kind, "address": ip})).collect();
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec,
            "status": {"addresses": addresses}}))
        .unwrap()
    }

    fn told(nodes: &[Node]) -> Vec<String> {
        let peers = peers(nodes, "me");
        let told = peers.iter().map(|p| {
            let tunnel = if p.tunnel { " tunnel" } else { "" };
            format!("{} {:?} {:?}{tunnel}", p.node, blocks(p), p.node_ips)
        });
        told.collect()
    }

    fn blocks(peer: &Peer) -> Vec<String> {
        peer.pod_cidrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_that_have_addresses_are_peers() {
        let internal =
            [("Hostname", "b"), ("ExternalIP", "203.0.113.1"), ("InternalIP", "192.0.2.2")];
        let mut noted = node("d", json!({"podCIDR": "10.42.4.0/24"}), &internal);
        noted.metadata.annotations = Some(
            [(NOTE_ADDRESS, "198.51.100.4, fd00::4"), (NOTE_BACKEND, "vxlan")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        );
        assert_eq!(
            told(&[
                noted,
                node("c", json!({}), &internal),
                node("me", json!({"podCIDR": "10.42.0.0/24"}), &internal),
                node("e", json!({"podCIDR": "10.42.5.0/24"}), &[("Hostname", "e")]),
                node(
                    "b",
                    json!({"podCIDR": "10.42.2.0/24", "podCIDRs": ["10.42.2.0/24", "fd00:42::/64"]}),
                    &internal
                ),
            ]),
            [
                r#"b ["10.42.2.0/24", "fd00:42::/64"] [192.0.2.2]"#,
                r#"d ["10.42.4.0/24"] [198.51.100.4, fd00::4] tunnel"#,
            ]
        );
    }
}
