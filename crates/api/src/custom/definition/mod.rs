//! CustomResourceDefinitions themselves: defaults, what makes one legal, which names it gets.
//! Source: `pkg/apis/apiextensions/{v1/defaults.go,validation}` and `pkg/controller/status`.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{holds, list};
use crate::status::{FieldError, Path, go_quote};

mod budget;
mod field_path;
mod schema;
mod shape;
mod structure;
mod version;

/// Store collection of definitions.
pub const COLLECTION: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Holds a definition until what it defines is gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Versions of ConversionReview that upstream's servers know.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
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
    let mut out = spec_errors(definition, None);
    status_errors(definition, &mut out);
    approval_errors(definition, None, &mut out);
    if definition["spec"]["preserveUnknownFields"] == true {
        out.push(open_to_all());
    }
    out
}

/// What a changed definition may not change, and what is wrong with it that was not before.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = spec_errors(new, Some(old));
    let (spec, was) = (&new["spec"], &old["spec"]);
    if holds(old, "Established") {
        immutable(spec, was, "scope", "spec", &mut out);
        immutable(&spec["names"], &was["names"], "kind", "spec.names", &mut out);
    }
    immutable(spec, was, "group", "spec", &mut out);
    immutable(&spec["names"], &was["names"], "plural", "spec.names", &mut out);
    status_errors(new, &mut out);
    approval_errors(new, Some(old), &mut out);
    if spec["preserveUnknownFields"] == true && was["preserveUnknownFields"] != true {
        out.push(open_to_all());
    }
    out
}

fn open_to_all() -> FieldError {
    let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
    FieldError::invalid("spec.preserveUnknownFields", true, why)
}

fn spec_errors(definition: &Value, old: Option<&Value>) -> Vec<FieldError> {
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
    let has_default = |version: &Value| {
        shape::anywhere(&version["schema"]["openAPIV3Schema"], |one| one.get("default").is_some())
    };
    if spec["preserveUnknownFields"] == true && list(&spec["versions"]).iter().any(has_default) {
        let why = "must be false in order to use defaults in the schema";
        out.push(FieldError::invalid(at.child("preserveUnknownFields"), true, why));
    }
    check_versions(spec, old.map(|old| &old["spec"]), &at, &mut out);
    check_names(names, &at.child("names"), &mut out);
    check_conversion(&spec["conversion"], &at.child("conversion"), &mut out);
    out
}

fn status_errors(definition: &Value, out: &mut Vec<FieldError>) {
    let versions = list(&definition["spec"]["versions"]);
    let at = Path::new("status").child("storedVersions");
    let given = &definition["status"]["storedVersions"];
    let stored = list(given);
    if stored.is_empty() {
        let why = "must have at least one stored version";
        out.push(FieldError::invalid(at, given.clone(), why));
        return;
    }
    if let Some(storage) = storage(definition)
        && !stored.iter().any(|name| *name == storage)
    {
        let why = format!("must have the storage version {storage}");
        out.push(FieldError::invalid(&at, given.clone(), why));
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *name) {
            let why = format!(
                "missing from spec.versions; {0} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {0} and removes {0} from status.storedVersions",
                text(name)
            );
            out.push(FieldError::invalid(at.index(index), name.clone(), why));
        }
    }
}

fn immutable(new: &Value, old: &Value, field: &str, path: &str, out: &mut Vec<FieldError>) {
    if new[field] != old[field] {
        let path = format!("{path}.{field}");
        out.push(FieldError::invalid(path, new[field].clone(), "field is immutable"));
    }
}

fn group(definition: &Value, path: &Path, out: &mut Vec<FieldError>) {
    let group = text(&definition["spec"]["group"]);
    let errors: Vec<String> = crate::selector::subdomain_errors(group).collect();
    if group.is_empty() {
        out.push(FieldError::required(path, ""));
    } else if !errors.is_empty() {
        out.push(FieldError::invalid(path, group, errors.join(",")));
    } else if !group.contains('.') {
        out.push(FieldError::invalid(path, group, "should be a domain with at least one dot"));
    }
}

/// Whether somebody may define kinds in a group of Kubernetes' own.
#[derive(Debug, PartialEq)]
pub(super) enum Approval {
    /// There is no annotation.
    Missing,
    /// It names where it was approved.
    Approved,
    /// It says that it was not.
    Bypassed,
    /// It says neither.
    Invalid,
}

