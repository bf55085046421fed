//! What all pod workers of a node share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use client::{EventKind, Informer, Key, Recorder};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use runtime::Runtime;

use crate::config::Config;
use crate::objects::Objects;
use crate::pod::fields::Place;
use crate::shutdown::Leaving;

/// Attaches pods to the network; `net::PodNetwork` in production, a recorder in tests.
#[async_trait]
pub trait Attach: Send + Sync {
    /// Gives the namespace an interface; its addresses. Repeating it is harmless.
    async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Vec<IpAddr>, String>;
    /// The addresses of a sandbox that is attached.
    fn addresses(&self, sandbox: &str) -> Vec<IpAddr>;
    /// What sandboxes have received and sent; none where nobody counts.
    fn traffic(&self) -> BTreeMap<String, net::Traffic> {
        BTreeMap::new()
    }
    /// Takes the interface away. Harmless when there is nothing.
    async fn detach(&self, sandbox: &str) -> Result<(), String>;
    /// Detaches every sandbox that is not in `live`.
    async fn retain(&self, live: &HashSet<String>) -> Result<(), String>;
    /// Makes the ways to other boards' pods exactly these.
    async fn set_peers(&self, _peers: &[net::Peer]) -> Result<(), String> {
        Ok(())
    }
    /// News that these ways may have been lost; none where nothing can be lost.
    async fn disturbances(&self) -> Option<net::Disturbances> {
        None
    }
}

#[async_trait]
impl Attach for net::PodNetwork {
    async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Vec<IpAddr>, String> {
        let attached = net::PodNetwork::attach(self, sandbox, netns).await;
        attached.map(|a| a.addresses).map_err(|error| base::chain(&error).to_string())
    }

    fn addresses(&self, sandbox: &str) -> Vec<IpAddr> {
        self.attachment(sandbox).map(|a| a.addresses).unwrap_or_default()
    }

    fn traffic(&self) -> BTreeMap<String, net::Traffic> {
        net::PodNetwork::traffic(self)
    }

    async fn detach(&self, sandbox: &str) -> Result<(), String> {
        net::PodNetwork::detach(self, sandbox)
            .await
            .map_err(|error| base::chain(&error).to_string())
    }

    async fn retain(&self, live: &HashSet<String>) -> Result<(), String> {
        let retained = net::PodNetwork::retain(self, live).await;
        retained.map(drop).map_err(|error| base::chain(&error).to_string())
    }

    async fn set_peers(&self, peers: &[net::Peer]) -> Result<(), String> {
        let set = net::PodNetwork::set_peers(self, peers).await;
        set.map_err(|error| base::chain(&error).to_string())
    }

    async fn disturbances(&self) -> Option<net::Disturbances> {
        let opened = net::PodNetwork::disturbances(self).await;
        opened
            .inspect_err(
                |error| tracing::warn!(error = %base::chain(error), "routes are not watched"),
            )
            .ok()
    }
}

/// Label that carries the pod's name on sandboxes and containers.
pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
/// Label that carries the pod's namespace.
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label that carries the pod's uid.
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
/// Label that carries the container's name.
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// What all pod workers share.
pub struct Context {
    /// The node's settings.
    pub config: Config,
    /// The way to the API server.
    pub client: Client,
    /// Runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Attaches pods.
    pub network: Arc<dyn Attach>,
    /// All services, for environments.
    pub services: Informer<Service>,
    /// All nodes, this one among them.
    pub nodes: Informer<Node>,
    /// ConfigMaps and Secrets in use.
    pub objects: Objects,
    /// Writes events.
    pub recorder: Recorder,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// What the node offers to pods.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Whether the board is going down.
    pub leaving: Leaving,
    /// One lock per image that is being pulled.
    pulls: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// The parts a context is made of.
pub struct Parts {
    /// The node's settings.
    pub config: Config,
    /// The way to the API server.
    pub client: Client,
    /// Runs containers.
    pub runtime: Arc<dyn Runtime>,
    /// Attaches pods.
    pub network: Arc<dyn Attach>,
    /// All services.
    pub services: Informer<Service>,
    /// All nodes.
    pub nodes: Informer<Node>,
    /// Writes events.
    pub recorder: Recorder,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// What the node offers to pods.
    pub allocatable: BTreeMap<String, Quantity>,
}

impl Context {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Context {
            objects: Objects::new(parts.client.clone()),
            config: parts.config,
            client: parts.client,
            runtime: parts.runtime,
            network: parts.network,
            services: parts.services,
            nodes: parts.nodes,
            recorder: parts.recorder,
            memory_bytes: parts.memory_bytes,
            allocatable: parts.allocatable,
            leaving: Leaving::default(),
            pulls: Mutex::default(),
        }
    }

    /// The folder of a pod on disk.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    /// The tmpfs that holds what comes from the API.
    pub fn memory_root(&self) -> PathBuf {
        self.config.run_dir.join("volumes")
    }

    /// The folder of a pod on the tmpfs.
    pub fn memory_dir(&self, uid: &str) -> PathBuf {
        self.memory_root().join(uid)
    }

    /// The folder of a pod's logs, named as upstream names it.
    pub fn log_dir(&self, pod: &Pod) -> PathBuf {
        let meta = &pod.metadata;
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let name = format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid));
        self.config.log_dir.join(name)
    }

    /// This node as last seen.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.nodes.get(&Key::new("", &self.config.node_name))
    }

    /// Where a pod runs.
    pub fn place(&self, pod_ips: Vec<IpAddr>) -> Place {
        Place {
            host_ips: self.config.node_ips.clone(),
            pod_ips,
            allocatable: self.allocatable.clone(),
        }
    }

    /// The lock of one image: a second pull of it waits for the first and finds it there.
    pub fn pull_lock(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, lock| lock.strong_count() > 0);
        match pulls.get(image).and_then(Weak::upgrade) {
            Some(lock) => lock,
            None => {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                pulls.insert(image.to_owned(), Arc::downgrade(&lock));
                lock
            }
        }
    }

    /// Writes an event on a pod, or on one of its containers.
    pub fn event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: EventKind,
        reason: &str,
        note: &str,
    ) {
        self.recorder.event(&reference(pod, container), kind, reason, note);
    }
}

/// A reference to a pod, or into it to one of its containers.
fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let init = |name: &str| crate::pod::view::init_containers(pod).iter().any(|c| c.name == name);
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(|name| {
            let list = if init(name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        }),
    }
}
