//! CustomResourceDefinitions themselves: defaults, what makes one legal, which names it gets.
//! Source: `pkg/apis/apiextensions/{v1/defaults.go,validation}` and `pkg/controller/status`.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{holds, list};
use crate::status::{FieldError, Path};

/// Store collection of definitions.
pub const COLLECTION: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Holds a definition until what it defines is gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Says that a group of Kubernetes' own may be defined.
const APPROVED: &str = "api-approved.kubernetes.io";

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Fills in what the writer left out.
pub fn default(definition: &mut Value) {
    let kind = text(&definition["spec"]["names"]["kind"]).to_owned();
    let Some(spec) = definition["spec"].as_object_mut() else { return };
    if !kind.is_empty()
        && let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut)
    {
        for (name, value) in
            [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))]
        {
            if names.get(name).is_none_or(|given| text(given).is_empty()) {
                names.insert(name.to_owned(), value.into());
            }
        }
    }
    let conversion = spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let service = conversion.pointer_mut("/webhook/clientConfig/service");
    if let Some(service) = service.and_then(Value::as_object_mut) {
        service.entry("port").or_insert(json!(443));
    }
}

/// The status of a new definition.
pub fn first_status(definition: &Value) -> Value {
    json!({
        "conditions": [],
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": storage(definition).into_iter().collect::<Vec<_>>(),
    })
}

fn storage(definition: &Value) -> Option<&str> {
    let versions = list(&definition["spec"]["versions"]);
    versions.iter().find(|version| version["storage"] == true).map(|version| text(&version["name"]))
}

/// Notes that objects may be stored in the present storage version from now on.
pub fn note_storage(definition: &mut Value) {
    let Some(storage) = storage(definition).map(str::to_owned) else { return };
    let mut stored = list(&definition["status"]["storedVersions"]).to_vec();
    if !stored.iter().any(|version| *version == storage) && definition["status"].is_object() {
        stored.push(storage.into());
        definition["status"]["storedVersions"] = stored.into();
    }
}

/// What versions are ordered by, the preferred one first: `v2`, `v1`, `v1beta2`, `v1alpha1`, and
/// then the names that are none of these, by the alphabet.
pub fn priority(version: &str) -> (bool, Reverse<(u8, u64, u64)>, String) {
    let parsed = parse_version(version);
    (parsed.is_none(), Reverse(parsed.unwrap_or_default()), version.to_owned())
}

fn parse_version(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..end].parse().ok()?;
    let (class, minor) = match &rest[end..] {
        "" => return Some((2, major, 0)),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (1, minor),
            (_, Some(minor)) => (0, minor),
            _ => return None,
        },
    };
    Some((class, major, minor.parse().ok()?))
}

