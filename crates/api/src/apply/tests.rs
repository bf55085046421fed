//! Applies and updates as text: configurations in, objects and owners out.

use super::*;
use crate::resource::find_kind;

mod mixtures;
mod model;

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// One object and what is done to it, a second apart.
#[derive(Default)]
struct Story {
    object: Option<Value>,
    second: u32,
}

impl Story {
    fn manager<'a>(
        &mut self,
        name: &'a str,
        time: &'a mut String,
        version: &'a str,
    ) -> Manager<'a> {
        self.second += 1;
        *time = format!("2026-01-01T00:00:{:02}Z", self.second);
        let (name, subresource) = name.split_once('/').unwrap_or((name, ""));
        Manager { name, api_version: version, subresource, time }
    }

    /// An apply; `name` is the manager, `manager/status` one of a subresource, `!` forces.
    fn apply(&mut self, name: &str, text: &str) -> Result<(), ApplyError> {
        let (name, force) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
        let applied = yaml(text);
        let version = applied["apiVersion"].as_str().unwrap().to_owned();
        let (resource, mut time) = (resource(&applied), String::new());
        let manager = self.manager(name, &mut time, &version);
        check(resource, &version, &applied)?;
        self.object =
            Some(super::apply(resource, self.object.as_ref(), &applied, &manager, force)?);
        Ok(())
    }

    /// Any other write: the first one makes the object, others are merge patches.
    fn update(&mut self, name: &str, text: &str) {
        let mut new = self.object.clone().unwrap_or(Value::Null);
        json_patch::merge(&mut new, &yaml(text));
        let version = new["apiVersion"].as_str().unwrap().to_owned();
        let (resource, mut time) = (resource(&new), String::new());
        let manager = self.manager(name, &mut time, &version);
        track(resource, self.object.as_ref(), &mut new, &manager);
        self.object = Some(new);
    }

    /// The object without its owners.
    #[track_caller]
    fn is(&self, expected: &str) {
        let mut object = self.object.clone().unwrap();
        take_owners(&mut object);
        assert_eq!(object, yaml(expected));
    }

    /// The owners, one a line: `manager operation second: paths`.
    #[track_caller]
    fn owned(&self, expected: &str) {
        let list = &self.object.as_ref().unwrap()["metadata"]["managedFields"];
        let lines = Owners::parse(list).unwrap().0.into_iter().map(|owner| {
            let view = if owner.subresource.is_empty() { "" } else { "/" };
            let time = owner.time.unwrap_or_default();
            let second = time.trim_end_matches('Z').rsplit(':').next().unwrap_or("");
            let (manager, operation) = (&owner.manager, owner.operation);
            let paths = owner.set.paths().join(" ");
            format!("{manager}{view}{} {operation:?} {second}: {paths}", owner.subresource)
        });
        let expected: Vec<&str> =
            expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    }
}

fn resource(object: &Value) -> &'static Resource {
    let text = |name: &str| object[name].as_str().unwrap();
    let api_version = text("apiVersion");
    let (group, version) = crate::resource::split_api_version(api_version);
    find_kind(group, version, text("kind")).unwrap()
}

fn conflicts(error: Result<(), ApplyError>) -> Vec<String> {
    match error {
        Err(ApplyError::Conflicts(list)) => {
            list.into_iter().map(|c| format!("{}: {}", c.manager, c.field)).collect()
        }
        other => panic!("{other:?}"),
    }
}

const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '1', y: '2'}}";

#[test]
fn an_applier_owns_what_it_lists_and_takes_away_what_it_lists_no_more() {
    let mut story = Story::default();
    story.apply("me", MAP).unwrap();
    story.owned("me Apply 01: .data.x .data.y");
    story
        .apply("me", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '1'}}")
        .unwrap();
    story.is("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '1'}}");
    story.owned("me Apply 02: .data.x");
    story.apply("me", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}").unwrap();
    story.is("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}");
    story.owned("");
}

#[test]
fn a_changed_field_of_another_is_a_conflict() {
    let mut story = Story::default();
    story.apply("one", MAP).unwrap();
    let theirs = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '9', z: '3'}}";
    assert_eq!(conflicts(story.apply("two", theirs)), [r#""one": .data.x"#]);
    story.owned("one Apply 01: .data.x .data.y");
    story.apply("two!", theirs).unwrap();
    story.is(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '9', y: '2', z: '3'}}",
    );
    story.owned("one Apply 01: .data.y\ntwo Apply 03: .data.x .data.z");
}

