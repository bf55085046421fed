//! Strategic merge patches (`application/strategic-merge-patch+json`): a merge patch that knows
//! from the schema which lists are merged item by item, and by which key.
//!
//! Rules: k8s.io/apimachinery/pkg/util/strategicpatch, and "Strategic Merge Patch" of the
//! community's API conventions.

use crate::resource::Resource;
use crate::schema::Schema;
use serde_json::{Map, Value};

/// Says what is to be done with the object or item it stands in: `merge`, `replace`, `delete`.
const DIRECTIVE: &str = "$patch";
/// Names the only members that stay beside those of the patch.
const RETAIN_KEYS: &str = "$retainKeys";
/// Begins the name of a member that lists values to be taken out of a list of scalars.
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
/// Begins the name of a member that gives the order of a merged list.
const SET_ORDER: &str = "$setElementOrder/";

/// Why a patch cannot be applied; the message is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatchError(pub String);

type Outcome<T> = Result<T, PatchError>;

/// Merges `patch` into `original`, an object of `resource` in `version`.
pub fn strategic(
    resource: &Resource,
    version: &str,
    original: &mut Value,
    patch: &Value,
) -> Outcome<()> {
    let Some(patch) = patch.as_object() else {
        return Err(PatchError("error decoding patch: the patch is not an object".to_owned()));
    };
    let schema = Schema::of(&resource.group, version, &resource.kind);
    merge_object(schema, object(original), patch)
}

/// A value as an object; anything else becomes an empty one.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

fn merge_object(
    schema: Option<Schema<'_>>,
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Outcome<()> {
    match directive(patch)? {
        Some("delete") => {
            original.clear();
            return Ok(());
        }
        Some("replace") => original.clear(),
        _ => {}
    }
    if let Some(retained) = patch.get(RETAIN_KEYS) {
        let Some(retained) = retained.as_array() else {
            return Err(PatchError("invalid patch format of retainKeys list".to_owned()));
        };
        original.retain(|name, _| retained.iter().any(|kept| kept == name.as_str()));
    }
    for (name, values) in patch {
        if let Some(name) = name.strip_prefix(DELETE_FROM) {
            remove_scalars(original.get_mut(name), values)?;
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let before = original.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let field = schema.and_then(|schema| schema.member(name));
        merge_member(field, name, original, value)?;
        if let Some(order) = patch.get(&format!("{SET_ORDER}{name}")) {
            sort(field, original.get_mut(name), &before, order)?;
        }
    }
    // An order can stand alone: the list itself did not change.
    for (name, order) in patch {
        let Some(name) = name.strip_prefix(SET_ORDER).filter(|name| !patch.contains_key(*name))
        else {
            continue;
        };
        let before = original.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let field = schema.and_then(|schema| schema.member(name));
        sort(field, original.get_mut(name), &before, order)?;
    }
    Ok(())
}

fn directive(patch: &Map<String, Value>) -> Outcome<Option<&str>> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(what)) if matches!(what.as_str(), "merge" | "replace" | "delete") => {
            Ok(Some(what))
        }
        Some(other) => Err(PatchError(format!("unknown patch type found: {other}"))),
    }
}

fn merge_member(
    schema: Option<Schema<'_>>,
    name: &str,
    original: &mut Map<String, Value>,
    patch: &Value,
) -> Outcome<()> {
    let replaces = schema.is_some_and(|schema| schema.patch_replaces());
    match patch {
        Value::Null => {
            original.shift_remove(name);
        }
        Value::Object(patch) if !replaces => {
            let below = original.entry(name).or_insert_with(|| Value::Object(Map::new()));
            merge_object(schema, object(below), patch)?;
        }
        Value::Array(patch) if schema.is_some_and(|schema| schema.patch_merges()) => {
            let list = original.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if !list.is_array() {
                *list = Value::Array(Vec::new());
            }
            if let (Some(schema), Value::Array(list)) = (schema, list) {
                merge_list(schema, list, patch)?;
            }
        }
        _ => {
            original.insert(name.to_owned(), patch.clone());
        }
    }
    Ok(())
}

fn merge_list(schema: Schema<'_>, list: &mut Vec<Value>, patch: &[Value]) -> Outcome<()> {
    let Some(key) = schema.patch_merge_key() else {
        for value in patch {
            if !list.contains(value) {
                list.push(value.clone());
            }
        }
        return Ok(());
    };
    let is_replace = |item: &Value| item[DIRECTIVE] == "replace";
    if patch.iter().any(is_replace) {
        list.clear();
    }
    for item in patch.iter().filter(|item| !is_replace(item)) {
        let Some(item) = item.as_object() else {
            return Err(PatchError(format!("the items of a list merged by {key} must be objects")));
        };
        let Some(wanted) = item.get(key) else {
            let shown = Value::Object(item.clone());
            return Err(PatchError(format!(
                "map: {shown} does not contain declared merge key: {key}"
            )));
        };
        if directive(item)? == Some("delete") {
            list.retain(|own| &own[key] != wanted);
            continue;
        }
        let at = list.iter().position(|own| &own[key] == wanted).unwrap_or_else(|| {
            list.push(Value::Object(Map::new()));
            list.len() - 1
        });
        merge_object(schema.items(), object(&mut list[at]), item)?;
    }
    Ok(())
}

fn remove_scalars(list: Option<&mut Value>, values: &Value) -> Outcome<()> {
    let Some(values) = values.as_array() else {
        return Err(PatchError("invalid patch format of deleteFromPrimitiveList list".to_owned()));
    };
    if let Some(list) = list.and_then(Value::as_array_mut) {
        list.retain(|own| !values.contains(own));
    }
    Ok(())
}

/// Brings a merged list into the order that the patch gives. Items that the patch does not name
/// keep their places relative to those that were there `before`.
fn sort(
    schema: Option<Schema<'_>>,
    list: Option<&mut Value>,
    before: &[Value],
    order: &Value,
) -> Outcome<()> {
    let Some(order) = order.as_array() else {
        return Err(PatchError("invalid patch format of setElementOrder list".to_owned()));
    };
    let Some(list) = list.and_then(Value::as_array_mut) else { return Ok(()) };
    let key = schema.and_then(|schema| schema.patch_merge_key());
    let identity = |item: &Value| key.map_or_else(|| item.clone(), |key| item[key].clone());
    let place = |items: &[Value], item: &Value| {
        let wanted = identity(item);
        items.iter().position(|other| identity(other) == wanted)
    };
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        list.drain(..).partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let mut named = named.into_iter().peekable();
    for other in others {
        let limit = place(before, &other);
        while let Some(item) =
            named.next_if(|item| place(before, item).is_none_or(|at| Some(at) < limit))
        {
            list.push(item);
        }
        list.push(other);
    }
    list.extend(named);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;
    use serde_json::json;

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
                {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                {"name": "b"}, {"name": "c"}]})
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
        let mut object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        strategic(deployments, "v1", &mut object, &patch).unwrap();
        assert_eq!(object["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn patches_without_a_key_are_refused() {
        let pods = find("", "v1", "pods").unwrap();
        let refused = |patch: Value| strategic(pods, "v1", &mut json!({}), &patch).unwrap_err().0;
        assert_eq!(
            refused(json!({"spec": {"containers": [{"image": "i"}]}})),
            "map: {\"image\":\"i\"} does not contain declared merge key: name"
        );
        assert_eq!(refused(json!({"spec": {"$patch": "x"}})), "unknown patch type found: \"x\"");
    }
}
