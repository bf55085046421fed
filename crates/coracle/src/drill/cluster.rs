//! The cluster as a drill sees it: its boards, its servers one by one, and the drill's own pods.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Method, Request};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::door::Door;
use super::plan::Board;
use crate::commands::kubeconfig;
use crate::failure::{Failure, Hint, Outcome, While};

/// Where the drill's own pods are.
pub const NAMESPACE: &str = "coracle-drill";
/// The probe's name.
const PROBE: &str = "probe";
/// How long a pod of the probe stays beside a board that is lost.
const STAY_SECONDS: i64 = 5;
/// Label of servers.
const SERVER: &str = "node-role.kubernetes.io/control-plane";
/// The port of etcd's clients and of its peers.
const ETCD_PORTS: [u16; 2] = [2379, 2380];
/// The port of the kubelet's API.
const KUBELET_PORT: u16 = 10250;
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cluster, by one way to any server and one to each.
pub struct Cluster {
    kubeconfig: String,
    /// Reaches the cluster as the kubeconfig says.
    pub front: Arc<Door>,
    /// Reach one server each, by its address.
    pub servers: Vec<(SocketAddr, Arc<Door>)>,
}

impl Cluster {
    /// Finds the servers of the cluster that the kubeconfig names.
    pub async fn find(kubeconfig: String) -> Outcome<Cluster> {
        let front = Arc::new(Door::new(&kubeconfig).await?);
        let slices: Api<EndpointSlice> = Api::default_namespaced(front.client());
        let slice = slices
            .get("kubernetes")
            .await
            .doing(|| "asking for the servers of the cluster".into())
            .hint(|| "run it as root on a server, or name a kubeconfig with --kubeconfig".into())?;
        let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or(6443);
        let port = u16::try_from(port).unwrap_or(6443);
        let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
        let mut servers = Vec::new();
        for address in addresses.filter_map(|address| address.parse::<IpAddr>().ok()) {
            let address = SocketAddr::new(address, port);
            let text = kubeconfig::with_server(&kubeconfig, &format!("https://{address}"))?;
            servers.push((address, Arc::new(Door::new(&text).await?)));
        }
        Ok(Cluster { kubeconfig, front, servers })
    }

    /// A way to the cluster at another address.
    pub async fn at(&self, address: IpAddr) -> Outcome<Door> {
        let port = self.servers.first().map_or(6443, |(address, _)| address.port());
        let server = format!("https://{}", SocketAddr::new(address, port));
        Door::new(&kubeconfig::with_server(&self.kubeconfig, &server)?).await
    }

