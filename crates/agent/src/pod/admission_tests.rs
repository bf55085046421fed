use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "a"}]);
    }
    serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
}

fn asking(requests: Value) -> Pod {
    pod(json!({"containers": [{"name": "a", "resources": {"requests": requests}}]}))
}

fn with_port(port: Value) -> Pod {
    pod(json!({"containers": [{"name": "a", "ports": [port]}]}))
}

fn node() -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": "board", "labels": {"disk": "ssd"}},
        "spec": {"taints": [
            {"key": "leave", "effect": "NoExecute"}, {"key": "new", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi",
            "pods": "3", "example.com/dongle": "1"}},
    }))
    .unwrap()
}

/// Reason and message where `pod`, which stands the node's taint, comes to a board with `others`.
fn told(mut pod: Pod, others: &[Pod]) -> String {
    let tolerations = &mut pod.spec.as_mut().unwrap().tolerations;
    tolerations.get_or_insert(vec![
        serde_json::from_value(json!({"key": "leave", "operator": "Exists"})).unwrap(),
    ]);
    let others: Vec<_> = others.iter().map(spec).collect();
    let unsafe_sysctls = ["net.core.*".to_owned()];
    let board = Board { node: &node(), others: &others, unsafe_sysctls: &unsafe_sysctls };
    let told = refusal(&pod, &board);
    told.map(|verdict| format!("{}: {}", verdict.reason, verdict.message)).unwrap_or_default()
}

#[test]
fn amounts_that_others_have_are_not_there() {
    let others = [asking(json!({"cpu": "600m", "example.com/dongle": "1"})), pod(json!({}))];
    assert_eq!(told(asking(json!({"cpu": "400m", "memory": "1Gi"})), &others), "");
    assert_eq!(
        told(asking(json!({"memory": "2Gi", "cpu": "500m"})), &others),
        "OutOfcpu: Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
    );
    assert_eq!(
        told(asking(json!({"example.com/dongle": "1"})), &others),
        "OutOfexample.com/dongle: Node didn't have enough resource: example.com/dongle, requested: 1, \
         used: 1, capacity: 1"
    );
    // Nobody knows of it here: somebody else counts it.
    assert_eq!(told(asking(json!({"example.com/licence": "1"})), &others), "");
    let full = [pod(json!({})), pod(json!({})), pod(json!({}))];
    assert_eq!(
        told(asking(json!({"cpu": "2"})), &full),
        "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
    );
}

#[test]
fn a_node_that_says_nothing_yet_refuses_nobody() {
    let (node, pod) = (Node::default(), asking(json!({"cpu": "1"})));
    let board = Board { node: &node, others: &[], unsafe_sysctls: &[] };
    assert_eq!(refusal(&pod, &board), None);
}

