//! What is served: `/api`, `/apis` and below, in the old form (a document a group version)
//! and aggregated (one document), and `/version`. All of it is read from the resource table.

use api::protobuf;
use api::resource::{self, Group, Resource, Subresource};
use base64::Engine as _;
use http::{HeaderMap, StatusCode, header};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::config::Version;
use crate::definitions::Defined;
use crate::registry::accept;
use crate::registry::negotiate::{Format, Negotiated, Shape};
use crate::request::Response;
use crate::response;
use crate::server::Context;

/// What asks for all groups in one document, and says that an answer is that.
const AGGREGATED: [&str; 3] = ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];

/// Answers a discovery path, `None` for any other.
pub(crate) fn answer(context: &Context, path: &str, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let defined = context.definitions.get();
    let groups = || resource::groups(defined.all());
    let value = match parts.as_slice() {
        ["api"] | ["apis"] => {
            let core = parts == ["api"];
            if let Some(format) = aggregated_form(headers) {
                let mut document = aggregated(&defined, &groups(), core);
                if !core {
                    document = context.aggregator.merge_aggregated(document);
                }
                return Some(written(headers, format, &document));
            }
            if core {
                api_versions(context)
            } else {
                context.aggregator.merge_groups(group_list(&groups()))
            }
        }
        ["api", version] => resource_list(&defined, "", version)?,
        ["apis", name] => {
            let groups = groups();
            let group = groups.iter().find(|group| group.name == *name && !name.is_empty());
            let own = group.map(|group| {
                let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
                merge(&mut document, group_of(group));
                document
            });
            context.aggregator.merge_group(name, own)?
        }
        ["apis", name, version] if !name.is_empty() => resource_list(&defined, name, version)?,
        _ => return None,
    };
    Some(response::json(StatusCode::OK, &value))
}

/// All discovery paths.
pub(crate) fn paths(context: &Context) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    let defined = context.definitions.get();
    for group in resource::groups(defined.all()) {
        let base =
            if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|version| format!("{base}/{version}")));
        if !group.name.is_empty() {
            paths.push(base);
        }
    }
    paths
}

/// `/version`.
pub(crate) fn version(version: &Version) -> Value {
    let (major, minor) = version.major_minor();
    // Objects of the release before are understood, and ours by it.
    let before = minor.parse::<u32>().map(|minor| minor.saturating_sub(1).to_string());
    let compatible = before.unwrap_or_else(|_| minor.to_owned());
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": compatible,
        "gitVersion": version.git_version,
        "gitCommit": version.git_commit,
        "gitTreeState": "clean",
        "buildDate": version.build_date,
        "goVersion": version.compiler,
        "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}

/// The notation in which the client prefers all groups in one document over the plain one.
fn aggregated_form(headers: &HeaderMap) -> Option<Format> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    accept::clauses(accept).into_iter().find_map(|clause| {
        let parts: Vec<&str> = clause.split(';').map(str::trim).collect();
        let format = accept::notation(parts[0])?;
        match parts.iter().any(|part| part.starts_with("as=")) {
            true => AGGREGATED.iter().all(|part| parts.contains(part)).then_some(Some(format)),
            false => Some(None),
        }
    })?
}

/// The document in that notation; its type says which document it is.
fn written(headers: &HeaderMap, format: Format, document: &Value) -> Response {
    let accept = Negotiated { shape: Shape::Object, format, pretty: false, beta: false };
    let body = match format {
        Format::Protobuf => Ok(protobuf::discovery(document)),
        Format::Json | Format::Yaml => accept.write(document),
    };
    let kind = [accept.content_type()].iter().chain(&AGGREGATED).copied().collect::<Vec<_>>();
    match body {
        Ok(body) => response::tagged(headers, &kind.join(";"), body),
        Err(status) => response::status(&status),
    }
}

fn api_versions(context: &Context) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": context.config.advertise.to_string()},
        ],
    })
}

