//! Cluster addresses and node ports are given out by the datastore: a number belongs to whoever
//! creates the one object that stands for it, an `IPAddress` (as upstream has them) or, for a
//! port, one in a collection that is not served. What is taken is chosen around; what is lost to
//! another server is found out when the claim is made, before the Service is written.
//!
//! A claim without its Service (a server died in between) is given back by [`Registry::repair`];
//! a Service without its claim (written by an older version) gets one there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::status::Status;
use serde_json::{Value, json};
use store::{Entry, Expect, Key, Page, Range, Revision, WriteError};
use tokio::time::Instant;

use super::call::Target;
use super::services::{self, Numbers, Ranges};
use super::write::write_failure;
use super::{Outcome, Registry, codec, names};

const SERVICES: &str = "services";
const ADDRESSES: &str = "networking.k8s.io/ipaddresses";
const PORTS: &str = "coracle.internal/nodeports";
/// How long a claim without a Service is left alone: longer than any request takes.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(300);

/// What was claimed for a Service that is about to be written.
#[derive(Debug, Default)]
pub struct Claims(Vec<(Key, Revision)>);

/// Claims that were found without a Service, and since when.
#[derive(Debug, Default)]
pub struct Orphans(Mutex<HashMap<Key, (Revision, Instant)>>);

/// Whether objects of the kind are given numbers that nobody else has.
pub fn is_service(target: &Target) -> bool {
    target.resource.collection() == SERVICES
}

/// The objects that stand for numbers.
fn keys(numbers: &Numbers) -> Vec<Key> {
    let addresses = numbers.addresses.iter().map(|ip| Key::new(ADDRESSES, "", &*ip.to_string()));
    let ports = numbers.ports.iter().map(|port| Key::new(PORTS, "", &*port.to_string()));
    addresses.chain(ports).collect()
}

