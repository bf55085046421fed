//! One round of the plan each: a Deployment and its sets in, actions out.

use super::DEPLOYMENT;
use crate::fixture::{check, compare, plan};

const DEPLOYMENT_YAML: &str = "
kind: Deployment
metadata: {name: web, generation: 1, annotations: {kubernetes.io/change-cause: first}}
spec:
  replicas: 3
  progressDeadlineSeconds: 600
  revisionHistoryLimit: 1
  selector: {matchLabels: {app: web}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: v2}]}
";

/// A set of `image` with these replicas, all of them available, as many as it wants.
fn set(name: &str, image: &str, revision: u32, replicas: u32, available: u32) -> String {
    format!(
        "
---
kind: ReplicaSet
metadata:
  name: {name}
  owner: Deployment/web
  labels: {{app: web, pod-template-hash: x}}
  generation: 1
  creationTimestamp: '2026-01-01T10:0{revision}:00Z'
  annotations:
    kubernetes.io/change-cause: first
    deployment.kubernetes.io/revision: '{revision}'
    deployment.kubernetes.io/desired-replicas: '3'
    deployment.kubernetes.io/max-replicas: '4'
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web, pod-template-hash: x}}}}
  template:
    metadata: {{labels: {{app: web, pod-template-hash: x}}}}
    spec: {{containers: [{{name: c, image: {image}}}]}}
status: {{replicas: {replicas}, readyReplicas: {available}, availableReplicas: {available}, observedGeneration: 1}}
"
    )
}

/// Annotations and status left out: what happens to the sets.
fn sizes(yaml: &str) -> Vec<String> {
    let plan = plan(&DEPLOYMENT, "default/web", yaml, None);
    let lines = plan.actions.iter().map(ToString::to_string);
    lines
        .filter(|l| l.starts_with("event") || l.starts_with("create") || l.starts_with("delete"))
        .collect()
}