#[test]
fn equal_values_are_shared_and_stay_until_the_last_owner_goes() {
    let mut story = Story::default();
    story.apply("one", MAP).unwrap();
    let x = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '1'}}";
    story.apply("two", x).unwrap();
    story.owned("one Apply 01: .data.x .data.y\ntwo Apply 02: .data.x");
    story
        .apply("one", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {y: '2'}}")
        .unwrap();
    story.is(MAP);
    story.owned("two Apply 02: .data.x\none Apply 03: .data.y");
    // An update makes the field its own.
    story.update("ed", "data: {x: '5'}");
    story.owned("one Apply 03: .data.y\ned Update 04: .data.x");
    assert_eq!(conflicts(story.apply("two", x)), [r#""ed" using v1: .data.x"#]);
}

#[test]
fn updates_are_tracked_by_what_they_change() {
    let mut story = Story::default();
    story.update("curl", MAP);
    story.owned("curl Update 01: .data .data.x .data.y");
    story.update("curl", "metadata: {labels: {l: a}}");
    story.owned("curl Update 02: .data .data.x .data.y .metadata.labels .metadata.labels.l");
    story.update("ed", "data: {x: null, y: '3'}");
    story.owned(
        "curl Update 02: .data .metadata.labels .metadata.labels.l
         ed Update 03: .data.y",
    );
    // Nothing changed: nobody's time moves, and so the object is not written.
    story.update("else", "data: {y: '3'}");
    story.owned(
        "curl Update 02: .data .metadata.labels .metadata.labels.l
         ed Update 03: .data.y",
    );
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: nginx
        ports: [{containerPort: 80}]
";

#[test]
fn a_deployment_created_by_kubectl_has_upstreams_entry() {
    let mut story = Story::default();
    story.update("kubectl-create", DEPLOYMENT);
    let entry = &story.object.as_ref().unwrap()["metadata"]["managedFields"][0];
    assert_eq!(
        entry.to_string(),
        r#"{"manager":"kubectl-create","operation":"Update","apiVersion":"apps/v1","time":"2026-01-01T00:00:01Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:replicas":{},"f:selector":{},"f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}}"#
    );
}

#[test]
fn a_controllers_change_of_the_scale_is_a_conflict_and_can_be_left_to_it() {
    let mut story = Story::default();
    story.apply("me", DEPLOYMENT).unwrap();
    story.update("hpa/scale", "spec: {replicas: 5}");
    assert_eq!(
        conflicts(story.apply("me", DEPLOYMENT)),
        [r#""hpa" with subresource "scale" using apps/v1: .spec.replicas"#]
    );
    // The field is given up: it stays as the other manager has it.
    story.apply("me", &DEPLOYMENT.replace("  replicas: 3\n", "")).unwrap();
    assert_eq!(story.object.as_ref().unwrap()["spec"]["replicas"], 5);
}

#[test]
fn items_are_told_apart_by_keys_with_their_defaults() {
    let mut story = Story::default();
    story.apply("me", DEPLOYMENT).unwrap();
    // The same port, spelled out; and a container that somebody injects.
    let spelled =
        DEPLOYMENT.replace("containerPort: 80", "containerPort: 80, protocol: TCP, name: http");
    story.apply("me", &spelled).unwrap();
    let sidecar = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: side, image: proxy}]}}}
";
    story.apply("mesh", sidecar).unwrap();
    let names = |story: &Story| {
        let list = &story.object.as_ref().unwrap()["spec"]["template"]["spec"]["containers"];
        let list = list.as_array().unwrap().clone();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&story), ["c", "side"]);
    let ports =
        &story.object.as_ref().unwrap()["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports, &yaml("[{containerPort: 80, protocol: TCP, name: http}]"));
    // Gone with the applier's own fields, and nothing else is.
    story.apply("mesh", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}").unwrap();
    assert_eq!(names(&story), ["c"]);
}

