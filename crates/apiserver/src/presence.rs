//! Which servers there are: each keeps a Lease of its own fresh, and each keeps the endpoints of
//! `default/kubernetes` at what the fresh ones say (upstream's lease reconciler, with Leases that
//! everybody can see in place of keys in etcd).
//!
//! Where a server runs an agent too, that renews its node's Lease through this very server and in
//! the same process, which says all that renewing a second Lease would: the server's own speaks
//! for itself only while the node's is silent.
//!
//! A server's clock is compared with nobody else's: a Lease is as old as the time for which this
//! server has seen it unchanged, and it grows no older while this server cannot write itself. A
//! single server writes its Lease once and never again.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Key, Page, Range};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::response;
use crate::server::ApiServer;
use crate::user::User;

/// A Lease that nobody has renewed for so long is a dead server's.
const LEASE_LIFE: Duration = Duration::from_secs(15);
/// How often a server renews its Lease, as upstream.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// How long the Lease of its node may be silent before it renews its own: longer than one renewal
/// comes after the other, and shorter than [`LEASE_LIFE`].
const NODE_SILENCE: Duration = Duration::from_millis(12_600);
/// How long a Lease says that it holds where the node's is the one that is renewed, as upstream's
/// Leases of API servers say.
const LONG_LIFE: Duration = Duration::from_secs(3600);
/// Pause before it tries again where a renewal failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks at the others' Leases, which are in memory.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often a server looks for addresses and ports that are claimed for no Service.
const REPAIR_INTERVAL: Duration = Duration::from_secs(180);
/// How long a server that stops takes at most to say so.
const LEAVE_PATIENCE: Duration = Duration::from_secs(3);
const COLLECTION: &str = "coordination.k8s.io/leases";
const NAMESPACE: &str = "kube-system";
const NODE_LEASES: &str = "kube-node-lease";
/// Says that the Lease of the server's node is renewed in place of this one.
const BY_NODE: &str = "coracle.dev/renewed-by-node";
const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// Upstream's mark of an API server's own Lease.
const IDENTITY: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
const HOSTNAME: &str = "kubernetes.io/hostname";
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The node that it runs on; a controller gives that node the roles.
    pub node: String,
    /// `control-plane` and, where it runs a member of etcd, `etcd`.
    pub roles: Vec<String>,
    /// Whether the node's agent runs in this process and renews the node's Lease through it.
    pub agent: bool,
}

/// A server's Lease as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    name: String,
    /// Of this Lease.
    own: u64,
    /// Of this Lease or of its node's, whichever is newer.
    revision: u64,
    address: SocketAddr,
}

/// Since when each Lease has been as it is.
#[derive(Default)]
struct Observed(HashMap<String, (u64, Instant)>);

impl Observed {
    /// Since when a Lease has been as it is.
    fn since(&self, name: &str) -> Option<Instant> {
        self.0.get(name).map(|(_, at)| *at)
    }

    /// Makes all of them younger by the time for which this server itself waited for a write:
    /// what keeps one from renewing keeps all from it.
    fn spare(&mut self, waited: Duration) {
        self.0.values_mut().for_each(|(_, at)| *at += waited);
    }

    /// The records that are fresh, and those that are not.
    fn sort(&mut self, records: Vec<Record>, now: Instant) -> (Vec<Record>, Vec<Record>) {
        self.0.retain(|name, _| records.iter().any(|record| record.name == *name));
        for record in &records {
            let seen = self.0.entry(record.name.clone()).or_insert((record.revision, now));
            if seen.0 != record.revision {
                *seen = (record.revision, now);
            }
        }
        let fresh = |record: &Record| now.duration_since(self.0[&record.name].1) < LEASE_LIFE;
        records.into_iter().partition(fresh)
    }
}

/// This server's own Lease: when it was renewed, unless that failed, and when it will be.
struct Own {
    renewed: Option<Instant>,
    due: Instant,
}

