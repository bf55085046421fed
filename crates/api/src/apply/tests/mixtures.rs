//! What holds whatever two appliers and an updater do to each other.

use super::*;

const BARE: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}";

/// `metadata` members beside the name, and `spec`.
const CONFIGS: [(&str, &str); 8] = [
    (
        "labels: {app: web}",
        "{replicas: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]}}}",
    ),
    ("labels: {app: x, b: c}", "{replicas: 1}"),
    ("finalizers: [a/x, a/y]", "{strategy: {type: Recreate}}"),
    (
        "",
        "{template: {spec: {containers: [{name: c, image: other, ports: [{containerPort: 80, name: a}, {containerPort: 80, protocol: UDP}]}]}}}",
    ),
    (
        "",
        "{template: {spec: {containers: [{name: d, image: i, env: [{name: A, value: b}], resources: {limits: {cpu: 1}}}], nodeSelector: {a: b}}}}",
    ),
    (
        "",
        "{template: {spec: {volumes: [{name: v, emptyDir: {}}], tolerations: [{key: k}], securityContext: {runAsUser: 1}}}}",
    ),
    (
        "annotations: {q: r}",
        "{template: {metadata: {labels: {app: web, x: z}, annotations: {q: r}}}, paused: true}",
    ),
    ("", "{}"),
];

fn config((metadata, spec): (&str, &str)) -> String {
    let comma = if metadata.is_empty() { "" } else { ", " };
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web{comma}{metadata}}}, spec: {spec}}}"
    )
}

fn without_owners(story: &Story) -> Value {
    let mut object = story.object.clone().unwrap();
    take_owners(&mut object);
    object
}

/// Nobody owns what is not there.
fn check_owners(story: &Story, what: &str) {
    let object = story.object.as_ref().unwrap();
    let place = Place::of(resource(object), "apps/v1");
    let all = Difference::between(place, &nothing(object), object);
    for mut owner in Owners::parse(&object["metadata"]["managedFields"]).unwrap().0 {
        owner.set.subtract(&all.set);
        owner.set.subtract(&compare::fields(place, object).with_named_fields(place));
        assert!(owner.set.is_empty(), "{what}: {} owns {:?}", owner.manager, owner.set.paths());
    }
}

fn run(first: &str, second: &str, third: &str) {
    let what = format!("{first}\n{second}\n{third}\n");
    let mut story = Story::default();
    story.apply("one", first).unwrap();
    story.apply("two!", second).unwrap();
    story.update("ed", "{spec: {progressDeadlineSeconds: 9, replicas: 7}}");
    story.apply("one!", third).unwrap();
    check_owners(&story, &what);

    // Once more is nothing.
    let before = without_owners(&story);
    story.apply("one", third).unwrap();
    assert_eq!(without_owners(&story), before, "{what}");

    // What the appliers set goes when they list it no more; the updater's stays.
    story.apply("one", BARE).unwrap();
    story.apply("two", BARE).unwrap();
    check_owners(&story, &what);
    let left = without_owners(&story);
    let kept = ["progressDeadlineSeconds", "replicas"];
    let spec = left["spec"].as_object().unwrap();
    assert!(spec.keys().all(|name| kept.contains(&name.as_str())), "{what}{left}");
    assert_eq!(left["metadata"], yaml("{name: web}"), "{what}");
}

#[test]
fn invariants_hold_for_all_mixtures() {
    let configs = CONFIGS.map(config);
    for (i, first) in configs.iter().enumerate() {
        for (j, second) in configs.iter().enumerate() {
            // Each third one follows each first one, and each second one, once.
            run(first, second, &configs[(i + j) % configs.len()]);
        }
    }
}
