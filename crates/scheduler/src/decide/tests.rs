//! Clusters and pods in, the chosen node or upstream's sentence out.

use std::sync::Arc;

use client::Pod;
use k8s_openapi::api::core::v1::Node;

use super::*;

/// Nodes `a` and `b` with 2 cores and 1 GiB each, then whatever else is given.
fn cluster(yaml: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for name in ["a", "b"] {
        let text = format!(
            "{{metadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}, status: {{allocatable: {{cpu: '2', memory: 1Gi, pods: '10'}}}}}}"
        );
        snapshot.set_node(Arc::new(serde_saphyr::from_str(&text).expect("a node")));
    }
    for text in yaml.split("\n---\n").filter(|text| !text.trim().is_empty()) {
        if text.contains("kind: Node") {
            let node: Node = serde_saphyr::from_str(text).expect("a node");
            snapshot.set_node(Arc::new(node));
        } else {
            let pod = pod(text);
            let node = pod.pod.spec.as_ref().and_then(|s| s.node_name.clone()).expect("a node");
            snapshot.place(Arc::new(pod), &node);
        }
    }
    snapshot
}

fn pod(yaml: &str) -> PodInfo {
    let mut pod: Pod = serde_saphyr::from_str(yaml).expect("a pod");
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    PodInfo::new(Arc::new(pod))
}

#[track_caller]
fn check(pod_yaml: &str, cluster_yaml: &str, expected: &str) {
    let got = match decide(&pod(pod_yaml), &cluster(cluster_yaml), None) {
        Ok(node) => node,
        Err(unschedulable) => unschedulable.to_string(),
    };
    assert_eq!(got, expected);
}

const BUSY_A: &str = "
metadata: {name: busy}
spec: {nodeName: a, containers: [{name: c, resources: {requests: {cpu: 1500m, memory: 100Mi}}}]}
";

#[test]
fn the_emptier_node_wins() {
    check("{metadata: {name: p}, spec: {containers: [{name: c}]}}", BUSY_A, "b");
}

#[test]
fn too_large_for_every_node() {
    check(
        "{metadata: {name: p}, spec: {containers: [{name: c, resources: {requests: {cpu: '3', memory: 1Mi}}}]}}",
        "",
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
    check(
        "{metadata: {name: p}, spec: {nodeSelector: {kubernetes.io/hostname: a}, containers: [{name: c, resources: {requests: {cpu: '1'}}}]}}",
        BUSY_A,
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn no_nodes() {
    let nobody = decide(&pod("{metadata: {name: p}}"), &Snapshot::default(), None);
    let text = nobody.expect_err("no node").to_string();
    assert_eq!(text, "no nodes available to schedule pods");
}

const TAINTED: &str = "
kind: Node
metadata: {name: a, labels: {kubernetes.io/hostname: a}}
spec: {taints: [{key: gpu, effect: NoSchedule}]}
status: {allocatable: {cpu: '2', memory: 1Gi, pods: '10'}}
---
kind: Node
metadata: {name: b, labels: {kubernetes.io/hostname: b}}
spec: {unschedulable: true}
status: {allocatable: {cpu: '2', memory: 1Gi, pods: '10'}}
";

#[test]
fn taints_and_cordons() {
    check(
        "{metadata: {name: p}, spec: {containers: [{name: c}]}}",
        TAINTED,
        "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
    check(
        "{metadata: {name: p}, spec: {tolerations: [{key: gpu, operator: Exists}], containers: [{name: c}]}}",
        TAINTED,
        "a",
    );
}

#[test]
fn host_ports_clash_across_any_address() {
    let taken = |node: &str| {
        format!(
            "
metadata: {{name: on-{node}}}
spec: {{nodeName: {node}, containers: [{{name: c, ports: [{{containerPort: 80, hostPort: 80}}]}}]}}
"
        )
    };
    let wants = "{metadata: {name: p}, spec: {containers: [{name: c, ports: [{containerPort: 80, hostPort: 80, hostIP: 127.0.0.1}]}]}}";
    check(wants, &taken("a"), "b");
    check(
        wants,
        &format!("{}\n---\n{}", taken("a"), taken("b")),
        "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.",
    );
}

#[test]
fn anti_affinity_keeps_apart_and_affinity_together() {
    let web_on_a = "
metadata: {name: w, labels: {app: web}}
spec: {nodeName: a, containers: [{name: c}]}
";
    let with = |kind: &str| {
        format!(
            "{{metadata: {{name: p}}, spec: {{containers: [{{name: c}}], affinity: {{{kind}: {{requiredDuringSchedulingIgnoredDuringExecution: [{{labelSelector: {{matchLabels: {{app: web}}}}, topologyKey: kubernetes.io/hostname}}]}}}}}}}}"
        )
    };
    check(&with("podAntiAffinity"), web_on_a, "b");
    check(&with("podAffinity"), web_on_a, "a");
    check(
        &with("podAffinity"),
        "",
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn hard_spread_evens_out() {
    let web = |name: &str| {
        format!(
            "
metadata: {{name: {name}, labels: {{app: web}}}}
spec: {{nodeName: a, containers: [{{name: c}}]}}
"
        )
    };
    let wants = "{metadata: {name: p, labels: {app: web}}, spec: {containers: [{name: c}], topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]}}";
    check(wants, &web("w1"), "b");
    let pinned = wants.replace("spec: {", "spec: {nodeSelector: {kubernetes.io/hostname: a}, ");
    check(&pinned, &web("w1"), "a");
}

#[test]
fn siblings_are_spread_by_default() {
    let selector = serde_saphyr::from_str("{matchLabels: {app: web}}").expect("a selector");
    let sibling = "
metadata: {name: w1, labels: {app: web}}
spec: {nodeName: b, containers: [{name: c, resources: {requests: {cpu: 1m, memory: 1Mi}}}]}
---
metadata: {name: other}
spec: {nodeName: a, containers: [{name: c, resources: {requests: {cpu: 100m, memory: 20Mi}}}]}
";
    let new = pod("{metadata: {name: p, labels: {app: web}}, spec: {containers: [{name: c}]}}");
    assert_eq!(decide(&new, &cluster(sibling), Some(&selector)), Ok("a".into()));
}
