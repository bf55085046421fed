//! Objects and patches in, objects out.

use super::*;
use crate::resource::find;
use serde_json::json;

mod model;

fn patched(spec: Value, patch: Value) -> Value {
    let pods = find("", "v1", "pods").unwrap();
    let mut pod = json!({"spec": spec});
    strategic(pods, "v1", &mut pod, &json!({"spec": patch})).unwrap();
    pod["spec"].take()
}

fn names(list: &Value) -> String {
    let names: Vec<&str> =
        list.as_array().unwrap().iter().filter_map(|i| i["name"].as_str()).collect();
    names.join(" ")
}

#[test]
fn lists_merge_by_their_key() {
    let spec = json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]});
    let patch = json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]});
    assert_eq!(
        patched(spec.clone(), patch),
        json!({"containers": [
            {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
            {"name": "c"}, {"name": "b"}]})
    );
    let delete = json!({"containers": [{"name": "a", "$patch": "delete"}]});
    assert_eq!(patched(spec.clone(), delete), json!({"containers": [{"name": "b"}]}));
    let replace = json!({"containers": [{"name": "n"}, {"$patch": "replace"}]});
    assert_eq!(patched(spec, replace), json!({"containers": [{"name": "n"}]}));
}

#[test]
fn orders_are_kept_around_what_the_patch_does_not_know() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "injected"}, {"name": "b"}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
        "containers": [{"name": "c"}]});
    assert_eq!(names(&patched(spec.clone(), patch)["containers"]), "c injected b a");
    let alone = json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(names(&patched(spec, alone)["containers"]), "a injected b");
}

#[test]
fn maps_scalars_and_atomic_lists() {
    let spec = json!({"nodeSelector": {"a": "1", "b": "2"}, "containers": [{"name": "c", "command": ["x", "y"]}]});
    let patch = json!({"nodeSelector": {"a": null, "c": "3"}, "containers": [{"name": "c", "command": ["z"]}]});
    assert_eq!(
        patched(spec, patch),
        json!({"nodeSelector": {"b": "2", "c": "3"}, "containers": [{"name": "c", "command": ["z"]}]})
    );
}

#[test]
fn finalizers_are_a_set() {
    let pods = find("", "v1", "pods").unwrap();
    let mut pod = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["b", "c"]}});
    strategic(pods, "v1", &mut pod, &patch).unwrap();
    assert_eq!(pod["metadata"]["finalizers"], json!(["b", "c"]));
}

#[test]
fn a_union_keeps_only_what_it_is_told_to() {
    let deployments = find("apps", "v1", "deployments").unwrap();
    let mut object =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    strategic(deployments, "v1", &mut object, &patch).unwrap();
    assert_eq!(object["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn what_the_patch_names_stands_in_its_order() {
    let containers = |names: &str| -> Vec<Value> {
        names.split(' ').map(|name| json!({"name": name})).collect()
    };
    for (before, patch, expected) in [
        ("a b", "c", "c a b"),
        ("a x b", "b a", "x b a"),
        ("a x b", "a b", "a x b"),
        ("x a y", "a n", "x a n y"),
    ] {
        let spec = json!({"containers": containers(before)});
        let found = patched(spec, json!({"containers": containers(patch)}));
        assert_eq!(names(&found["containers"]), expected, "{before} + {patch}");
    }
}

#[test]
fn what_meets_nothing_is_taken_without_what_it_says_of_something() {
    assert_eq!(
        patched(
            json!({}),
            json!({"nodeSelector": {"a": null, "b": "1"}, "securityContext": {"$patch": "replace", "runAsUser": 1},
                "dnsConfig": {"$patch": "delete"},
                "containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "$retainKeys": ["name"]}]})
        ),
        json!({"nodeSelector": {"b": "1"}, "containers": [{"name": "b"}]})
    );
}

#[test]
fn patches_that_cannot_be_followed_are_refused() {
    let pods = find("", "v1", "pods").unwrap();
    let pod = json!({"metadata": {"finalizers": ["f"]}, "spec": {"containers": [{"name": "a"}], "dnsPolicy": "x"}});
    let refused =
        |patch: Value| strategic(pods, "v1", &mut pod.clone(), &patch).unwrap_err().to_string();
    for (spec, expected) in [
        (
            json!({"containers": [{"image": "i"}]}),
            "map: map[image:i] does not contain declared merge key: name",
        ),
        (json!({"$patch": "x", "a": 1}), "unknown patch type: x in map: map[$patch:x a:1]"),
        (json!({"$patch": "merge"}), "unknown patch type: merge in map: map[$patch:merge]"),
        (
            json!({"containers": [{"name": "a", "$patch": "merge"}]}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"containers": [{"name": "a", "$patch": [2.5, null]}]}),
            "unknown patch type: [2.5 <nil>] in map: map[$patch:[2.5 <nil>] name:a]",
        ),
        (
            json!({"containers": [{"name": "b"}, 1]}),
            "list element types are not identical: [[map[name:a]] [map[name:b] 1]]",
        ),
        (json!({"$retainKeys": 1}), "invalid patch format of retainKeys"),
        (json!({"$retainKeys": ["a"], "dnsPolicy": "b"}), "invalid patch format of retainKeys"),
        (
            json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
        (json!({"$setElementOrder": []}), "invalid patch format of setElementOrder list"),
        (
            json!({"$setElementOrder/containers": {}}),
            "expected a []interface {}, but received a map[string]interface {}",
        ),
    ] {
        assert_eq!(refused(json!({"spec": spec})), expected);
    }
    assert_eq!(
        refused(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": 1}})),
        "invalid patch format of primitive list"
    );
    assert_eq!(
        refused(json!({"metadata": {"finalizers": [[]]}})),
        "list element types are not identical: [[f] [[]]]"
    );
}
