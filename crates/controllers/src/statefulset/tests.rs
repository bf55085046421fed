//! What a StatefulSet's plan does, as text.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::json;

use super::STATEFUL_SET;
use crate::action::Action;
use crate::fixture::plan;
use crate::hash::template_hash;

const CLAIMS: &str = "volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]";

/// The name of the revision that the sets below have.
fn new() -> String {
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "new"}]}});
    let template: PodTemplateSpec = serde_json::from_value(template).unwrap();
    format!("web-{}", template_hash(&template, None))
}

/// A set of three whose template has changed from `web-old`.
fn set(spec: &str) -> String {
    let new = new();
    format!(
        "
kind: StatefulSet
metadata: {{name: web, generation: 1}}
spec:
  replicas: 3
  serviceName: nginx
  selector: {{matchLabels: {{app: web}}}}
  template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: new}}]}}}}
  {spec}
status: {{replicas: 0, currentRevision: web-old, collisionCount: 0}}
---
kind: ControllerRevision
metadata: {{name: web-old, labels: {{app: web}}, owner: StatefulSet/web}}
revision: 1
data: {{spec: {{template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: old}}]}}}}}}}}
---
kind: ControllerRevision
metadata: {{name: {new}, labels: {{app: web}}, owner: StatefulSet/web}}
revision: 2
data: {{spec: {{template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: new}}]}}}}}}}}
"
    )
}

/// A pod of the set: `ready`, `sick`, `going` or `failed`, of the new revision or the old one.
fn pod(ordinal: i32, state: &str, revision: &str) -> String {
    let phase = if state == "failed" { "Failed" } else { "Running" };
    let ready = if state == "sick" || state == "failed" { "False" } else { "True" };
    let going = if state == "going" { ", deletionTimestamp: '2026-01-01T11:59:00Z'" } else { "" };
    let revision = if revision == "new" { new() } else { "web-old".into() };
    format!(
        "
---
kind: Pod
metadata: {{name: web-{ordinal}, owner: StatefulSet/web{going}, labels: {{app: web, controller-revision-hash: {revision}, statefulset.kubernetes.io/pod-name: web-{ordinal}, apps.kubernetes.io/pod-index: '{ordinal}'}}}}
spec: {{containers: []}}
status: {{phase: {phase}, conditions: [{{type: Ready, status: '{ready}', lastTransitionTime: '2026-01-01T11:59:50Z'}}]}}
"
    )
}

fn claim(ordinal: i32, rest: &str) -> String {
    format!(
        "
---
kind: PersistentVolumeClaim
metadata: {{name: data-web-{ordinal}, labels: {{app: web}}{rest}}}
"
    )
}

/// What happens, without events and the status.
fn done(parts: &[&str]) -> Vec<String> {
    let plan = plan(&STATEFUL_SET, "default/web", &parts.concat(), None);
    let lines = plan.actions.iter().filter(|action| !matches!(action, Action::Event(_)));
    let lines = lines.map(ToString::to_string).filter(|line| !line.contains("/status"));
    lines.map(|line| line.replace(" default/", " ")).collect()
}

#[test]
fn pods_come_one_after_the_other() {
    let set = set("");
    for (pods, expected) in [
        (vec![], vec!["create Pod web-0"]),
        (vec![pod(0, "sick", "new")], vec![]),
        (vec![pod(0, "ready", "new")], vec!["create Pod web-1"]),
        (vec![pod(0, "going", "new"), pod(1, "ready", "new")], vec![]),
        (vec![pod(0, "failed", "new"), pod(1, "ready", "new")], vec!["delete Pod web-0"]),
        (vec![pod(1, "ready", "new"), pod(2, "ready", "new")], vec!["create Pod web-0"]),
    ] {
        assert_eq!(done(&[&set, &pods.concat()]), expected, "{pods:?}");
    }
}

#[test]
fn a_parallel_set_does_all_at_once() {
    let set = set("podManagementPolicy: Parallel");
    let sick = pod(1, "sick", "new");
    assert_eq!(done(&[&set, &sick]), ["create Pod web-0", "create Pod web-2"]);
    let all = [0, 1, 2, 3, 4].map(|n| pod(n, "sick", "new")).concat();
    assert_eq!(done(&[&set, &all]), ["delete Pod web-4", "delete Pod web-3"]);
}

#[test]
fn pods_go_from_the_last_to_the_first() {
    let set = set("");
    let well = [0, 1, 2].map(|n| pod(n, "ready", "new")).concat();
    let pods = |more: &[String]| [well.clone(), more.concat()].concat();
    for (more, expected) in [
        (vec![pod(3, "ready", "new"), pod(4, "ready", "new")], vec!["delete Pod web-4"]),
        (vec![pod(3, "ready", "new"), pod(4, "going", "new")], vec![]),
        (vec![pod(3, "sick", "new"), pod(4, "ready", "new")], vec!["delete Pod web-4"]),
        (vec![pod(3, "sick", "new"), pod(4, "sick", "new")], vec![]),
        (vec![pod(3, "sick", "new")], vec!["delete Pod web-3"]),
    ] {
        assert_eq!(done(&[&set, &pods(&more)]), expected, "{more:?}");
    }
    let halted = [pod(0, "sick", "new"), pod(1, "ready", "new"), pod(2, "ready", "new")].concat();
    assert!(done(&[&set, &halted, &pod(3, "ready", "new")]).is_empty());
}