/// Whose a claim is: namespace and name of a Service.
fn owner(claim: &Entry) -> (String, String) {
    let parent = codec::extract(&claim.value, &["spec", "parentRef"]).unwrap_or_default();
    let text = |field: &str| parent[field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Registry {
    /// Completes a Service's addresses and ports with numbers that nobody has, as far as this
    /// server knows. Other kinds have none.
    pub(super) fn choose_numbers(
        &self,
        target: &Target,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Outcome<()> {
        if !is_service(target) {
            return Ok(());
        }
        let mut taken = Numbers::default();
        for entry in self.entries(SERVICES)? {
            taken.add(&entry.value);
        }
        for claim in self.entries(ADDRESSES)?.iter().chain(&self.entries(PORTS)?) {
            let (namespace, name) = owner(claim);
            if (namespace.as_str(), name.as_str()) != (&target.namespace, &target.name) {
                taken.add_claimed(&claim.key.name);
            }
        }
        let config = self.config();
        let ranges = Ranges { cidrs: &config.service_cidrs, node_ports: config.node_ports };
        services::complete(object, old, taken, &ranges)
    }

    fn entries(&self, collection: &str) -> Outcome<Vec<Arc<Entry>>> {
        let list = self.store().list(Range { collection, namespace: None }, Page::default());
        let list = list.map_err(|error| Status::internal_error(&error.to_string()))?;
        Ok(list.entries.to_vec())
    }

    /// Claims what the new state of a Service has and the old one has not. `None` where a number
    /// belongs to another Service by now: all is to be chosen anew.
    pub(super) async fn claim(
        &self,
        target: &Target,
        object: &Value,
        old: Option<&Value>,
    ) -> Outcome<Option<Claims>> {
        let mut claims = Claims::default();
        if !is_service(target) {
            return Ok(Some(claims));
        }
        let mut wanted = Numbers::of(&object["spec"]);
        if let Some(old) = old {
            wanted.remove(&Numbers::of(&old["spec"]));
        }
        let keys = keys(&wanted);
        let made = keys.iter().map(|key| self.make_claim(key, target));
        let mut lost = None;
        for (key, made) in keys.iter().zip(futures::future::join_all(made).await) {
            match made {
                Ok(entry) => claims.0.push((key.clone(), entry.revision)),
                Err(WriteError::Conflict { current }) => {
                    let own = current.as_deref().map(owner).is_some_and(|(namespace, name)| {
                        namespace == target.namespace && name == target.name
                    });
                    lost = lost.or((!own).then_some(None));
                }
                Err(error) => lost = Some(Some(write_failure(target, error))),
            }
        }
        match lost {
            None => Ok(Some(claims)),
            Some(failure) => {
                self.give_back(target, claims).await;
                failure.map_or(Ok(None), Err)
            }
        }
    }

    async fn make_claim(&self, key: &Key, target: &Target) -> Result<Arc<Entry>, WriteError> {
        let (kind, api_version, labels) = if &*key.collection == ADDRESSES {
            let family = if key.name.contains(':') { "IPv6" } else { "IPv4" };
            let labels = json!({
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            });
            ("IPAddress", "networking.k8s.io/v1", labels)
        } else {
            ("NodePort", "coracle.internal/v1", json!({}))
        };
        let object = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {
                "name": &*key.name, "uid": base::names::uuid(), "labels": labels,
                "creationTimestamp": names::time(self.now()),
            },
            "spec": {"parentRef": {
                "resource": SERVICES, "namespace": target.namespace, "name": target.name}},
        });
        self.store().put(key.clone(), Expect::Absent, codec::encode(&object).into()).await
    }

    /// Gives back what was claimed for a Service that was not written.
    pub(super) async fn give_back(&self, target: &Target, claims: Claims) {
        if claims.0.is_empty() || self.context.fresh().await.is_err() {
            return;
        }
        // Somebody may have written the very same Service meanwhile, on the strength of these.
        let present = self.store().get(&target.key());
        let held = keys(&present.map(|entry| Numbers::of_stored(&entry.value)).unwrap_or_default());
        for (key, revision) in claims.0.into_iter().filter(|(key, _)| !held.contains(key)) {
            self.drop_claim(&key, revision).await;
        }
    }

    /// Gives back what the old state of a Service had and the new one (`None`: it is gone) has not.
    pub(super) async fn release(&self, target: &Target, old: &Value, new: Option<&Value>) {
        if new.is_none() {
            self.end_tokens(target).await;
        }
        if !is_service(target) {
            return;
        }
        let mut gone = Numbers::of(&old["spec"]);
        if let Some(new) = new {
            gone.remove(&Numbers::of(&new["spec"]));
        }
        // The claim may be of another server.
        if gone == Numbers::default() || self.context.fresh().await.is_err() {
            return;
        }
        for key in keys(&gone) {
            let own = self
                .store()
                .get(&key)
                .filter(|claim| owner(claim) == (target.namespace.clone(), target.name.clone()));
            if let Some(claim) = own {
                self.drop_claim(&key, claim.revision).await;
            }
        }
    }

    async fn drop_claim(&self, key: &Key, revision: Revision) {
        if let Err(error) = self.store().delete(key, Expect::Revision(revision)).await {
            // It is found without its Service later.
            tracing::debug!(number = %key.name, error = %base::chain(&error), "not given back");
        }
    }

    /// Makes the claims that Services lack, and gives back those that have been without a Service
    /// for a while; at a start of the only server, at once.
    pub(crate) async fn repair(&self) -> Outcome<()> {
        self.context.fresh().await?;
        let mut held: HashMap<Key, (String, String)> = HashMap::new();
        for entry in self.entries(SERVICES)? {
            let place = (entry.key.namespace.to_string(), entry.key.name.to_string());
            for key in keys(&Numbers::of_stored(&entry.value)) {
                if let Some(other) = held.insert(key.clone(), place.clone()) {
                    tracing::warn!(number = %key.name, one = ?other, another = ?place,
                        "two Services have this number; delete and create one of them");
                }
                if self.store().get(&key).is_none() {
                    let target = self.service(&place)?;
                    // Whoever was faster has claimed it, which shows at the next look.
                    drop(self.make_claim(&key, &target).await);
                }
            }
        }
        let mut orphans = HashMap::new();
        for claim in self.entries(ADDRESSES)?.iter().chain(&self.entries(PORTS)?) {
            if held.get(&claim.key).is_none_or(|place| *place != owner(claim)) {
                orphans.insert(claim.key.clone(), claim.revision);
            }
        }
        for (key, revision) in self.orphans.due(orphans, self.store().is_shared()) {
            tracing::info!(number = %key.name, "belongs to no Service and is given back");
            self.drop_claim(&key, revision).await;
        }
        Ok(())
    }

    fn service(&self, (namespace, name): &(String, String)) -> Outcome<Target> {
        let path = (String::new(), "v1".to_owned(), SERVICES.to_owned());
        let resource = self.resources.get(&path).ok_or_else(Status::unknown_path)?;
        Ok(Target {
            resource: Arc::clone(resource),
            version: "v1".to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
        })
    }
}

impl Orphans {
    /// Notes what is without a Service now, and says what has been so for long enough.
    fn due(&self, found: HashMap<Key, Revision>, patient: bool) -> Vec<(Key, Revision)> {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|key, (revision, _)| found.get(key) == Some(revision));
        let mut due = Vec::new();
        for (key, revision) in found {
            let (_, since) = *known.entry(key.clone()).or_insert((revision, now));
            if !patient || now.duration_since(since) >= ORPHAN_PATIENCE {
                due.push((key, revision));
            }
        }
        due
    }
}

/// Whether a failed write may have happened all the same: what it claimed stays claimed.
pub fn is_unresolved(status: &Status) -> bool {
    status.code == 504
}