#[test]
fn defaults_belong_to_nobody_and_go_with_the_item_they_are_in() {
    let mut story = Story::default();
    story.apply("me", DEPLOYMENT).unwrap();
    let object = story.object.as_mut().unwrap();
    object["spec"]["strategy"] = yaml("{type: RollingUpdate}");
    object["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always".into();
    let other = DEPLOYMENT.replace("name: c", "name: d");
    story.apply("me", &other).unwrap();
    let mut expected = yaml(&other);
    expected["spec"]["strategy"] = yaml("{type: RollingUpdate}");
    story.is(&serde_saphyr::to_string(&expected).unwrap());
}

#[test]
fn lists_keep_the_order_that_is_applied() {
    for (live, applied, expected) in [
        ("a b c", "a b c", "a b c"),
        ("a b X", "b a n", "b X a n"),
        ("X a Y", "a", "X a Y"),
        ("a X b Y", "n a b", "n a X b Y"),
        ("", "b a", "b a"),
        ("c b a", "a b c", "a b c"),
        ("X Y", "a b", "X Y a b"),
    ] {
        let list = |text: &str| -> Value {
            text.split(' ')
                .filter(|t| !t.is_empty())
                .map(|t| yaml(&format!("{{name: {t}}}")))
                .collect()
        };
        let place = Place::of(find_kind("", "v1", "Pod").unwrap(), "v1");
        let mut merged = list(live);
        merge::merge(place.member("spec").member("containers"), &mut merged, &list(applied));
        assert_eq!(merged, list(expected), "{live} + {applied}");
    }
}

#[test]
fn sets_and_whole_values() {
    let mut story = Story::default();
    let pod = |finalizer: &str, selector: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, finalizers: [{finalizer}]}}, spec: {{nodeSelector: {{{selector}: a}}}}}}"
        )
    };
    story.apply("one", &pod("a/x", "l")).unwrap();
    story.owned(r#"one Apply 01: .metadata.finalizers[="a/x"] .spec.nodeSelector"#);
    // Finalizers are a set, a node selector is one value.
    assert_eq!(conflicts(story.apply("two", &pod("a/y", "m"))), [r#""one": .spec.nodeSelector"#]);
    story.apply("two!", &pod("a/y", "m")).unwrap();
    story.is("{apiVersion: v1, kind: Pod, metadata: {name: p, finalizers: [a/x, a/y]}, spec: {nodeSelector: {m: a}}}");
}

#[test]
fn what_was_there_before_the_first_apply_is_somebodys() {
    let mut story = Story { object: Some(yaml(MAP)), ..Story::default() };
    story.object.as_mut().unwrap()["metadata"]["uid"] = "u".into();
    // Not tracked, not even by an update.
    story.update("ed", "data: {x: '4'}");
    story.owned("");
    assert_eq!(conflicts(story.apply("me", MAP)), [r#""before-first-apply" using v1: .data.x"#]);
    story.apply("me", &MAP.replace("'1'", "'4'")).unwrap();
    story.owned(
        "me Apply 03: .data.x .data.y
         before-first-apply Update 03: .data .data.x .data.y",
    );
}

#[test]
fn kubectl_moves_from_its_annotation() {
    let mut story = Story::default();
    let last = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","y":"2"}}"#;
    story.update("kubectl-client-side-apply", MAP);
    let annotated = serde_json::json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": last}}});
    story.update("kubectl-client-side-apply", &annotated.to_string());
    story.update("ed", "data: {y: '7'}");
    let wanted = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '8', y: '2'}}";
    // What kubectl recorded is its own, what was changed since is not.
    assert_eq!(conflicts(story.apply("kubectl", wanted)), [r#""ed" using v1: .data.y"#]);
    assert_eq!(conflicts(story.apply("flux", wanted)).len(), 2);
    let wanted = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: '8'}}";
    story.apply("kubectl", wanted).unwrap();
    let object = story.object.as_ref().unwrap();
    assert_eq!(object["data"], yaml("{x: '8', y: '7'}"));
    assert_eq!(
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
        "{\"apiVersion\":\"v1\",\"data\":{\"x\":\"8\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"}}\n"
    );
}