/// How a definition of a protected group is approved, in words; `None` for other groups.
pub(super) fn approval(definition: &Value) -> Option<(Approval, String)> {
    let group = text(&definition["spec"]["group"]);
    let own = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !own("k8s.io") && !own("kubernetes.io") {
        return None;
    }
    let given = text(&definition["metadata"]["annotations"][APPROVED]);
    let is_url = given.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/') && !given.contains(' ')
    });
    Some(match given {
        "" => (
            Approval::Missing,
            format!(
                "protected groups must have approval annotation \"{APPROVED}\", see https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ),
        given if given.starts_with("unapproved") => {
            (Approval::Bypassed, format!("not approved: {}", go_quote(given)))
        }
        given if is_url => (Approval::Approved, format!("approved in {given}")),
        _ => (
            Approval::Invalid,
            format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ),
    })
}

fn approval_errors(new: &Value, old: Option<&Value>, out: &mut Vec<FieldError>) {
    let Some((state, why)) = approval(new) else { return };
    if old.and_then(approval).is_some_and(|(was, _)| was == state) {
        return;
    }
    let at = Path::new("metadata").child("annotations").key(APPROVED);
    let given = new["metadata"]["annotations"][APPROVED].clone();
    match state {
        Approval::Missing => out.push(FieldError::required(at, why)),
        Approval::Invalid => out.push(FieldError::invalid(at, given, why)),
        Approval::Approved | Approval::Bypassed => {}
    }
}

/// What keeps the schemas of a definition from being structural, in upstream's words.
pub(super) fn structural_violations(definition: &Value) -> Vec<FieldError> {
    let versions = list(&definition["spec"]["versions"]).iter().enumerate();
    let schemas = versions.map(|(index, version)| {
        let at = Path::new("spec").child("versions").index(index);
        (&version["schema"]["openAPIV3Schema"], at.child("schema").child("openAPIV3Schema"))
    });
    schemas
        .filter(|(schema, _)| schema.is_object())
        .flat_map(|(schema, at)| structure::check(schema, &at))
        .collect()
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

/// What all versions have in common stands at the top for upstream's rules, and so in its messages.
fn in_common(versions: &[Value], field: &str) -> bool {
    versions.iter().all(|version| version[field] == versions[0][field])
}

fn check_versions(spec: &Value, old: Option<&Value>, at: &Path, out: &mut Vec<FieldError>) {
    let versions = list(&spec["versions"]);
    let path = at.child("versions");
    let common = |field: &str| in_common(versions, field);
    let place = |index: usize, field: &str, top: &str| match common(field) {
        true => at.child(top),
        false => path.index(index).child(field),
    };
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let name = text(&version["name"]);
        if !is_label(name) {
            out.push(FieldError::invalid(path.index(index).child("name"), name, NOT_A_LABEL));
        }
        unique &= seen.insert(name);
        version::deprecation(version, &path.index(index), out);
        let is_first = |field: &str| index == 0 || !common(field);
        if is_first("schema") {
            let with_status = |version: &Value| version["subresources"]["status"].is_object();
            let status = match common("schema") {
                true => versions.iter().any(with_status),
                false => with_status(version),
            };
            let was = old.map(|old| of_version(old, name));
            let at = place(index, "schema", "validation").child("openAPIV3Schema");
            if !version["schema"]["openAPIV3Schema"].is_object() {
                let at = path.index(index).child("schema").child("openAPIV3Schema");
                out.push(FieldError::required(at, "schemas are required"));
            } else {
                let old = old.map(|old| list(&old["versions"]));
                schema::check(&version["schema"], was, old, status, &at, out);
            }
        }
        if is_first("subresources") {
            let at = place(index, "subresources", "subresources");
            version::subresources(&version["subresources"], &at, out);
        }
        if is_first("additionalPrinterColumns") {
            let at = place(index, "additionalPrinterColumns", "additionalPrinterColumns");
            version::columns(&version["additionalPrinterColumns"], &at, out);
        }
        if is_first("selectableFields") {
            version::selectable(
                version,
                &place(index, "selectableFields", "selectableFields"),
                out,
            );
        }
    }
    if !unique {
        let why = "must contain unique version names";
        out.push(FieldError::invalid(&path, spec["versions"].clone(), why));
    }
    let stored = versions.iter().filter(|version| version["storage"] == true).count();
    if stored != 1 {
        let why = "must have exactly one version marked as storage version";
        out.push(FieldError::invalid(path, spec["versions"].clone(), why));
    }
}

/// The schema that a version had.
fn of_version<'s>(spec: &'s Value, name: &str) -> &'s Value {
    let version = list(&spec["versions"]).iter().find(|version| version["name"] == name);
    version.map_or(&Value::Null, |version| &version["schema"])
}

fn check_conversion(conversion: &Value, path: &Path, out: &mut Vec<FieldError>) {
    // Upstream names both as its own form of definitions has them.
    let webhook = &conversion["webhook"];
    let (client, versions) =
        (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    let accepted = list(&webhook["conversionReviewVersions"]);
    match text(&conversion["strategy"]) {
        "" | "None" => {
            let why = "should not be set when strategy is not set to Webhook";
            if !webhook["clientConfig"].is_null() {
                out.push(FieldError::forbidden(client, why));
            }
            if !accepted.is_empty() {
                out.push(FieldError::forbidden(versions, why));
            }
        }
        "Webhook" => {
            let config = &webhook["clientConfig"];
            if !config.is_object() {
                let why = "required when strategy is set to Webhook";
                out.push(FieldError::required(client, why));
            } else if config["url"].is_null() == config["service"].is_null() {
                let why = "exactly one of url or service is required";
                out.push(FieldError::required(client, why));
            }
            if accepted.is_empty() {
                out.push(FieldError::required(versions, ""));
            } else if !accepted.iter().any(|version| REVIEWS.contains(&text(version))) {
                let why = format!("must include at least one of {}", REVIEWS.join(", "));
                let given = webhook["conversionReviewVersions"].clone();
                out.push(FieldError::invalid(versions, given, why));
            }
        }
        other => {
            let known = ["None", "Webhook"];
            out.push(FieldError::not_supported(path.child("strategy"), other, &known));
        }
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
                "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
            ),
            (
                schema,
                json!({"type": "object", "properties": {"n": {"type": "integer", "default": "x"}}}),
                r#"spec.validation.openAPIV3Schema.properties[n].default: Invalid value: "string": body must be of type integer: "string""#,
            ),
        ] {
            assert_eq!(with(path, value), expected);
        }
    }
}