#[test]
fn a_new_deployment_makes_its_first_set() {
    check(
        &DEPLOYMENT,
        "default/web",
        DEPLOYMENT_YAML,
        r#"
        create ReplicaSet default/web-6fcb556cb8
        event Normal ScalingReplicaSet: Scaled up replica set web-6fcb556cb8 from 0 to 3
        patch Deployment default/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}
        patch Deployment default/web/status {"status":{"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","lastUpdateTime":"2026-01-01T12:00:00Z","message":"Created new replica set \"web-6fcb556cb8\"","reason":"NewReplicaSetCreated","status":"True","type":"Progressing"},{"lastTransitionTime":"2026-01-01T12:00:00Z","lastUpdateTime":"2026-01-01T12:00:00Z","message":"Deployment does not have minimum availability.","reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"observedGeneration":1,"terminatingReplicas":0,"unavailableReplicas":3}}
        "#,
    );
}

#[test]
fn a_new_template_starts_with_the_surge() {
    let events = sizes(&format!("{DEPLOYMENT_YAML}{}", set("web-old", "v1", 1, 3, 3)));
    assert_eq!(
        events,
        [
            "create ReplicaSet default/web-6fcb556cb8",
            "event Normal ScalingReplicaSet: Scaled up replica set web-6fcb556cb8 from 0 to 1"
        ]
    );
}

#[test]
fn old_replicas_go_as_new_ones_become_available() {
    let both = |old, new, up| {
        let (old, new) = (set("web-old", "v1", 1, old, old), set("web-new", "v2", 2, new, up));
        sizes(&format!("{DEPLOYMENT_YAML}{old}{new}"))
    };
    let nothing: [&str; 0] = [];
    assert_eq!(both(3, 1, 0), nothing);
    assert_eq!(
        both(3, 1, 1),
        ["event Normal ScalingReplicaSet: Scaled down replica set web-old from 3 to 2"]
    );
    assert_eq!(
        both(2, 1, 1),
        ["event Normal ScalingReplicaSet: Scaled up replica set web-new from 1 to 2"]
    );
    assert_eq!(
        both(1, 3, 3),
        ["event Normal ScalingReplicaSet: Scaled down replica set web-old from 1 to 0"]
    );
}

#[test]
fn broken_old_replicas_go_first() {
    let sets = [set("web-old", "v1", 1, 3, 1), set("web-new", "v2", 2, 1, 1)].concat();
    let yaml = DEPLOYMENT_YAML.replace("maxUnavailable: 25%", "maxUnavailable: 1");
    assert_eq!(
        sizes(&format!("{yaml}{sets}")),
        ["event Normal ScalingReplicaSet: Scaled down replica set web-old from 3 to 1"]
    );
}

#[test]
fn a_finished_rollout_is_reported_and_old_history_dropped() {
    let sets =
        [set("web-1", "v0", 1, 0, 0), set("web-2", "v1", 2, 0, 0), set("web-3", "v2", 3, 3, 3)]
            .concat();
    let done = DEPLOYMENT_YAML.replace(
        "change-cause: first",
        "change-cause: first, deployment.kubernetes.io/revision: '3'",
    );
    check(
        &DEPLOYMENT,
        "default/web",
        &format!("{done}{sets}"),
        r#"
        delete ReplicaSet default/web-1
        patch Deployment default/web/status {"status":{"availableReplicas":3,"conditions":[{"lastTransitionTime":"2026-01-01T12:00:00Z","lastUpdateTime":"2026-01-01T12:00:00Z","message":"Deployment has minimum availability.","reason":"MinimumReplicasAvailable","status":"True","type":"Available"},{"lastTransitionTime":"2026-01-01T12:00:00Z","lastUpdateTime":"2026-01-01T12:00:00Z","message":"ReplicaSet \"web-3\" has successfully progressed.","reason":"NewReplicaSetAvailable","status":"True","type":"Progressing"}],"observedGeneration":1,"readyReplicas":3,"replicas":3,"terminatingReplicas":0,"updatedReplicas":3}}
        "#,
    );
}

#[test]
fn undo_gives_an_old_set_a_new_revision() {
    let sets = [set("web-1", "v2", 1, 0, 0), set("web-2", "v1", 2, 3, 3)].concat();
    let plan = plan(&DEPLOYMENT, "default/web", &format!("{DEPLOYMENT_YAML}{sets}"), None);
    let first = plan.actions[0].to_string();
    assert_eq!(
        first,
        r#"patch ReplicaSet default/web-1 {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3","deployment.kubernetes.io/revision-history":"1"}},"spec":{"replicas":1}}"#
    );
}

#[test]
fn a_paused_rollout_scales_in_proportion() {
    let sets = [set("web-1", "v1", 1, 3, 3), set("web-2", "v2", 2, 1, 1)].concat();
    let yaml = DEPLOYMENT_YAML.replace("replicas: 3", "paused: true\n  replicas: 9");
    assert_eq!(
        sizes(&format!("{yaml}{sets}")),
        [
            "event Normal ScalingReplicaSet: Scaled up replica set web-1 from 3 to 9",
            "event Normal ScalingReplicaSet: Scaled up replica set web-2 from 1 to 3"
        ]
    );
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let yaml = DEPLOYMENT_YAML.replace(
        "{type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}",
        "{type: Recreate}",
    );
    let running = set("web-1", "v1", 1, 3, 3);
    assert_eq!(
        sizes(&format!("{yaml}{running}")),
        ["event Normal ScalingReplicaSet: Scaled down replica set web-1 from 3 to 0"]
    );
    let gone = set("web-1", "v1", 1, 0, 0);
    let pod = "
---
kind: Pod
metadata: {name: p, labels: {app: web}, owner: ReplicaSet/web-1}
status: {phase: Running}
";
    let nothing: [&str; 0] = [];
    assert_eq!(sizes(&format!("{yaml}{gone}{pod}")), nothing);
    assert_eq!(sizes(&format!("{yaml}{gone}")).len(), 2);
}

#[test]
fn a_rollout_that_stands_still_times_out() {
    let stuck = |at: &str| {
        let sets = [set("web-old", "v1", 1, 3, 3), set("web-new", "v2", 2, 1, 0)].concat();
        let status = format!(
            "status: {{replicas: 4, updatedReplicas: 1, readyReplicas: 3, availableReplicas: 3, conditions: [{{type: Progressing, status: 'True', reason: ReplicaSetUpdated, lastUpdateTime: '{at}', lastTransitionTime: '{at}'}}]}}\n"
        );
        plan(&DEPLOYMENT, "default/web", &format!("{DEPLOYMENT_YAML}{status}{sets}"), None)
    };
    let late = stuck("2026-01-01T11:40:00Z");
    let status = late.actions.last().map(ToString::to_string).unwrap_or_default();
    assert!(status.contains(r#""reason":"ProgressDeadlineExceeded","status":"False""#), "{status}");
    let early = stuck("2026-01-01T11:55:00Z");
    assert_eq!(early.again, "2026-01-01T12:05:01Z".parse().ok());
}

#[test]
fn an_idle_deployment_needs_nothing() {
    let status = r#"
status: {availableReplicas: 3, readyReplicas: 3, replicas: 3, updatedReplicas: 3, terminatingReplicas: 0, observedGeneration: 1, conditions: [{type: Available, status: 'True', reason: MinimumReplicasAvailable}, {type: Progressing, status: 'True', reason: NewReplicaSetAvailable}]}
"#;
    let idle = DEPLOYMENT_YAML.replace(
        "change-cause: first",
        "change-cause: first, deployment.kubernetes.io/revision: '3'",
    );
    let yaml = format!("{}{status}{}", idle.trim_end(), set("web-3", "v2", 3, 3, 3));
    compare(&plan(&DEPLOYMENT, "default/web", &yaml, None), "");
}

#[test]
fn a_name_taken_by_another_owner_makes_another_hash() {
    let taken = set("web-6fcb556cb8", "v9", 1, 1, 1).replace("Deployment/web", "Deployment/other");
    let plan = plan(&DEPLOYMENT, "default/web", &format!("{DEPLOYMENT_YAML}{taken}"), None);
    let status = plan.actions.last().map(ToString::to_string).unwrap_or_default();
    assert!(status.contains(r#""collisionCount":1"#), "{status}");
    assert_eq!(plan.actions.len(), 1, "no set is made in this round");
}

#[test]
fn a_set_that_got_more_defaults_than_the_deployment_is_still_the_new_one() {
    let own = set("web-6fcb556cb8", "v2", 1, 3, 3)
        .replace("containers: [", "terminationGracePeriodSeconds: 30, containers: [");
    assert_eq!(sizes(&format!("{DEPLOYMENT_YAML}{own}")), [""; 0]);
}