#[test]
fn owners_can_be_edited_reset_and_are_kept_when_broken() {
    let mut story = Story::default();
    story.apply("me", MAP).unwrap();
    let before = "me Apply 01: .data.x .data.y";
    for harmless in [
        "[]",
        "null",
        "[{manager: x, operation: Move}]",
        "[{manager: x, operation: Update, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {'x:': {}}}]",
    ] {
        story.update("ed", &format!("metadata: {{managedFields: {harmless}}}"));
        story.owned(before);
    }
    let renamed = "[{manager: you, operation: Apply, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {'f:data': {'f:x': {}}}}]";
    story.update("ed/status", &format!("metadata: {{managedFields: {renamed}}}"));
    story.owned(before);
    story.update("ed", &format!("metadata: {{managedFields: {renamed}}}"));
    story.owned("you Apply : .data.x");
    story.update("ed", "metadata: {managedFields: [{}]}");
    story.owned("");
    assert!(story.object.unwrap()["metadata"].get("managedFields").is_none());
}

#[test]
fn views_own_their_part() {
    let mut story = Story::default();
    story.apply("me", &format!("{DEPLOYMENT}\nstatus: {{replicas: 1}}")).unwrap();
    assert!(story.object.as_ref().unwrap().get("status").is_none());
    let status = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 9}, status: {replicas: 2}}";
    story.apply("me/status", status).unwrap();
    assert_eq!(story.object.as_ref().unwrap()["spec"]["replicas"], 3);
    story.update("ctl/status", "status: {conditions: [{type: Available, status: 'True'}]}");
    let object = story.object.as_ref().unwrap();
    let mut owners = Owners::parse(&object["metadata"]["managedFields"]).unwrap();
    owners.0.retain(|owner| !owner.subresource.is_empty());
    story.object.as_mut().unwrap()["metadata"]["managedFields"] = owners.into_value();
    story.owned(
        r#"me/status Apply 02: .status.replicas
           ctl/status Update 03: .status.conditions .status.conditions[type="Available"] .status.conditions[type="Available"].status .status.conditions[type="Available"].type"#,
    );
}

#[test]
fn many_updaters_become_ancient_changes() {
    let mut story = Story::default();
    story.apply("me", MAP).unwrap();
    for n in 0..12 {
        story.update(&format!("u{n}"), &format!("data: {{k{n}: ''}}"));
    }
    let list = &story.object.as_ref().unwrap()["metadata"]["managedFields"];
    let owners = Owners::parse(list).unwrap().0;
    let names: Vec<&str> = owners.iter().map(|owner| owner.manager.as_str()).collect();
    assert_eq!(
        names,
        ["me", "ancient-changes", "u3", "u4", "u5", "u6", "u7", "u8", "u9", "u10", "u11"]
    );
    assert_eq!(owners[1].set.paths(), [".data.k0", ".data.k1", ".data.k2"]);
}

#[test]
fn versions_that_differ_are_seen_in_their_own_terms() {
    let mut story = Story::default();
    story.update(
        "old",
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h}, spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: web, apiVersion: apps/v1}}}",
    );
    // Another version's entry follows changes, one of an unknown version is forgotten.
    let entry = |version: &str| {
        format!(
            "{{manager: o, operation: Update, apiVersion: {version}, fieldsType: FieldsV1, fieldsV1: {{'f:spec': {{'f:maxReplicas': {{}}, 'f:minReplicas': {{}}}}}}}}"
        )
    };
    let list = format!("[{}, {}]", entry("autoscaling/v1"), entry("autoscaling/v2beta2"));
    story.update(
        "ed",
        &format!("{{metadata: {{managedFields: {list}}}, spec: {{maxReplicas: 4}}}}"),
    );
    story.owned(
        "o Update : .spec.minReplicas
         ed Update 02: .spec.maxReplicas",
    );
}

#[test]
fn configurations_that_do_not_fit_are_refused_with_upstreams_words() {
    for (change, expected) in [
        (("replicas: 3", "replica: 3"), ".spec.replica: field not declared in schema"),
        (
            ("replicas: 3", "replicas: x"),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            ("image: nginx", "image: nginx\n        args: a"),
            r#".spec.template.spec.containers[name="c"].args: expected list, got &{a}"#,
        ),
        (
            ("name: c\n        image", "image"),
            r#".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field "name" (and doesn't have default value)"#,
        ),
        (
            ("{containerPort: 80}", "{containerPort: 80}, {containerPort: 80, protocol: TCP}"),
            r#".spec.template.spec.containers[name="c"].ports: duplicate entries for key [containerPort=80,protocol="TCP"]"#,
        ),
    ] {
        let (from, to) = change;
        let error = Story::default().apply("me", &DEPLOYMENT.replace(from, to)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): {expected}"
            )
        );
    }
}