fn group_list(groups: &[Group]) -> Value {
    let groups: Vec<Value> =
        groups.iter().filter(|group| !group.name.is_empty()).map(group_of).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_of(group: &Group) -> Value {
    let version = |version: &&str| json!({"groupVersion": resource::api_version(group.name, version), "version": version});
    json!({
        "name": group.name,
        "versions": group.versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(version),
    })
}

fn resource_list(defined: &Defined, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Resource> =
        defined.all().filter(|row| row.group == group && row.serves(version)).collect();
    if rows.is_empty() {
        return None;
    }
    let mut resources = Vec::new();
    for row in rows {
        resources.push(resource_row(row));
        resources.extend(row.subresources.iter().map(|sub| subresource_row(row, sub)));
    }
    let mut document = json!({"kind": "APIResourceList"});
    if !group.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    document["groupVersion"] = resource::api_version(group, version).into();
    document["resources"] = resources.into();
    Some(document)
}

fn resource_row(row: &Resource) -> Value {
    let mut value = json!({
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": row.verbs,
    });
    set_list(&mut value, "shortNames", &row.short_names);
    set_list(&mut value, "categories", &row.categories);
    if row.stored {
        value["storageVersionHash"] = storage_hash(row).into();
    }
    value
}

fn subresource_row(row: &Resource, sub: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", row.plural, sub.name),
        "singularName": "",
        "namespaced": row.namespaced,
    });
    if let (Some(group), Some(version)) = (&sub.group, &sub.version) {
        value["group"] = group.as_ref().into();
        value["version"] = version.as_ref().into();
    }
    merge(&mut value, json!({"kind": sub.kind, "verbs": sub.verbs}));
    value
}

/// Tells clients when the form at rest changes; upstream's own function of it.
fn storage_hash(row: &Resource) -> String {
    let text = format!("{}/{}/{}", row.storage_group, row.storage_version, row.kind);
    let digest = digest(&SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

fn aggregated(defined: &Defined, groups: &[Group], core: bool) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let mut metadata = Map::new();
            if !core {
                metadata.insert("name".to_owned(), group.name.into());
            }
            metadata.insert("creationTimestamp".to_owned(), Value::Null);
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| aggregated_version(defined, group.name, version))
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_version(defined: &Defined, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = defined
        .all()
        .filter(|row| row.group == group && row.serves(version))
        .map(|row| aggregated_row(row, version))
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_row(row: &Resource, version: &str) -> Value {
    let mut value = json!({
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": version, "kind": row.kind},
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    set_list(&mut value, "shortNames", &row.short_names);
    set_list(&mut value, "categories", &row.categories);
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|sub| {
            let group = sub.group.as_ref().unwrap_or(&row.group);
            let version = sub.version.as_deref().unwrap_or(version);
            json!({
                "subresource": sub.name,
                "responseKind": {"group": group, "version": version, "kind": sub.kind},
                "verbs": sub.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}

fn set_list(value: &mut Value, member: &str, list: &[resource::Text]) {
    if !list.is_empty() {
        value[member] = json!(list);
    }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_storage_hash_is_upstreams() {
        // As any upstream server shows them for pods and deployments.
        assert_eq!(storage_hash(resource::find("", "v1", "pods").unwrap()), "xPOwRZ+Yhw8=");
        assert_eq!(
            storage_hash(resource::find("apps", "v1", "deployments").unwrap()),
            "8aSe+NMegvE="
        );
    }

    #[test]
    fn the_clients_first_understood_form_wins() {
        let form = |media: &str, version: &str| {
            format!("{media};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
        };
        let (json, protobuf) = ("application/json", "application/vnd.kubernetes.protobuf");
        for (accept, expected) in [
            (json.to_owned(), None),
            (form(json, "v2"), Some(Format::Json)),
            (form(protobuf, "v2"), Some(Format::Protobuf)),
            (form("application/yaml", "v2"), Some(Format::Yaml)),
            (
                format!("{};q=0.5,{}", form(json, "v2"), form(protobuf, "v2")),
                Some(Format::Protobuf),
            ),
            (format!("{json},{}", form(json, "v2")), None),
            // Upstream does not serve the beta any more.
            (format!("{},{json}", form(json, "v2beta1")), None),
            (format!("{},{}", form(json, "v2beta1"), form(json, "v2")), Some(Format::Json)),
            (format!("{protobuf},{json}"), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(aggregated_form(&headers), expected, "{accept}");
        }
    }

    #[test]
    fn rows_read_as_upstream_prints_them() {
        let list = resource_list(&Defined::default(), "apps", "v1").unwrap();
        let row = |name: &str| {
            let rows = list["resources"].as_array().unwrap();
            rows.iter().find(|row| row["name"] == name).unwrap().to_string()
        };
        assert_eq!(
            row("deployments"),
            r#"{"name":"deployments","singularName":"deployment","namespaced":true,"kind":"Deployment","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["deploy"],"categories":["all"],"storageVersionHash":"8aSe+NMegvE="}"#
        );
        assert_eq!(
            row("deployments/scale"),
            r#"{"name":"deployments/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get","patch","update"]}"#
        );
    }
}
