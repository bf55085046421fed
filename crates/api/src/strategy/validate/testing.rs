//! Rules in tests: YAML in, messages out.

use crate::resource::{RESOURCES, Resource};
use crate::status::FieldError;
use serde_json::{Value, json};

fn resource(collection: &str) -> &'static Resource {
    RESOURCES.iter().find(|r| r.collection() == collection).unwrap()
}

fn resource_in(group: &str, collection: &str) -> &'static Resource {
    RESOURCES.iter().find(|r| r.collection() == collection && r.group == group).unwrap()
}

/// An object of the collection with its defaults, and a name where it has none.
pub(super) fn object(collection: &str, yaml: &str) -> Value {
    let mut object: Value = serde_saphyr::from_str(yaml).unwrap();
    let resource = resource(collection);
    let meta = object["metadata"].as_object().cloned().unwrap_or_default();
    object["metadata"] = json!({"name": "x"});
    if resource.namespaced {
        object["metadata"]["namespace"] = json!("d");
    }
    object["metadata"].as_object_mut().unwrap().extend(meta);
    crate::strategy::default(resource, &resource.storage_version, &mut object);
    object
}

fn same(found: Vec<FieldError>, expected: &str, input: &str) {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    // A row that ends with an ellipsis gives the start of a message.
    let fits = |(found, expected): (&String, &&str)| match expected.strip_suffix('…') {
        Some(start) => found.starts_with(start),
        None => found == expected,
    };
    let fine = found.len() == expected.len() && found.iter().zip(&expected).all(fits);
    assert!(fine, "{input}\nfound:\n{}\nexpected:\n{}", found.join("\n"), expected.join("\n"));
}

/// Each row: an object of the collection, and a line for each error.
pub(super) fn created(collection: &str, rows: &[(&str, &str)]) {
    for (yaml, expected) in rows {
        let errors = super::validate(resource(collection), &object(collection, yaml));
        same(errors, expected, yaml);
    }
}

/// The same through a group that shares the collection with another.
pub(super) fn created_in(group: &str, collection: &str, rows: &[(&str, &str)]) {
    for (yaml, expected) in rows {
        let errors = super::validate(resource_in(group, collection), &object(collection, yaml));
        same(errors, expected, yaml);
    }
}

/// Each row: the old object and the new one, written through a group that shares the collection.
pub(super) fn updated_in(group: &str, collection: &str, rows: &[(&str, &str, &str)]) {
    for (old, new, expected) in rows {
        let (old, new) = (object(collection, old), object(collection, new));
        let errors = super::validate_update(resource_in(group, collection), "", &new, &old);
        same(errors, expected, &new.to_string());
    }
}

/// Each row: the old object, and the new one, written through its `status`.
pub(super) fn status_updated(collection: &str, rows: &[(&str, &str, &str)]) {
    for (old, new, expected) in rows {
        let (old, new) = (object(collection, old), object(collection, new));
        let errors = super::validate_update(resource(collection), "status", &new, &old);
        same(errors, expected, &new.to_string());
    }
}

/// Each row: the old object, the new one, and a line for each error.
pub(super) fn updated(collection: &str, rows: &[(&str, &str, &str)]) {
    for (old, new, expected) in rows {
        let (old, new) = (object(collection, old), object(collection, new));
        let errors = super::validate_update(resource(collection), "", &new, &old);
        same(errors, expected, &new.to_string());
    }
}