    /// The first answer that any server gives.
    async fn any<T, F>(&self, ask: impl Fn(Client) -> F) -> Option<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let direct = self.servers.iter().map(|(_, door)| door);
        let asking = [&self.front].into_iter().chain(direct).map(|door| ask(door.client()));
        let mut asking: FuturesUnordered<F> = asking.collect();
        let answers = async {
            while let Some(answer) = asking.next().await {
                if let Ok(answer) = answer {
                    return Some(answer);
                }
            }
            None
        };
        tokio::time::timeout(PATIENCE, answers).await.ok().flatten()
    }

    /// All boards; where no server answers, none.
    pub async fn nodes(&self) -> Vec<Node> {
        let list = self.any(|client| async move {
            Api::<Node>::all(client).list(&ListParams::default()).await
        });
        list.await.map(|list| list.items).unwrap_or_default()
    }

    /// The last heartbeat of a board, as it has written it; where no server answers, none.
    pub async fn heartbeat(&self, board: &str) -> Option<MicroTime> {
        let lease = self.any(|client| async move {
            Api::<Lease>::namespaced(client, "kube-node-lease").get(board).await
        });
        lease.await?.spec?.renew_time
    }

    /// The boards as the plan wants to know them.
    pub async fn boards(&self, address: Option<IpAddr>) -> Outcome<Vec<Board>> {
        let nodes: Api<Node> = Api::all(self.front.client());
        let nodes = nodes.list(&ListParams::default()).await.doing(|| "listing boards".into())?;
        let mut boards = Vec::new();
        for node in nodes.items {
            let addresses = self.ask(&node.name_any(), Method::GET, "").await;
            let addresses: Option<Addresses> = addresses.ok();
            boards.push(board(&node, addresses.as_ref(), address));
        }
        Ok(boards)
    }

    /// Asks a board something about drills, through whatever server answers.
    async fn ask<T: DeserializeOwned>(
        &self,
        board: &str,
        method: Method,
        query: &str,
    ) -> Outcome<T> {
        let path = format!("/api/v1/nodes/{board}/proxy/v1-coracle/drill?{query}");
        let doing = || format!("asking {board} to take part in the drill");
        let request = Request::builder().method(method).uri(path).body(Vec::new()).doing(doing)?;
        // What a former outage has left of a connection is not leant on.
        self.front.renew();
        self.front.client().request(request).await.doing(doing).hint(|| {
            format!("see that {board} runs this release, without --disable-drill, and is ready")
        })
    }

    /// Cuts a board off. It comes back by itself.
    pub async fn cut(&self, board: &str, scope: Scope, lasting: Duration) -> Outcome {
        let api = self.servers.first().map_or(6443, |(address, _)| address.port());
        let seconds = lasting.as_secs();
        let ports = match scope {
            Scope::Network => {
                return self.order(board, format!("scope=network&seconds={seconds}")).await;
            }
            Scope::Server => [api, ETCD_PORTS[0], ETCD_PORTS[1]].to_vec(),
            Scope::Agent => vec![api, KUBELET_PORT],
        };
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        self.order(board, format!("scope=ports&ports={}&seconds={seconds}", ports.join(","))).await
    }

    async fn order(&self, board: &str, query: String) -> Outcome {
        self.ask::<Value>(board, Method::POST, &query).await.map(drop)
    }

    /// Makes the probe: a pod on each board, behind one service.
    pub async fn make_probe(&self, image: &str, boards: usize) -> Outcome {
        let params = PatchParams::apply("coracle-drill").force();
        let doing = || format!("making the drill's own pods in the namespace {NAMESPACE}");
        let namespaces: Api<Namespace> = Api::all(self.front.client());
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        namespaces.patch(NAMESPACE, &params, &Patch::Apply(namespace)).await.doing(doing)?;
        let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::namespaced(self.front.client(), NAMESPACE);
        let deployment = deployment(image, boards);
        deployments.patch(PROBE, &params, &Patch::Apply(deployment)).await.doing(doing)?;
        let services: Api<Service> = Api::namespaced(self.front.client(), NAMESPACE);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": PROBE},
            "spec": {"type": "NodePort", "selector": {"app": PROBE}, "ports": [{"port": 8080}]},
        });
        services.patch(PROBE, &params, &Patch::Apply(service)).await.doing(doing).map(drop)
    }

    /// The port at which every board answers for the probe.
    pub async fn probe_port(&self) -> Outcome<u16> {
        let services: Api<Service> = Api::namespaced(self.front.client(), NAMESPACE);
        let service =
            services.get(PROBE).await.doing(|| "looking at the drill's service".into())?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port = ports.first().and_then(|port| port.node_port).and_then(|p| p.try_into().ok());
        port.ok_or_else(|| Failure::new("the drill's service got no port").hint("run it again"))
    }

    /// The boards on which a pod of the probe is ready.
    pub async fn probe_ready(&self) -> Vec<String> {
        let pods = self.any(|client| async move {
            Api::<Pod>::namespaced(client, NAMESPACE).list(&ListParams::default()).await
        });
        let pods = pods.await.map(|list| list.items).unwrap_or_default();
        let ready = pods.into_iter().filter(|pod| {
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            pod.metadata.deletion_timestamp.is_none()
                && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
        });
        ready.filter_map(|pod| pod.spec?.node_name).collect()
    }

    /// Removes what the drill has made.
    pub async fn remove_probe(&self) {
        let removed = self.any(|client| async move {
            let params = DeleteParams::default();
            match Api::<Namespace>::all(client).delete(NAMESPACE, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop),
            }
        });
        if removed.await.is_none() {
            eprintln!("the namespace {NAMESPACE} stays: `kubectl delete namespace {NAMESPACE}`");
        }
    }
}

/// What is cut off.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// Everything.
    Network,
    /// API and datastore.
    Server,
    /// The way to servers, and the kubelet's API.
    Agent,
}

#[derive(serde::Deserialize)]
struct Addresses {
    addresses: Vec<String>,
}

/// The address of a node inside the cluster.
pub fn address_of(node: &Node) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|a| a.type_ == "InternalIP")?.address.parse().ok()
}

/// Whether a node calls itself ready.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn board(node: &Node, found: Option<&Addresses>, shared: Option<IpAddr>) -> Board {
    let spec = node.spec.clone().unwrap_or_default();
    let barred = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
    let tainted = spec.taints.iter().flatten().any(|taint| barred(&taint.effect));
    let shared = shared.map(|address| address.to_string());
    let holds = |found: &Addresses| shared.is_some_and(|shared| found.addresses.contains(&shared));
    Board {
        name: node.name_any(),
        ready: is_ready(node),
        schedulable: spec.unschedulable != Some(true) && !tainted,
        server: node.labels().contains_key(SERVER),
        willing: found.is_some(),
        holds_address: found.is_some_and(holds),
        here: address_of(node).is_some_and(crate::address::is_local),
    }
}

fn deployment(image: &str, replicas: usize) -> Value {
    let toleration = |key: &str| {
        json!({"key": key, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": STAY_SECONDS})
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": PROBE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": PROBE}},
            "template": {"metadata": {"labels": {"app": PROBE}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "tolerations": [
                    toleration("node.kubernetes.io/not-ready"),
                    toleration("node.kubernetes.io/unreachable"),
                ],
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app": PROBE}},
                }],
                "containers": [{
                    "name": PROBE, "image": image, "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                }],
            }},
        },
    })
}