#[test]
fn the_template_reaches_the_last_pod_first() {
    let old = [0, 1, 2].map(|n| pod(n, "ready", "old")).concat();
    let rolling = |rest: &str| {
        set(&format!("updateStrategy: {{type: RollingUpdate, rollingUpdate: {{{rest}}}}}"))
    };
    assert_eq!(done(&[&rolling("partition: 0"), &old]), ["delete Pod web-2"]);
    assert!(done(&[&rolling("partition: 3"), &old]).is_empty());
    assert_eq!(
        done(&[&rolling("maxUnavailable: 50%"), &old]),
        ["delete Pod web-2", "delete Pod web-1"]
    );
    let half = [pod(0, "ready", "old"), pod(1, "ready", "old"), pod(2, "ready", "new")].concat();
    assert_eq!(done(&[&rolling("partition: 1"), &half]), ["delete Pod web-1"]);
    assert!(done(&[&rolling("partition: 2"), &half]).is_empty());
    assert!(done(&[&set("updateStrategy: {type: OnDelete}"), &old]).is_empty());
    // One that came back too early for `minReadySeconds` is waited for.
    let slow = format!("{}  minReadySeconds: 30\n", "updateStrategy: {type: RollingUpdate}\n");
    assert!(done(&[&set(&slow), &half]).is_empty());
}

#[test]
fn a_pod_that_is_away_anyway_goes_before_those_that_are_well() {
    let set = |most: i32| {
        set(&format!(
            "podManagementPolicy: Parallel\n  updateStrategy: {{type: RollingUpdate, rollingUpdate: {{maxUnavailable: {most}}}}}"
        ))
    };
    let old = [pod(0, "sick", "old"), pod(1, "ready", "old"), pod(2, "ready", "old")].concat();
    assert_eq!(done(&[&set(1), &old]), ["delete Pod web-0"]);
    assert_eq!(done(&[&set(2), &old]), ["delete Pod web-2", "delete Pod web-0"]);
    let going = [pod(0, "ready", "old"), pod(1, "ready", "old"), pod(2, "going", "old")].concat();
    assert!(done(&[&set(1), &going]).is_empty());
}

#[test]
fn below_the_partition_a_pod_comes_back_as_it_was() {
    let set = set("updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}");
    let pods = [pod(0, "ready", "old"), pod(2, "ready", "new")].concat();
    let plan = plan(&STATEFUL_SET, "default/web", &[set, pods].concat(), None);
    let Some(Action::Create { body, .. }) =
        plan.actions.iter().find(|a| matches!(a, Action::Create { .. }))
    else {
        panic!("nothing is created: {plan:?}")
    };
    assert_eq!(body["spec"]["containers"][0]["image"], "old");
    assert_eq!(body["metadata"]["labels"]["controller-revision-hash"], "web-old");
    assert_eq!(body["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(body["spec"]["hostname"], "web-1");
    assert_eq!(body["spec"]["subdomain"], "nginx");
}

#[test]
fn a_pod_gets_its_claims_first() {
    let set = set(CLAIMS);
    assert_eq!(done(&[&set]), ["create PersistentVolumeClaim data-web-0", "create Pod web-0"]);
    assert_eq!(done(&[&set, &claim(0, "")]), ["create Pod web-0"]);
    // A claim that goes with an earlier pod is waited for, since it would go under the new one.
    let gone = ", ownerReferences: [{apiVersion: v1, kind: Pod, name: web-0, uid: gone}]";
    assert!(done(&[&set, &claim(0, gone)]).is_empty());
}

#[test]
fn claims_belong_to_whom_the_policy_says() {
    let policy = |rest: &str| {
        set(&format!(
            "{CLAIMS}\n  persistentVolumeClaimRetentionPolicy: {{{rest}}}\n  ordinals: {{start: 1}}"
        ))
    };
    let pods = [0, 1].map(|n| pod(n, "sick", "new")).concat();
    let claims = [claim(0, ""), claim(1, "")].concat();
    let owners = |policy: &str| -> Vec<String> {
        let changes = done(&[policy, &pods, &claims]);
        let changes = changes.iter().filter(|line| line.contains("ownerReferences"));
        changes
            .map(|line| {
                let kind = if line.contains(r#""kind":"Pod""#) { "pod" } else { "set" };
                format!("{} {kind}", line.split(' ').nth(2).unwrap())
            })
            .collect()
    };
    assert!(owners(&policy("whenDeleted: Retain, whenScaled: Retain")).is_empty());
    let with_set = ["data-web-1 set", "data-web-0 set"];
    assert_eq!(owners(&policy("whenDeleted: Delete, whenScaled: Retain")), with_set);
    assert_eq!(owners(&policy("whenDeleted: Retain, whenScaled: Delete")), ["data-web-0 pod"]);
    let both = ["data-web-1 set", "data-web-0 pod"];
    assert_eq!(owners(&policy("whenDeleted: Delete, whenScaled: Delete")), both);
}

#[test]
fn a_finished_roll_out_is_the_current_revision() {
    let status = |pods: &str| {
        let plan = plan(&STATEFUL_SET, "default/web", &[&set(""), pods].concat(), None);
        let patch = plan.actions.iter().find_map(|action| match action {
            Action::Patch { subresource: "status", patch, .. } => Some(patch["status"].clone()),
            _ => None,
        });
        patch.unwrap()
    };
    let half = [pod(0, "ready", "old"), pod(1, "sick", "new"), pod(2, "ready", "new")].concat();
    assert_eq!(
        status(&half),
        json!({"availableReplicas": 2, "currentReplicas": 1, "observedGeneration": 1,
            "readyReplicas": 2, "replicas": 3, "updateRevision": new(), "updatedReplicas": 2})
    );
    let all = [0, 1, 2].map(|n| pod(n, "ready", "new")).concat();
    assert_eq!(status(&all)["currentRevision"], new());
    assert_eq!(status(&all)["currentReplicas"], 3);
}
