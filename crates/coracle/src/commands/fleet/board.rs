//! What `up` and its like have a board do: questions to the API that a server on this board answers.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use clap::Subcommand;
use fleet::up::{Node, NodeChange};
use k8s_openapi::api::core::v1::{Node as Object, Pod, Taint};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::commands::admin::Admin;
use crate::config::{Common, Span};
use crate::failure::{Failure, Hint, Outcome, While};

/// Annotations that remember what `up` has given a Node, so that it can be taken away again.
const LABELS: &str = "coracle.dev/managed-labels";
const TAINTS: &str = "coracle.dev/managed-taints";
/// How long a Node may take to appear.
const APPEARS: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Questions and orders.
#[derive(Debug, Subcommand)]
pub enum BoardCommand {
    /// Print the Nodes as JSON
    Nodes,
    /// Give a Node labels and taints, as JSON on standard input says
    Node {
        /// Its name
        name: String,
    },
    /// Let no more pods onto a Node, and move those away that are there
    Drain {
        /// Its name
        name: String,
        /// How long that may take
        #[arg(long, default_value = "120s")]
        timeout: Span,
    },
    /// Let pods onto a Node again
    Uncordon {
        /// Its name
        name: String,
    },
    /// Forget a Node
    Forget {
        /// Its name
        name: String,
    },
}

/// Carries it out.
pub async fn run(common: &Common, command: BoardCommand) -> Outcome {
    let client = Admin::open(common).await?.client;
    let nodes: Api<Object> = Api::all(client.clone());
    match command {
        BoardCommand::Nodes => {
            let list = nodes.list(&ListParams::default()).await.doing(|| "listing nodes".into())?;
            let shown: Vec<Node> = list.items.iter().map(shown).collect();
            println!("{}", serde_json::to_string(&shown).doing(|| "writing JSON".into())?);
            Ok(())
        }
        BoardCommand::Node { name } => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).doing(|| "reading the change".into())?;
            let change: NodeChange =
                serde_json::from_str(&text).doing(|| "reading the change".into())?;
            change_node(&nodes, &name, &change).await
        }
        BoardCommand::Drain { name, timeout } => drain(&client, &name, timeout.duration()).await,
        BoardCommand::Uncordon { name } => schedulable(&nodes, &name, true).await,
        BoardCommand::Forget { name } => {
            match nodes.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop).doing(|| format!("deleting the node {name}")),
            }
        }
    }
}

/// A Node as `up` wants to see it.
fn shown(node: &Object) -> Node {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let listed = |annotation: &str| {
        let text = node.annotations().get(annotation).map_or("", String::as_str);
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    Node {
        name: node.name_any(),
        ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        version: status.node_info.map(|info| info.kubelet_version).unwrap_or_default(),
        unschedulable: spec.unschedulable.unwrap_or(false),
        labels: node.labels().clone(),
        taints: spec.taints.unwrap_or_default().iter().map(written).collect(),
        managed_labels: listed(LABELS),
        managed_taints: listed(TAINTS),
    }
}

/// A taint as kubectl writes it.
fn written(taint: &Taint) -> String {
    match &taint.value {
        Some(value) if !value.is_empty() => format!("{}={value}:{}", taint.key, taint.effect),
        _ => format!("{}:{}", taint.key, taint.effect),
    }
}

fn read(text: &str) -> Taint {
    let (front, effect) = text.rsplit_once(':').unwrap_or((text, "NoSchedule"));
    let (key, value) = front.split_once('=').map_or((front, None), |(k, v)| (k, Some(v.into())));
    Taint { key: key.into(), value, effect: effect.into(), ..Taint::default() }
}

async fn change_node(nodes: &Api<Object>, name: &str, change: &NodeChange) -> Outcome {
    let node = appeared(nodes, name).await?;
    let mut labels: BTreeMap<&str, Value> = BTreeMap::new();
    labels.extend(change.remove_labels.iter().map(|key| (key.as_str(), Value::Null)));
    labels.extend(change.labels.iter().map(|(key, value)| (key.as_str(), json!(value))));
    let listed = |names: Vec<&str>| names.join(" ");
    let annotations = json!({
        LABELS: listed(change.labels.keys().map(String::as_str).collect()),
        TAINTS: listed(change.taints.iter().map(String::as_str).collect()),
    });
    let mut taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let same = |a: &Taint, b: &Taint| a.key == b.key && a.effect == b.effect;
    let wanted: Vec<Taint> = change.taints.iter().map(|text| read(text)).collect();
    let gone: Vec<Taint> = change.remove_taints.iter().map(|text| read(text)).collect();
    taints.retain(|taint| !wanted.iter().chain(&gone).any(|other| same(taint, other)));
    taints.extend(wanted);
    let patch = json!({
        "metadata": {
            "labels": labels,
            "annotations": annotations,
            "resourceVersion": node.metadata.resource_version,
        },
        "spec": { "taints": taints },
    });
    let patched = nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).doing(|| format!("changing the node {name}"))
}

async fn appeared(nodes: &Api<Object>, name: &str) -> Outcome<Object> {
    let deadline = Instant::now() + APPEARS;
    loop {
        let doing = || format!("reading the node {name}");
        match nodes.get_opt(name).await.doing(doing)? {
            Some(node) => return Ok(node),
            None if Instant::now() > deadline => {
                return Err(Failure::new(format!("there is no node {name}"))
                    .hint("see `journalctl -u 'coracle*'` on that board"));
            }
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn schedulable(nodes: &Api<Object>, name: &str, on: bool) -> Outcome {
    let value = if on { Value::Null } else { json!(true) };
    let patch = Patch::Merge(json!({ "spec": { "unschedulable": value } }));
    let patched = nodes.patch(name, &PatchParams::default(), &patch).await;
    patched.map(drop).doing(|| format!("changing the node {name}"))
}

/// As `kubectl drain --ignore-daemonsets --delete-emptydir-data`: budgets are kept, and what they hold
/// back is waited for.
async fn drain(client: &Client, name: &str, patience: Duration) -> Outcome {
    let nodes: Api<Object> = Api::all(client.clone());
    schedulable(&nodes, name, false).await?;
    let pods: Api<Pod> = Api::all(client.clone());
    let deadline = Instant::now() + patience;
    let here = ListParams::default().fields(&format!("spec.nodeName={name}"));
    loop {
        let list = pods.list(&here).await.doing(|| format!("listing the pods on {name}"))?;
        let left: Vec<Pod> = list.items.into_iter().filter(leaves).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
            return Err(Failure::new(format!("pods stay on {name}: {}", names.join(", ")))
                .hint("see which PodDisruptionBudget holds them back"));
        }
        for pod in left.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let space: Api<Pod> =
                Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            match space.evict(&pod.name_any(), &EvictParams::default()).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => {}
                other => {
                    other
                        .doing(|| format!("evicting {}", pod.name_any()))
                        .hint(|| "run the command again".into())?;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether a drain moves this pod: not what belongs to the board itself, nor what has ended.
fn leaves(pod: &Pod) -> bool {
    let of_daemons = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet");
    let is_mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !of_daemons && !is_mirror && !matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_written_as_they_are_read() {
        for text in ["a=b:NoSchedule", "a:NoExecute", "example.com/x=1:PreferNoSchedule"] {
            assert_eq!(written(&read(text)), text);
        }
    }
}
