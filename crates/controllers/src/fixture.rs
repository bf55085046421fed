//! Tests as text: YAML documents in, one line an action out.

use client::Pod;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, ReplicationController, Secret,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::Config;
use crate::action::{Kind, Plan};
use crate::context::{Cx, Failure, Key};
use crate::driver::{Controller, Reconcile};
use crate::world::World;

/// What time it is in every test.
pub const NOW: &str = "2026-01-01T12:00:00Z";

/// For how long everything has been watched.
const SINCE_START: SignedDuration = SignedDuration::from_hours(1);

/// Parses YAML documents. Objects get a namespace, UID and version where they have none;
/// owner references written as `owner: Kind/name` are spelt out.
pub fn documents(yaml: &str) -> Vec<Value> {
    yaml.split("\n---\n").filter(|text| !text.trim().is_empty()).map(document).collect()
}

fn document(text: &str) -> Value {
    let mut object: Value = serde_saphyr::from_str(text).expect("a YAML object");
    let kind = object["kind"].as_str().expect("a kind").to_owned();
    let meta = object["metadata"].as_object_mut().expect("metadata");
    let name = meta["name"].as_str().expect("a name").to_owned();
    if !matches!(kind.as_str(), "Node" | "Namespace" | "CertificateSigningRequest") {
        meta.entry("namespace").or_insert_with(|| "default".into());
    }
    meta.entry("uid").or_insert_with(|| format!("{kind}-{name}").into());
    meta.entry("resourceVersion").or_insert_with(|| "1".into());
    meta.entry("creationTimestamp").or_insert_with(|| "2026-01-01T11:00:00Z".into());
    if let Some(Value::String(owner)) = meta.remove("owner") {
        let (kind, name) = owner.split_once('/').expect("owner: Kind/name");
        let references = json!([{
            "apiVersion": "v1", "kind": kind, "name": name, "uid": format!("{kind}-{name}"),
            "controller": true, "blockOwnerDeletion": true,
        }]);
        meta.insert("ownerReferences".into(), references);
    }
    object
}

fn fix<K: Kind>(world: &mut World, objects: &[Value]) {
    let of_kind = objects.iter().filter(|object| object["kind"] == K::KIND);
    let typed = of_kind.map(|o| serde_json::from_value::<K>(o.clone()).expect("a valid object"));
    world.fix(typed.collect::<Vec<_>>());
}

/// A world of these documents.
pub fn world(yaml: &str) -> World {
    let objects = documents(yaml);
    let mut world = World::fixed(SINCE_START, NOW.parse().expect("a time"));
    fix::<CertificateSigningRequest>(&mut world, &objects);
    fix::<ConfigMap>(&mut world, &objects);
    fix::<ControllerRevision>(&mut world, &objects);
    fix::<CronJob>(&mut world, &objects);
    fix::<DaemonSet>(&mut world, &objects);
    fix::<Deployment>(&mut world, &objects);
    fix::<EndpointSlice>(&mut world, &objects);
    fix::<Endpoints>(&mut world, &objects);
    fix::<Job>(&mut world, &objects);
    fix::<Lease>(&mut world, &objects);
    fix::<Namespace>(&mut world, &objects);
    fix::<Node>(&mut world, &objects);
    fix::<PersistentVolumeClaim>(&mut world, &objects);
    fix::<Pod>(&mut world, &objects);
    fix::<PodDisruptionBudget>(&mut world, &objects);
    fix::<ReplicaSet>(&mut world, &objects);
    fix::<ReplicationController>(&mut world, &objects);
    fix::<Secret>(&mut world, &objects);
    fix::<StatefulSet>(&mut world, &objects);
    fix::<Service>(&mut world, &objects);
    fix::<ServiceAccount>(&mut world, &objects);
    world.list::<Node>("").iter().for_each(|node| hear(&mut world, node));
    world.fix_moment(SINCE_START);
    world
}

/// A node was heard of when it says so.
fn hear(world: &mut World, node: &Node) {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let last = conditions.filter_map(|c| c.last_heartbeat_time.as_ref().map(|time| time.0)).max();
    let now: jiff::Timestamp = NOW.parse().expect("a time");
    if let Some(at) = last {
        world.fix_moment(SINCE_START - now.duration_since(at));
        world.note(crate::nodes::HEARTBEAT, &node.name_any(), Some(at));
    }
}

/// The plan of `controller` for `key` (`namespace/name` or `name`).
pub fn plan(controller: &Controller, key: &str, yaml: &str, failure: Option<Failure>) -> Plan {
    plan_in(&world(yaml), controller, key, failure)
}

/// The plan when everything has been watched for `since_start` only.
pub fn plan_at(
    controller: &Controller,
    key: &str,
    yaml: &str,
    since_start: SignedDuration,
) -> Plan {
    let mut world = world(yaml);
    world.fix_moment(since_start);
    plan_in(&world, controller, key, None)
}

/// The plan in a world that a test goes on with.
pub fn plan_in(
    world: &World,
    controller: &Controller,
    key: &str,
    failure: Option<Failure>,
) -> Plan {
    let Reconcile::Plan(plan) = controller.reconcile else { panic!("not a planner") };
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let config = Config { root_ca_pem: "PEM".into(), node_grace_seconds: 40, ..Config::default() };
    let now = NOW.parse().expect("a time");
    let moment = world.moment();
    let cx = Cx { world, now, moment, config: &config, failure: failure.as_ref() };
    plan(&cx, &Key::new(namespace, name))
}

/// Checks the plan's actions, one a line.
#[track_caller]
pub fn check(controller: &Controller, key: &str, yaml: &str, expected: &str) {
    let plan = plan(controller, key, yaml, None);
    compare(&plan, expected);
}

/// Compares the printed plan with the text.
#[track_caller]
pub fn compare(plan: &Plan, expected: &str) {
    let lines: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
    let wanted: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(lines, wanted, "\ngot:\n{}\n", lines.join("\n"));
}