#[test]
fn owners_are_recorded_in_the_version_of_the_write() {
    let mut story = Story::default();
    story.update(
        "old",
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h}, spec: {maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
    );
    let live = story.object.clone().unwrap();
    let mut new = live.clone();
    new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = 80.into();
    let manager = Manager { name: "v1", api_version: "autoscaling/v1", subresource: "", time: "" };
    track(resource(&live), Some(&live), &mut new, &manager);
    story.object = Some(new);
    story.owned(
        "v1 Update : .spec.targetCPUUtilizationPercentage
         old Update 01: .spec.maxReplicas",
    );
}

#[test]
fn items_with_the_same_keys_are_one_value() {
    let env = |list: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: c, env: [{list}]}}]}}}}"
        )
    };
    let mut story = Story::default();
    story.update("one", &env("{name: A, value: a}, {name: A, value: b}, {name: B}"));
    story.update("two", &env("{name: A, value: a}, {name: A, value: c}, {name: B}"));
    let prefix = r#".spec.containers[name="c"]"#;
    let two = format!("two Update 02: {prefix}.env[name=\"A\"]");
    let list = &story.object.as_ref().unwrap()["metadata"]["managedFields"];
    let last = Owners::parse(list).unwrap().0.pop().unwrap();
    assert_eq!(format!("two Update 02: {}", last.set.paths().join(" ")), two);
    // One of them goes: the other is as good as new.
    story.update("three", &env("{name: A, value: a}, {name: B}"));
    // An apply settles it.
    story.apply("four!", &env("{name: A, value: z}")).unwrap();
    let env = &story.object.as_ref().unwrap()["spec"]["containers"][0]["env"];
    assert_eq!(env, &yaml("[{name: A, value: z}, {name: B}]"));
}

/// Applying once more changes nothing but the time.
#[test]
fn applying_again_is_nothing() {
    let mut story = Story::default();
    story.apply("me", DEPLOYMENT).unwrap();
    let mut first = story.object.clone().unwrap();
    story.apply("me", DEPLOYMENT).unwrap();
    let mut second = story.object.clone().unwrap();
    for object in [&mut first, &mut second] {
        object["metadata"]["managedFields"][0]["time"].take();
    }
    assert_eq!(first, second);
}

#[test]
fn a_kind_without_a_schema_merges_objects_and_replaces_lists() {
    let mut resource = find_kind("", "v1", "ConfigMap").unwrap().clone();
    for text in [&mut resource.group, &mut resource.storage_group] {
        *text = "example.com".into();
    }
    resource.kind = "Boat".into();
    let boat = |spec: &str| {
        yaml(&format!(
            "{{apiVersion: example.com/v1, kind: Boat, metadata: {{name: b, finalizers: [a/b]}}, spec: {spec}}}"
        ))
    };
    let manager = |name| Manager { name, api_version: "example.com/v1", subresource: "", time: "" };
    let apply = |live: Option<&Value>, name, spec: &str| {
        super::apply(&resource, live, &boat(spec), &manager(name), false)
    };
    let one = apply(None, "one", "{oars: [1, 2], crew: {cook: a}}").unwrap();
    let two = apply(Some(&one), "two", "{crew: {mate: b}}").unwrap();
    assert_eq!(two["spec"], yaml("{oars: [1, 2], crew: {cook: a, mate: b}}"));
    assert_eq!(
        conflicts(apply(Some(&two), "two", "{oars: [1], crew: cook}").map(|_| ())),
        [r#""one": .spec.crew"#, r#""one": .spec.oars"#]
    );
    let mut three = two.clone();
    three["spec"]["crew"]["cook"] = "c".into();
    track(&resource, Some(&two), &mut three, &manager("ed"));
    let story = Story { object: Some(three), second: 0 };
    story.owned(
        r#"one Apply : .spec .metadata.finalizers[="a/b"] .spec.crew .spec.oars
           two Apply : .spec .metadata.finalizers[="a/b"] .spec.crew .spec.crew.mate
           ed Update : .spec.crew.cook"#,
    );
}