#[test]
fn ports_that_others_have_are_taken() {
    let others = [
        with_port(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"})),
        with_port(json!({"containerPort": 22})),
    ];
    let refused = "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the \
                   requested pod ports";
    for (port, expected) in [
        (json!({"containerPort": 80, "hostPort": 8080}), refused),
        (json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}), refused),
        (json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.2"}), ""),
        (json!({"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}), ""),
        (json!({"containerPort": 8080}), ""),
        (json!({"containerPort": 22, "hostPort": 22}), ""),
    ] {
        assert_eq!(told(with_port(port.clone()), &others), expected, "{port}");
    }
}

#[test]
fn what_the_pod_says_of_its_node_holds_also_where_it_names_it() {
    let affinity = |value: &str| json!({"nodeSelector": {"disk": value}, "nodeName": "board"});
    assert_eq!(told(pod(affinity("ssd")), &[]), "");
    assert_eq!(
        told(pod(affinity("card")), &[]),
        "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    );
    assert_eq!(
        told(pod(json!({"tolerations": [{"key": "new", "operator": "Exists"}]})), &[]),
        "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
    );
    assert_eq!(
        told(pod(json!({"os": {"name": "windows"}})), &[]),
        "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS"
    );
    let mut labelled = pod(json!({"os": {"name": "linux"}}));
    labelled.metadata.labels = Some([("kubernetes.io/os".into(), "plan9".into())].into());
    assert_eq!(
        told(labelled, &[]),
        "PodOSSelectorNodeLabelDoesNotMatch: Failed to admit pod as the `kubernetes.io/os` label \
         doesn't match node label"
    );
}

#[test]
fn the_kernels_settings_are_not_everybodys() {
    let setting = |name: &str, more: Value| {
        let mut spec = json!({"securityContext": {"sysctls": [
            {"name": "kernel.shm_rmid_forced", "value": "1"}, {"name": name, "value": "1"}]}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        told(pod(spec), &[])
    };
    assert_eq!(setting("net.ipv4.tcp_syncookies", json!({})), "");
    assert_eq!(setting("net/core/somaxconn", json!({})), "");
    assert_eq!(
        setting("kernel.msgmax", json!({})),
        r#"SysctlForbidden: forbidden sysctl: "kernel.msgmax" not allowlisted"#
    );
    assert_eq!(
        setting("net.core.somaxconn", json!({"hostNetwork": true})),
        r#"SysctlForbidden: forbidden sysctl: "net.core.somaxconn" not allowed with host net enabled"#
    );
    assert_eq!(
        setting("net.core.somaxconn", json!({"hostIPC": true})),
        r#"SysctlForbidden: forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled"#
    );
}

#[test]
fn what_makes_a_shortage_worse_is_kept_out() {
    let told = |conditions: &[&str], pod: Pod| {
        let conditions: Vec<_> =
            conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        let ready = json!({"type": "Ready", "status": "True"});
        let calm = json!({"type": "PIDPressure", "status": "False"});
        let conditions = [conditions, vec![ready, calm]].concat();
        let node = json!({"metadata": {}, "status": {"conditions": conditions}});
        let node: Node = serde_json::from_value(node).unwrap();
        let board = Board { node: &node, others: &[], unsafe_sysctls: &[] };
        refusal(&pod, &board).map(|verdict| (verdict.reason, verdict.message))
    };
    let refused = |condition: &str| {
        Some(("Evicted".to_owned(), format!("The node had condition: [{condition}]. ")))
    };
    let modest = || asking(json!({"cpu": "100m"}));
    let critical = || pod(json!({"priority": 2_000_000_000}));
    let tolerant = || {
        let toleration = json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"});
        pod(json!({"tolerations": [toleration]}))
    };
    let (memory, disk) = (["MemoryPressure"], ["DiskPressure"]);
    assert_eq!(told(&[], pod(json!({}))), None);
    assert_eq!(told(&memory, pod(json!({}))), refused("MemoryPressure"));
    assert_eq!(
        [modest(), critical(), tolerant()].map(|pod| told(&memory, pod)),
        [None, None, None]
    );
    assert_eq!(told(&disk, modest()), refused("DiskPressure"));
    assert_eq!(told(&disk, tolerant()), refused("DiskPressure"));
    assert_eq!(told(&disk, critical()), None);
    let both = ["MemoryPressure", "DiskPressure"];
    assert_eq!(told(&both, tolerant()), refused("MemoryPressure DiskPressure"));
}

#[test]
fn what_the_node_leans_on_may_lack_nothing_but_room() {
    let lacks = |priority: i32, port: u16, cpu: &str| {
        let pod = pod(json!({"priority": priority, "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}},
                "ports": [{"containerPort": 80, "hostPort": port}]}]}));
        let other = with_port(json!({"containerPort": 80, "hostPort": 81}));
        let board = Board { node: &node(), others: &[spec(&other)], unsafe_sysctls: &[] };
        let short = lacks_room_only(&pod, &board)?;
        Some(short.into_iter().map(|short| short.name).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(lacks(2_000_000_000, 82, "2").as_deref(), Some("cpu"));
    assert_eq!(lacks(2_000_000_000, 82, "1").as_deref(), Some(""));
    assert_eq!(lacks(2_000_000_000, 81, "2"), None, "the port is taken");
    assert_eq!(lacks(1_999_999_999, 82, "2"), None);
}
