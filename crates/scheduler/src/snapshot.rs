//! The cluster as the scheduler sees it while it decides: nodes with their pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::placement::ports::{HostPort, host_ports};
use client::{Key, Pod};
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;

use crate::resources::{self, Resources};

/// A pod with what is asked of it often worked out once.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it needs.
    pub requests: Resources,
    /// What it is taken to need when nodes are scored.
    pub scored: Resources,
    /// Ports of the node that it takes.
    pub ports: Vec<HostPort>,
}

impl PodInfo {
    /// Works out the above.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.as_deref();
        PodInfo {
            requests: resources::requests(&pod),
            scored: resources::requests_for_scoring(&pod),
            ports: spec.map(host_ports).unwrap_or_default(),
            pod,
        }
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Higher is more important.
    pub fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
    }
}

/// A node and what runs there.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node; none: pods are bound to it, but it is not (or no longer) known.
    pub node: Option<Arc<Node>>,
    /// Bound and assumed pods that have not finished.
    pub pods: HashMap<Key, Arc<PodInfo>>,
    /// What the node gives.
    pub allocatable: Resources,
    /// Sum of the pods' requests.
    pub requested: Resources,
    /// Sum of the pods' guessed requests.
    pub scored: Resources,
}

impl NodeInfo {
    fn unknown() -> Self {
        NodeInfo {
            node: None,
            pods: HashMap::new(),
            allocatable: Resources::default(),
            requested: Resources::default(),
            scored: Resources::default(),
        }
    }

    /// Adds a pod.
    pub fn add(&mut self, key: Key, pod: Arc<PodInfo>) {
        self.requested += &pod.requests;
        self.scored += &pod.scored;
        self.pods.insert(key, pod);
    }

    /// Takes a pod away.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(key)?;
        self.requested -= &pod.requests;
        self.scored -= &pod.scored;
        Some(pod)
    }

    /// A label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.labels().get(key).map(String::as_str)
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }
}

/// All nodes by name, with their pods, and the labels of namespaces. A scheduling decision
/// borrows it and changes nothing; the driver changes it between decisions.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each pod is.
    placed: HashMap<Key, String>,
    /// Labels of each namespace, for affinity terms with a namespace selector.
    pub namespaces: HashMap<String, BTreeMap<String, String>>,
    /// How many pods may leave of an application, for the choice of those that have to.
    pub budgets: HashMap<Key, Arc<PodDisruptionBudget>>,
}

impl Snapshot {
    /// The known nodes, ordered by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeInfo)> {
        let known = self.nodes.iter().filter(|(_, info)| info.node.is_some());
        known.map(|(name, info)| (name.as_str(), info))
    }

    /// One known node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|info| info.node.is_some())
    }

    /// Adds or renews a node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let info = self.nodes.entry(node.name_any()).or_insert_with(NodeInfo::unknown);
        info.allocatable = resources::allocatable(&node);
        info.node = Some(node);
    }

    /// Forgets a node, though not the pods on it.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Puts a pod on a node, away from where it was; gives what it was there.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) -> Option<Arc<PodInfo>> {
        let key = Key::of(pod.pod.as_ref());
        let was = self.remove_pod(&key);
        self.placed.insert(key.clone(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_insert_with(NodeInfo::unknown).add(key, pod);
        was
    }

    /// Takes a pod off its node; gives what it was there.
    pub fn remove_pod(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        let name = self.placed.remove(key)?;
        let info = self.nodes.get_mut(&name)?;
        let was = info.remove(key);
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.remove(&name);
        }
        was
    }

    /// Whether a pod is on a node.
    pub fn is_placed(&self, key: &Key) -> bool {
        self.placed.contains_key(key)
    }
}