/// What is wrong with a definition.
pub fn validate(definition: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let spec = &definition["spec"];
    let at = Path::new("spec");
    let names = &spec["names"];
    let wanted = format!("{}.{}", text(&names["plural"]), text(&spec["group"]));
    if text(&definition["metadata"]["name"]) != wanted {
        out.push(FieldError::invalid(
            "metadata.name",
            definition["metadata"]["name"].clone(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    group(definition, &at.child("group"), &mut out);
    match text(&spec["scope"]) {
        "" => out.push(FieldError::required(at.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => {
            let known = ["Cluster", "Namespaced"];
            out.push(FieldError::not_supported(at.child("scope"), other, &known));
        }
    }
    check_names(names, &at.child("names"), &mut out);
    check_versions(spec, &at.child("versions"), &mut out);
    check_conversion(&spec["conversion"], &at.child("conversion"), &mut out);
    if spec["preserveUnknownFields"] == true {
        out.push(FieldError::invalid(
            at.child("preserveUnknownFields"),
            true,
            "must be false in order to use defaults in the schema",
        ));
    }
    let declared: BTreeSet<&str> =
        list(&spec["versions"]).iter().map(|version| text(&version["name"])).collect();
    for (index, stored) in list(&definition["status"]["storedVersions"]).iter().enumerate() {
        if !declared.contains(text(stored)) {
            out.push(FieldError::invalid(
                Path::new("status").child("storedVersions").index(index),
                stored.clone(),
                "must appear in spec.versions",
            ));
        }
    }
    out
}

/// What a changed definition may not change.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = validate(new);
    if holds(old, "Established") {
        for field in ["group", "scope"] {
            immutable(&new["spec"], &old["spec"], field, "spec", &mut out);
        }
        for field in ["plural", "kind"] {
            immutable(&new["spec"]["names"], &old["spec"]["names"], field, "spec.names", &mut out);
        }
    }
    out
}

fn immutable(new: &Value, old: &Value, field: &str, path: &str, out: &mut Vec<FieldError>) {
    if new[field] != old[field] {
        let path = format!("{path}.{field}");
        out.push(FieldError::invalid(path, new[field].clone(), "field is immutable"));
    }
}

fn group(definition: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let group = text(&definition["spec"]["group"]);
    if group.is_empty() {
        out.push(FieldError::required(path, ""));
    } else if !group.contains('.') {
        out.push(FieldError::invalid(path, group, "should be a domain with at least one dot"));
    }
    let own = group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io");
    let own = own || matches!(group, "k8s.io" | "kubernetes.io");
    if own && definition["metadata"]["annotations"][APPROVED].is_null() {
        out.push(FieldError::required(
            Path::new("metadata").child("annotations").key(APPROVED),
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ));
    }
}

fn is_label(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(ok)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

const NOT_A_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn check_names(names: &Value, path: &Path, out: &mut Vec<FieldError>) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let (path, value) = (path.child(field), text(&names[field]));
        if value.is_empty() {
            out.push(FieldError::required(path, ""));
        } else if !is_label(&value.to_lowercase()) {
            let what = if field.ends_with("ind") {
                "may have mixed case, but should otherwise match: "
            } else {
                ""
            };
            out.push(FieldError::invalid(path, value, format!("{what}{NOT_A_LABEL}")));
        } else if field.ends_with("ral") && !is_label(value) {
            out.push(FieldError::invalid(path, value, NOT_A_LABEL));
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in list(&names[field]).iter().enumerate() {
            if !is_label(text(name)) {
                let path = path.child(field).index(index);
                out.push(FieldError::invalid(path, name.clone(), NOT_A_LABEL));
            }
        }
    }
    if !names["kind"].is_null() && names["kind"] == names["listKind"] {
        let why = "kind and listKind may not be the same";
        out.push(FieldError::invalid(path.child("listKind"), names["listKind"].clone(), why));
    }
}

fn check_versions(spec: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let versions = list(&spec["versions"]);
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let at = path.index(index);
        let name = text(&version["name"]);
        if !is_label(name) {
            out.push(FieldError::invalid(at.child("name"), name, NOT_A_LABEL));
        }
        if !seen.insert(name) {
            out.push(FieldError::invalid(at.child("name"), name, "must be unique"));
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let at_schema = at.child("schema").child("openAPIV3Schema");
        if schema.is_object() {
            check_root(schema, &at_schema, out);
        } else {
            out.push(FieldError::required(at_schema, "schemas are required"));
        }
        check_scale(
            &version["subresources"]["scale"],
            &at.child("subresources").child("scale"),
            out,
        );
    }
    let stored = versions.iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        out.push(FieldError::invalid(
            path,
            spec["versions"].clone(),
            "must have exactly one version marked as storage version",
        ));
    }
}

fn check_scale(scale: &Value, path: &Path, out: &mut Vec<FieldError>) {
    if !scale.is_object() {
        return;
    }
    for (field, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let (at, value) = (path.child(field), text(&scale[field]));
        if value.is_empty() {
            out.push(FieldError::required(at, ""));
        } else if !value.starts_with(root) {
            let why = format!("should be a json path under {}", root.trim_end_matches('.'));
            out.push(FieldError::invalid(at, value, why));
        }
    }
}

fn check_conversion(conversion: &Value, path: &Path, out: &mut Vec<FieldError>) {
    match text(&conversion["strategy"]) {
        "" | "None" => {
            if !conversion["webhook"].is_null() {
                let why = "should not be set when strategy is not set to Webhook";
                out.push(FieldError::forbidden(path.child("webhook"), why));
            }
        }
        "Webhook" => {
            let webhook = path.child("webhook");
            if !conversion["webhook"]["clientConfig"].is_object() {
                let why = "required when strategy is set to Webhook";
                out.push(FieldError::required(webhook.child("clientConfig"), why));
            }
            if list(&conversion["webhook"]["conversionReviewVersions"]).is_empty() {
                out.push(FieldError::required(webhook.child("conversionReviewVersions"), ""));
            }
        }
        other => {
            let known = ["None", "Webhook"];
            out.push(FieldError::not_supported(path.child("strategy"), other, &known));
        }
    }
}

fn check_root(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    match text(&schema["type"]) {
        "object" => {}
        "" => out.push(FieldError::required(path.child("type"), "must not be empty at the root")),
        other => {
            out.push(FieldError::invalid(path.child("type"), other, "must be object at the root"));
        }
    }
    check_schema(schema, path, true, out);
}

/// The rules of structural schemas.
fn check_schema(schema: &Value, path: &Path, root: bool, out: &mut Vec<FieldError>) {
    let kind = text(&schema["type"]);
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let either = schema["x-kubernetes-int-or-string"] == true;
    let known = ["", "array", "boolean", "integer", "number", "object", "string"];
    if !known.contains(&kind) {
        out.push(FieldError::not_supported(path.child("type"), kind, &known[1..]));
    }
    if kind.is_empty() && !open && !either && !root {
        let what =
            if path.to_string().ends_with("items") { "array items" } else { "object fields" };
        let why = format!("must not be empty for specified {what}");
        out.push(FieldError::required(path.child("type"), why));
    }
    if schema["uniqueItems"] == true {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        out.push(FieldError::forbidden(path.child("uniqueItems"), why));
    }
    if kind == "array" && !schema["items"].is_object() {
        out.push(FieldError::required(path.child("items"), "must be specified"));
    }
    if schema["properties"].is_object() && schema["additionalProperties"].is_object() {
        let why = "additionalProperties and properties are mutual exclusive";
        out.push(FieldError::forbidden(path.child("additionalProperties"), why));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && super::value::compiled(pattern).is_none()
    {
        let why = format!("must be a valid regular expression, but isn't: {pattern}");
        out.push(FieldError::invalid(path.child("pattern"), pattern, why));
    }
    check_list_type(schema, kind, path, out);
    check_default(schema, path, out);
    super::rules::check_rules(schema, path, root, out);
    super::nested::check(schema, path, out);
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        if root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
            continue;
        }
        check_schema(member, &path.child("properties").key(name), false, out);
    }
    if schema["items"].is_object() {
        check_schema(&schema["items"], &path.child("items"), false, out);
    }
    if schema["additionalProperties"].is_object() {
        check_schema(
            &schema["additionalProperties"],
            &path.child("additionalProperties"),
            false,
            out,
        );
    }
}

fn check_list_type(schema: &Value, kind: &str, path: &Path, out: &mut Vec<FieldError>) {
    let (name, keys) = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys");
    let list_type = text(&schema[name]);
    let known = ["atomic", "map", "set"];
    if !list_type.is_empty() && !known.contains(&list_type) {
        out.push(FieldError::not_supported(path.child(name), list_type, &known));
    }
    if !list_type.is_empty() && kind != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        out.push(FieldError::invalid(path.child("type"), kind, why));
    }
    if list_type == "map" {
        if list(&schema[keys]).is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            out.push(FieldError::required(path.child(keys), why));
        }
        for (index, key) in list(&schema[keys]).iter().enumerate() {
            if schema["items"]["properties"].get(text(key)).is_none() {
                let why = "entries must all be names of item properties";
                out.push(FieldError::invalid(path.child(keys).index(index), key.clone(), why));
            }
        }
    } else if !list(&schema[keys]).is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        out.push(FieldError::invalid(path.child(name), list_type, why));
    }
}