impl Own {
    /// Puts the renewal off for as long as the Lease, or the node's, moves: it did at `moved`;
    /// `None` where somebody has removed it.
    fn leave_to_node(&mut self, moved: Option<Instant>, now: Instant) {
        if let Some(renewed) = self.renewed {
            let silent = moved.map_or(now, |moved| moved + NODE_SILENCE);
            self.due = silent.min(renewed + LONG_LIFE / 2);
        }
    }
}

impl ApiServer {
    /// Announces this server until `stop`, and takes it back then. To be called once the server
    /// is served and [`bootstrap`](Self::bootstrap) is done.
    pub async fn announce(self: Arc<Self>, presence: Presence, stop: CancellationToken) {
        let name = format!("apiserver-{}", presence.node);
        if !self.context.store.is_shared() {
            self.announce_alone(&name, &presence).await;
            return stop.cancelled().await;
        }
        let mut observed = Observed::default();
        let mut repaired = Instant::now();
        let mut own = Own { renewed: None, due: repaired };
        while !stop.is_cancelled() {
            if own.due <= Instant::now() {
                own = self.renew_own(&name, &presence, &mut observed).await;
            }
            let (fresh, stale) = observed.sort(self.records(), Instant::now());
            for record in stale {
                tracing::warn!(server = record.name, "has not been heard of and is taken off");
                self.remove(&record.name, Some(record.own)).await;
            }
            self.publish(fresh).await;
            if repaired.elapsed() >= REPAIR_INTERVAL {
                repaired = Instant::now();
                if let Err(status) = self.registry.repair().await {
                    tracing::debug!(
                        error = status.message,
                        "addresses and ports not looked through"
                    );
                }
            }
            if presence.agent {
                own.leave_to_node(observed.since(&name), Instant::now());
            }
            let next = own.due.min(Instant::now() + LOOK_INTERVAL);
            stop.run_until_cancelled(tokio::time::sleep_until(next)).await;
        }
        let leave = async {
            self.remove(&name, None).await;
            let (mut fresh, _) = observed.sort(self.records(), Instant::now());
            fresh.retain(|record| record.name != name);
            // The last one leaves its address where it is: it may come back there.
            if !fresh.is_empty() {
                self.publish(fresh).await;
            }
        };
        if tokio::time::timeout(LEAVE_PATIENCE, leave).await.is_err() {
            tracing::warn!("the other servers could not be told in time that this one stops");
        }
    }

    /// Renews this server's Lease. Nobody is held to have been silent for as long as this server
    /// could not write.
    async fn renew_own(
        self: &Arc<Self>,
        name: &str,
        presence: &Presence,
        observed: &mut Observed,
    ) -> Own {
        let begun = Instant::now();
        let due = begun + base::next_beat(Timestamp::now(), RENEW_INTERVAL);
        match self.renew(name, presence).await {
            Ok(()) => {
                observed.spare(begun.elapsed());
                Own { renewed: Some(begun), due }
            }
            Err(error) => {
                tracing::warn!(error, "this server's Lease could not be renewed");
                *observed = Observed::default();
                Own { renewed: None, due: Instant::now() + RETRY_INTERVAL }
            }
        }
    }

    /// The only server says once who it is, and that there are no others.
    async fn announce_alone(self: &Arc<Self>, name: &str, presence: &Presence) {
        for record in self.records().iter().filter(|record| record.name != name) {
            self.remove(&record.name, Some(record.own)).await;
        }
        let wanted = self.lease(name, presence, None);
        let known = crate::objects::object(&self.context.store, COLLECTION, NAMESPACE, name);
        let same = known.is_some_and(|known| {
            known["metadata"]["labels"] == wanted["metadata"]["labels"]
                && known["spec"]["holderIdentity"] == wanted["spec"]["holderIdentity"]
        });
        if !same && let Err(error) = self.renew(name, presence).await {
            tracing::warn!(error, "this server's Lease could not be written");
        }
    }

