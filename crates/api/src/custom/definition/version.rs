//! What a version of a definition says beside its schema: subresources, columns, selectable
//! fields, deprecation.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::list;
use super::{field_path, text};
use crate::status::{FieldError, Path};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const SELECTABLE_MAX: usize = 8;
const WARNING_MAX_BYTES: usize = 256;

/// `deprecated` and `deprecationWarning`.
pub(super) fn deprecation(version: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let mut wrong = |why: String| {
        out.push(FieldError::invalid(path.child("deprecationWarning"), warning, why));
    };
    if version["deprecated"] != true {
        return wrong("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > WARNING_MAX_BYTES {
        wrong(format!("must be <= {WARNING_MAX_BYTES} characters long"));
    }
    if warning.is_empty() {
        wrong("must not be an empty string".to_owned());
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        wrong(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        ));
    }
}

/// `subresources`.
pub(super) fn subresources(subresources: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let scale = &subresources["scale"];
    if !scale.is_object() {
        return;
    }
    for (field, root, needed) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ] {
        let (at, value) = (path.child(&format!("scale.{field}")), text(&scale[field]));
        let under = |root: &str| value.starts_with(root);
        if value.is_empty() {
            if needed {
                out.push(FieldError::required(at, ""));
            }
        } else if !under(".") {
            let why = "must be a simple json path starting with .";
            out.push(FieldError::invalid(at, value, why));
        } else if needed && !under(root) {
            let why = format!("should be a json path under {}", root.trim_end_matches('.'));
            out.push(FieldError::invalid(at, value, why));
        } else if !needed && !under(".spec.") && !under(".status.") {
            let why = "should be a json path under either .spec or .status";
            out.push(FieldError::invalid(at, value, why));
        }
    }
}

/// `additionalPrinterColumns`.
pub(super) fn columns(columns: &Value, path: &Path, out: &mut Vec<FieldError>) {
    for (index, column) in list(columns).iter().enumerate() {
        let path = path.index(index);
        let given = |field: &str| text(&column[field]);
        if given("name").is_empty() {
            out.push(FieldError::required(path.child("name"), ""));
        }
        let why = format!("must be one of {}", COLUMN_TYPES.join(","));
        match given("type") {
            "" => out.push(FieldError::required(path.child("type"), why)),
            known if COLUMN_TYPES.contains(&known) => {}
            other => out.push(FieldError::invalid(path.child("type"), other, why)),
        }
        let format = given("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            out.push(FieldError::invalid(path.child("format"), format, why));
        }
        match given("jsonPath") {
            "" => out.push(FieldError::required(path.child("JSONPath"), "")),
            simple if simple.starts_with('.') => {}
            other => {
                let why = "must be a simple json path starting with .";
                out.push(FieldError::invalid(path.child("JSONPath"), other, why));
            }
        }
    }
}

/// `selectableFields`.
pub(super) fn selectable(version: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut seen = BTreeSet::new();
    for (index, field) in list(&version["selectableFields"]).iter().enumerate() {
        let (at, given) = (path.index(index).child("jsonPath"), text(&field["jsonPath"]));
        if given.is_empty() {
            out.push(FieldError::required(at, ""));
            continue;
        }
        let found = match field_path::find(schema, given) {
            Ok(found) if !given.contains('[') => found,
            Ok(_) => {
                let why = "is an invalid path: expected . but got: [";
                out.push(FieldError::invalid(at, given, why));
                continue;
            }
            Err(why) => {
                out.push(FieldError::invalid(at, given, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if found.1 == "metadata" {
            let why = "must not point to fields in metadata";
            out.push(FieldError::invalid(&at, given, why));
        }
        if !["string", "boolean", "integer"].contains(&text(&found.0["type"])) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            out.push(FieldError::invalid(&at, given, why));
        }
        if !seen.insert(given) {
            out.push(FieldError::duplicate(&at, given));
        }
    }
    if seen.len() > SELECTABLE_MAX {
        out.push(FieldError::too_many(path, seen.len(), SELECTABLE_MAX));
    }
}
