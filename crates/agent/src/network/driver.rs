//! Keeps proxy and DNS in step with the objects: changes are gathered for a moment, then the
//! whole model is handed over, and only if it differs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Informer, Informers, Key, Object};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use net::dns::{Keeper, Names, ZoneService};
use net::{ServiceModel, ServiceProxy};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::health::{Door, Doors, Health};
use super::{dns, host_ports, services};

/// Changes within this time are one change: a rollout touches slices many times a second.
const GATHER: Duration = Duration::from_millis(25);
/// Pause after the kernel refused, doubling.
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// What the network of a node is made of.
pub struct NetworkParts {
    /// Loads services into the kernel; none where something else does it.
    pub proxy: Option<ServiceProxy>,
    /// Where the proxy says whether load balancers may send here; none: nowhere.
    pub proxy_health: Option<SocketAddr>,
    /// Where it shows its figures; none: nowhere.
    pub proxy_metrics: Option<SocketAddr>,
    /// Has somebody answer for the cluster's names; none where something else does it.
    pub dns: Option<Keeper>,
    /// Addresses that this node answers itself.
    pub own_addresses: Vec<IpAddr>,
}

/// The translator from objects to the network.
pub struct Network {
    parts: NetworkParts,
    node: Key,
    nodes: Informer<Node>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    changed: Arc<Notify>,
    doors: Doors,
    loaded: Option<ServiceModel>,
    named: Option<Arc<Names>>,
}

impl Network {
    /// Watches what the network depends on; `pods` are those of this node at least.
    pub fn new(
        parts: NetworkParts,
        node: &str,
        informers: &Informers,
        pods: Informer<Pod>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let (nodes, own) = (informers.of::<Node>(), Key::new("", node));
        let known = (nodes.clone(), own.clone());
        let this = Network {
            parts,
            node: own,
            nodes,
            services: informers.of(),
            slices: informers.of(),
            namespaces: informers.of(),
            pods,
            changed,
            doors: Doors::new(Health::new(move || known.0.get(&known.1))),
            loaded: None,
            named: None,
        };
        this.follow(&this.services);
        this.follow(&this.slices);
        this.follow(&this.namespaces);
        this.follow_pods();
        this.follow_zone();
        this
    }

    fn follow<K: Object>(&self, informer: &Informer<K>) {
        let changed = self.changed.clone();
        informer.on_change(move |_| changed.notify_one());
    }

    /// Of pods only those with host ports matter.
    fn follow_pods(&self) {
        let changed = self.changed.clone();
        self.pods.on_change(move |change| {
            if !host_ports([&**change.latest()]).is_empty()
                || change.old.as_deref().is_some_and(|p| !host_ports([p]).is_empty())
            {
                changed.notify_one();
            }
        });
    }

    fn follow_zone(&self) {
        let (changed, own) = (self.changed.clone(), self.node.clone());
        self.nodes.on_change(move |change| {
            let before = change.old.as_deref().and_then(zone);
            if Key::of(&**change.latest()) == own && before != zone(change.latest()) {
                changed.notify_one();
            }
        });
    }

    /// Keeps in step until `stop`. Rules and names stay: connections go on, and names are answered,
    /// while the agent is away.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.parts.proxy.is_some() {
            let doors =
                [(Door::Health, self.parts.proxy_health), (Door::Status, self.parts.proxy_metrics)];
            for (door, address) in doors {
                address.into_iter().for_each(|address| self.doors.open(door, address));
            }
        }
        let synced = async {
            // Half a picture would take services away that others still use.
            self.services.synced().await
                && self.slices.synced().await
                && self.namespaces.synced().await
                && self.pods.synced().await
        };
        tokio::select! {
            _ = synced => {}
            () = stop.cancelled() => {}
        }
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.apply().await {
                Ok(()) => {
                    failures = 0;
                    None
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error = %base::chain(&error), "services not loaded");
                    Some(RETRY.jittered(failures))
                }
            };
            let retry = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {
                    self.doors.health().queued(Instant::now());
                    tokio::time::sleep(GATHER).await;
                }
                () = retry => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn apply(&mut self) -> Result<(), net::ProxyError> {
        let (services, slices) = (self.services.list(), self.slices.list());
        let services = || services.iter().map(|s| &**s);
        let slices = || slices.iter().map(|s| &**s);
        self.name(dns::names(services(), slices()));
        let Some(proxy) = &mut self.parts.proxy else { return Ok(()) };
        let own = &self.parts.own_addresses;
        let pods = self.pods.list();
        let here = |pod: &&Pod| {
            pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&*self.node.name)
        };
        let node = self.nodes.get(&self.node);
        let zone = node.as_deref().and_then(zone);
        let place = services::Here { node: &self.node.name, zone };
        let model = ServiceModel {
            services: services::model(services(), slices(), place, own),
            host_ports: host_ports(pods.iter().map(|p| &**p).filter(here)),
        };
        let local = services::local(services(), &model.services);
        let began = Instant::now();
        if self.loaded.as_ref() != Some(&model) {
            proxy.apply(&model).await?;
            self.loaded = Some(model);
        }
        self.doors.health().loaded(began.elapsed());
        let ports: Vec<u16> = local.keys().copied().collect();
        self.doors.health().set_services(local);
        self.doors.open_services(ports);
        Ok(())
    }

    fn name(&mut self, mut services: Vec<ZoneService>) {
        let Some(dns) = &self.parts.dns else { return };
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let names = self.namespaces.list();
        let mut names: Vec<String> = names.iter().filter_map(|n| n.metadata.name.clone()).collect();
        names.sort();
        let new = Names { namespaces: names, services };
        if self.named.as_deref() != Some(&new) {
            let new = Arc::new(new);
            dns.update(new.clone());
            self.named = Some(new);
        }
    }
}

/// The zone that a node is labelled with.
fn zone(node: &Node) -> Option<&str> {
    node.labels().get("topology.kubernetes.io/zone").map(String::as_str)
}