    fn lease(&self, name: &str, presence: &Presence, now: Option<Timestamp>) -> Value {
        let mut labels = BTreeMap::from([
            (IDENTITY.0.to_owned(), IDENTITY.1.to_owned()),
            (HOSTNAME.to_owned(), presence.node.clone()),
        ]);
        let roles = presence.roles.iter();
        labels.extend(roles.map(|role| (format!("{ROLE_PREFIX}{role}"), "true".to_owned())));
        let life = if presence.agent { LONG_LIFE } else { LEASE_LIFE };
        let notes = BTreeMap::from_iter(presence.agent.then_some((BY_NODE, "true")));
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "labels": labels, "annotations": notes,
            },
            "spec": {
                "holderIdentity": self.context.config.advertise.to_string(),
                "leaseDurationSeconds": life.as_secs(),
                "renewTime": now.map(|now| format!("{now:.6}")),
            },
        })
    }

    async fn renew(self: &Arc<Self>, name: &str, presence: &Presence) -> Result<(), String> {
        let lease = self.lease(name, presence, Some(Timestamp::now()));
        let path = format!("{PATH}/{name}");
        let mut patch = lease.clone();
        if !presence.agent {
            patch["metadata"]["annotations"][BY_NODE] = Value::Null;
        }
        // Who set which field is nearly half of a Lease, and would be written each time.
        patch["metadata"]["managedFields"] = json!([{}]);
        match self.ask(Method::PATCH, &path, patch).await? {
            StatusCode::NOT_FOUND => match self.ask(Method::POST, PATH, lease).await? {
                code if code.is_success() => Ok(()),
                code => Err(code.to_string()),
            },
            code if code.is_success() => Ok(()),
            code => Err(code.to_string()),
        }
    }

    /// Removes a Lease; another server's only as it was `seen`, since that may just have come back.
    async fn remove(self: &Arc<Self>, name: &str, seen: Option<u64>) {
        let options = seen.map_or(Value::Null, |revision| {
            json!({
                "apiVersion": "v1", "kind": "DeleteOptions",
                "preconditions": { "resourceVersion": revision.to_string() },
            })
        });
        match self.ask(Method::DELETE, &format!("{PATH}/{name}"), options).await {
            Ok(code) if code.is_success() || code == StatusCode::NOT_FOUND => {}
            Ok(StatusCode::CONFLICT) => tracing::info!(server = name, "is back"),
            Ok(code) => tracing::debug!(server = name, %code, "Lease not removed"),
            Err(error) => tracing::debug!(server = name, error, "Lease not removed"),
        }
    }

    async fn ask(
        self: &Arc<Self>,
        method: Method,
        path: &str,
        body: Value,
    ) -> Result<StatusCode, String> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(response::full(body))
            .map_err(|error| error.to_string())?;
        Ok(Arc::clone(self).answer(request, Some(User::apiserver())).await.status())
    }

    /// The Leases of all servers, as far as this server knows.
    fn records(&self) -> Vec<Record> {
        let range = Range { collection: COLLECTION, namespace: Some(NAMESPACE) };
        let Ok(list) = self.context.store.list(range, Page::default()) else { return Vec::new() };
        let of_server =
            |entry: &&Arc<store::Entry>| entry.labels.get(IDENTITY.0) == Some(IDENTITY.1);
        let record = |entry: &Arc<store::Entry>| {
            let lease: Value = serde_json::from_slice(&entry.value).ok()?;
            let address = lease["spec"]["holderIdentity"].as_str()?.parse().ok()?;
            let by_node = lease["metadata"]["annotations"][BY_NODE] == "true";
            let node = entry.labels.get(HOSTNAME).filter(|_| by_node);
            let node = node
                .and_then(|node| self.context.store.get(&Key::new(COLLECTION, NODE_LEASES, node)));
            let own = entry.revision;
            let revision = own.max(node.map_or(0, |node| node.revision));
            Some(Record { name: entry.key.name.to_string(), own, revision, address })
        };
        list.entries.iter().filter(of_server).filter_map(record).collect()
    }

    async fn publish(self: &Arc<Self>, fresh: Vec<Record>) {
        let addresses: Vec<SocketAddr> = fresh.iter().map(|record| record.address).collect();
        if let Err(error) = bootstrap::publish_endpoints(self, &addresses).await {
            tracing::warn!(error = %base::chain(&error), "the servers' endpoints could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, revision: u64) -> Record {
        let address = "192.0.2.1:6443".parse().unwrap();
        Record { name: name.into(), own: revision, revision, address }
    }

    #[tokio::test]
    async fn a_lease_that_was_renewed_meanwhile_stays() {
        let server = crate::testing::started().await;
        let presence = Presence { node: "b".into(), roles: Vec::new(), agent: false };
        let name = "apiserver-b";
        server.renew(name, &presence).await.unwrap();
        let seen = server.records()[0].own;
        server.renew(name, &presence).await.unwrap();
        server.remove(name, Some(seen)).await;
        let left = server.records();
        assert_eq!(left.len(), 1, "it came back after it was looked at");
        server.remove(name, Some(left[0].own)).await;
        assert_eq!(server.records(), []);
    }

    #[test]
    fn a_lease_is_as_old_as_it_is_seen_unchanged() {
        let start = Instant::now();
        let mut observed = Observed::default();
        let mut fresh = |seconds: u64, records: &[(&str, u64)]| {
            let records = records.iter().map(|(name, revision)| record(name, *revision)).collect();
            let (fresh, _) = observed.sort(records, start + Duration::from_secs(seconds));
            fresh.iter().map(|record| record.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(fresh(0, &[("a", 1), ("b", 2)]), "a b");
        assert_eq!(fresh(10, &[("a", 3), ("b", 2)]), "a b");
        assert_eq!(fresh(15, &[("a", 3), ("b", 2)]), "a");
        assert_eq!(fresh(16, &[("a", 4), ("b", 5)]), "a b", "back again");
        assert_eq!(fresh(17, &[("b", 5)]), "b");
        assert_eq!(fresh(40, &[("a", 4), ("b", 9)]), "a b", "what was forgotten is new");
    }

    #[test]
    fn a_server_renews_its_own_lease_only_while_its_nodes_is_silent() {
        let start = Instant::now();
        let due = |renewed: Option<u64>, moved: Option<u64>, now: u64| {
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut own = Own { renewed: renewed.map(at), due: at(1) };
            own.leave_to_node(moved.map(at), at(now));
            own.due.duration_since(start).as_secs_f64()
        };
        assert_eq!(due(Some(0), Some(20), 22), 32.6, "the node's has moved");
        assert_eq!(due(Some(0), Some(0), 12), 12.6, "it has not");
        assert_eq!(due(Some(0), Some(1795), 1797), 1800.0, "long enough before it expires");
        assert_eq!(due(Some(0), None, 5), 5.0, "it was removed");
        assert_eq!(due(None, Some(0), 3), 1.0, "the last renewal has failed");
        assert!(
            NODE_SILENCE >= RENEW_INTERVAL * 5 / 4 && NODE_SILENCE + LOOK_INTERVAL < LEASE_LIFE
        );
    }

    #[test]
    fn nobody_grows_older_while_this_server_waits_for_a_write() {
        let start = Instant::now();
        let mut observed = Observed::default();
        let fresh = |observed: &mut Observed, seconds: u64| {
            observed.sort(vec![record("a", 1)], start + Duration::from_secs(seconds)).0.len()
        };
        assert_eq!(fresh(&mut observed, 0), 1);
        observed.spare(Duration::from_secs(6));
        assert_eq!((fresh(&mut observed, 20), fresh(&mut observed, 21)), (1, 0));
    }
}
