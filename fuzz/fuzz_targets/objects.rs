//! Bodies: objects in every notation, and patches of them.

use api::apply::{self, Manager};
use api::resource::{RESOURCES, Resource};
use api::schema::Schema;
use api::strategy;
use api::table::Printer;
use serde_json::{Value, json};
use std::sync::Arc;

/// The kind that a byte stands for, and the rest.
fn kind(data: &[u8]) -> Option<(&'static Resource, &'static str, &[u8])> {
    let (kind, data) = data.split_first()?;
    let resource = &RESOURCES[usize::from(*kind) % RESOURCES.len()];
    Some((resource, &resource.versions[0], data))
}

/// Values, a line each.
fn lines<const N: usize>(data: &[u8]) -> Option<[Value; N]> {
    let mut lines = data.splitn(N, |byte| *byte == b'\n');
    let mut values = [const { Value::Null }; N];
    for value in &mut values {
        *value = serde_json::from_slice(lines.next()?).ok()?;
    }
    Some(values)
}

/// Makes a value an object of the kind as far as the server does before anything else looks.
fn settle(resource: &Resource, version: &str, object: &mut Value) -> bool {
    let schema = Schema::of(&resource.group, version, &resource.kind);
    let Some(schema) = schema.filter(|_| object.is_object()) else { return false };
    object["apiVersion"] = resource.api_version(version).into();
    object["kind"] = resource.kind.as_ref().into();
    let wrong = schema.check(object);
    if wrong.iter().any(|problem| matches!(problem, api::schema::Problem::Type(_))) {
        return false;
    }
    schema.prune(object);
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    true
}

/// The road of a new object up to the store, and back as the printers show it.
fn create(resource: &Resource, version: &str, object: &mut Value) -> bool {
    if !settle(resource, version, object) {
        return false;
    }
    strategy::default(resource, version, object);
    strategy::prepare_create(resource, object);
    let sound = strategy::validate(resource, object).is_empty();
    let now = jiff::Timestamp::UNIX_EPOCH;
    Printer::of(&resource.group, &resource.kind).row(object, now, None);
    api::quota::usage(resource, object, now);
    if let Ok(message) = api::protobuf::encode(object) {
        api::protobuf::decode(&message).expect("a message of our own");
    }
    sound
}

/// A body of JSON or YAML.
pub fn body(data: &[u8]) {
    let Some((resource, version, data)) = kind(data) else { return };
    let object = serde_json::from_slice(data).ok().or_else(|| {
        let text = std::str::from_utf8(data).ok()?;
        let read = serde_saphyr::with_deserializer_from_str_with_options(
            text,
            serde_saphyr::options! {},
            |yaml| api::schema::decode(yaml),
        );
        read.ok().map(|(value, _)| value)
    });
    if let Some(mut object) = object {
        create(resource, version, &mut object);
    }
}

/// A change of an object, in all views.
pub fn update(data: &[u8]) {
    let Some((resource, version, data)) = kind(data) else { return };
    let Some([mut old, mut new]) = lines(data) else { return };
    // What is stored has been judged; what is sent has not.
    if !create(resource, version, &mut old) || !settle(resource, version, &mut new) {
        return;
    }
    strategy::default(resource, version, &mut new);
    let views = resource.subresources.iter().map(|view| view.name.as_ref());
    for view in views.chain([""]) {
        let mut new = new.clone();
        strategy::prepare_update(resource, view, &mut new, &old);
        strategy::validate_update(resource, view, &new, &old);
        strategy::date_conditions(resource, &mut new, &old, "2026-01-01T00:00:00Z");
    }
}

/// A document in protobuf: what was read is read again from what is written of it.
pub fn protobuf(data: &[u8]) {
    let Ok(object) = api::protobuf::decode(data) else { return };
    let Ok(message) = api::protobuf::encode(&object) else { return };
    let again = api::protobuf::decode(&message).expect("a message of our own");
    let message = api::protobuf::encode(&again).expect("the same kind");
    assert_eq!(api::protobuf::decode(&message), Ok(again));
}

pub fn json_patch(data: &[u8]) {
    let Some([mut object, patch]) = lines(data) else { return };
    if let Ok(patch) = serde_json::from_value::<json_patch::Patch>(patch) {
        let _ = json_patch::patch(&mut object, &patch);
    }
}

pub fn merge_patch(data: &[u8]) {
    if let Some([mut object, patch]) = lines(data) {
        json_patch::merge(&mut object, &patch);
    }
}

pub fn strategic(data: &[u8]) {
    let Some((resource, version, data)) = kind(data) else { return };
    let Some([mut object, patch]) = lines(data) else { return };
    if settle(resource, version, &mut object) {
        let _ = api::patch::strategic(resource, version, &mut object, &patch);
        settle(resource, version, &mut object);
    }
}

/// An object that somebody made and two appliers change; the second apply of the same is nothing.
pub fn apply(data: &[u8]) {
    let Some((resource, version, data)) = kind(data) else { return };
    let Some([mut live, mut first, mut second]) = lines(data) else { return };
    if ![&mut live, &mut first, &mut second].into_iter().all(|o| settle(resource, version, o)) {
        return;
    }
    let api_version = resource.api_version(version);
    let manager = |name| Manager {
        name,
        api_version: &api_version,
        subresource: "",
        time: "2026-01-01T00:00:00Z",
    };
    apply::track(resource, None, &mut live, &manager("ed"));
    for (name, config) in [("one", first), ("two", second)] {
        if apply::check(resource, &api_version, &config).is_err() {
            return;
        }
        let apply =
            |live: &Value| apply::apply(resource, Some(live), &config, &manager(name), true);
        let Ok(once) = apply(&live) else { return };
        assert_eq!(apply(&once).as_ref(), Ok(&once), "applying again is nothing");
        live = once;
    }
}

/// A CustomResourceDefinition and an object of its kind.
pub fn definition(data: &[u8]) {
    use api::custom::{self, definition};
    let Some([mut definition, mut object]) = lines(data) else { return };
    let resource = api::resource::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let resource = resource.expect("a built-in kind");
    super::caught(|| {
        if !settle(resource, "v1", &mut definition) {
            return;
        }
        definition::default(&mut definition);
        if !definition::validate(&definition).is_empty() || !object.is_object() {
            return;
        }
        definition["status"] = json!({"acceptedNames": definition["spec"]["names"],
            "conditions": [{"type": "Established", "status": "True"}]});
        let text = Arc::new(definition.to_string());
        for resource in custom::resources(&definition, text, None) {
            let (version, custom) = (&*resource.versions[0], resource.custom.as_ref());
            let custom = custom.expect("a defined kind");
            custom.prune(version, &mut object);
            custom.default(version, &mut object);
            custom.validate(version, &object, None);
            custom.validate(version, &object, Some(&object.clone()));
            Printer::of_resource(&resource, version);
        }
    });
}