fn check_default(schema: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let Some(default) = schema.get("default") else { return };
    let mut pruned = default.clone();
    super::structural::prune_value(schema, &mut pruned);
    if pruned != *default {
        let why = "must not have unknown fields";
        out.push(FieldError::invalid(path.child("default"), default.clone(), why));
    }
    for error in super::value::validate(schema, default, None) {
        let path = match error.path.as_str() {
            "" | "<nil>" => path.child("default").to_string(),
            below => format!("{}.{below}", path.child("default")),
        };
        out.push(FieldError { path, ..error });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn definition(plural: &str, kind: &str) -> Value {
        let mut definition = json!({"metadata": {"name": format!("{plural}.a.b")}, "spec": {
            "group": "a.b", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        default(&mut definition);
        definition["status"] = first_status(&definition);
        definition
    }

    #[test]
    fn versions_are_ordered_as_clients_prefer_them() {
        let mut versions = [
            "foo10",
            "v1",
            "v11alpha2",
            "v10",
            "v3beta1",
            "v12alpha1",
            "v2",
            "foo1",
            "v10beta3",
            "v11beta2",
        ];
        versions.sort_by_key(|version| priority(version));
        assert_eq!(
            versions.join(" "),
            "v10 v2 v1 v11beta2 v10beta3 v3beta1 v12alpha1 v11alpha2 foo1 foo10"
        );
    }

    #[test]
    fn a_plain_definition_is_completed_and_right() {
        let definition = definition("boats", "Boat");
        assert_eq!(
            definition["spec"]["names"],
            json!({"plural": "boats", "kind": "Boat", "singular": "boat", "listKind": "BoatList"})
        );
        assert_eq!(definition["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(validate(&definition), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = definition("boats", "Boat");
        let with = |path: &str, value: Value| {
            let mut definition = good.clone();
            *definition.pointer_mut(path).unwrap() = value;
            let errors = validate(&definition);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let schema = "/spec/versions/0/schema/openAPIV3Schema";
        for (path, value, expected) in [
            (
                "/metadata/name",
                json!("x"),
                r#"metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group"#,
            ),
            (
                "/spec/scope",
                json!("All"),
                r#"spec.scope: Unsupported value: "All": supported values: "Cluster", "Namespaced""#,
            ),
            (
                "/spec/versions/0/schema",
                json!(null),
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            ),
            (
                schema,
                json!({"type": "object", "properties": {"spec": {"properties": {}}}}),
                "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ),
            (
                schema,
                json!({"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}}),
                r#"spec.versions[0].schema.openAPIV3Schema.properties[n].default: Invalid value: "string": body must be of type integer: "string""#,
            ),
        ] {
            assert_eq!(with(path, value), expected);
        }
    }
}
