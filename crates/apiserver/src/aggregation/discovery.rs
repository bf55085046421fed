//! What aggregated servers serve, merged into this server's own discovery documents.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::resource;
use serde_json::{Map, Value, json};

use super::{Aggregator, Table, local};

/// The versions of a group that other servers answer for, with their priorities.
type Remote<'t> = BTreeMap<&'t str, Vec<&'t super::ApiService>>;

impl Aggregator {
    /// Adds the groups of other servers to an `APIGroupList`.
    pub(crate) fn merge_groups(&self, mut list: Value) -> Value {
        let table = self.table();
        if remote(&table).is_empty() {
            return list;
        }
        if let Some(groups) = list["groups"].as_array_mut() {
            for (name, _) in remote(&table) {
                let own = groups.iter().position(|group| group["name"] == name);
                let own = own.map(|at| groups.remove(at));
                groups.push(group(&table, name, own.as_ref()));
            }
            sort(&table, groups, |group| group["name"].as_str());
        }
        list
    }

    /// An `APIGroup` with the versions of other servers; `None` where nobody serves the group.
    pub(crate) fn merge_group(&self, name: &str, own: Option<Value>) -> Option<Value> {
        let table = self.table();
        if !remote(&table).contains_key(name) {
            return own;
        }
        let merged = group(&table, name, own.as_ref());
        let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
        if let (Value::Object(document), Value::Object(merged)) = (&mut document, merged) {
            document
                .extend(merged.into_iter().filter(|(key, _)| key != "kind" && key != "apiVersion"));
        }
        Some(document)
    }

    /// Adds the groups of other servers to an `APIGroupDiscoveryList`.
    pub(crate) fn merge_aggregated(&self, mut list: Value) -> Value {
        let table = self.table();
        let remote = remote(&table);
        if remote.is_empty() {
            return list;
        }
        if let Some(items) = list["items"].as_array_mut() {
            for (name, services) in remote {
                let at = items.iter().position(|item| item["metadata"]["name"] == name);
                let at = at.unwrap_or_else(|| {
                    let metadata = json!({"name": name, "creationTimestamp": null});
                    items.push(json!({"metadata": metadata, "versions": []}));
                    items.len() - 1
                });
                if let Some(versions) = items[at]["versions"].as_array_mut() {
                    versions.retain(|one| !services.iter().any(|s| one["version"] == *s.version));
                    versions.extend(services.iter().map(|service| self.version_of(service)));
                    sort_versions(&table, name, versions);
                }
            }
            sort(&table, items, |item| item["metadata"]["name"].as_str());
        }
        list
    }

    fn version_of(&self, service: &super::ApiService) -> Value {
        let document = self.document(&service.name);
        let fresh = service.is_available() && document.is_some();
        let resources = document.map(|document| aggregated(service, &document));
        let mut version = json!({"version": service.version});
        if let Some(resources) = resources {
            version["resources"] = resources;
        }
        version["freshness"] = if fresh { "Current" } else { "Stale" }.into();
        version
    }
}

fn remote(table: &Table) -> Remote<'_> {
    let mut groups = Remote::new();
    for service in table.values().filter(|service| service.service.is_some()) {
        groups.entry(&service.group).or_default().push(service);
    }
    groups
}

/// Groups by the highest priority that an APIService gives them, then by name.
fn sort(table: &Table, groups: &mut [Value], name: fn(&Value) -> Option<&str>) {
    groups.sort_by_cached_key(|group| {
        let name = name(group).unwrap_or_default();
        let own = table.values().filter(|service| service.group == name);
        let highest = own.map(|service| service.group_priority).max();
        let priority = highest.unwrap_or_default().max(match highest {
            Some(_) => 0,
            None => local::group_priority(name),
        });
        (Reverse(priority), name.to_owned())
    });
}

/// Versions by the priority that their APIService gives them, then as Kubernetes orders versions.
fn sort_versions(table: &Table, group: &str, versions: &mut [Value]) {
    versions.sort_by_cached_key(|version| {
        let version = version["version"].as_str().unwrap_or_default();
        let service = table.get(&format!("{version}.{group}"));
        (Reverse(service.map_or(0, |service| service.version_priority)), age(version))
    });
}

/// Orders versions: general availability, then beta, then alpha, the newest first; all others
/// follow by name (k8s.io/apimachinery/pkg/version).
fn age(version: &str) -> (u8, Reverse<u64>, Reverse<u64>, String) {
    let other = (3, Reverse(0), Reverse(0), version.to_owned());
    let Some(rest) = version.strip_prefix('v') else { return other };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..end].parse() else { return other };
    let (class, minor) = match &rest[end..] {
        "" => (0, "0"),
        beta if beta.starts_with("beta") => (1, &beta[4..]),
        alpha if alpha.starts_with("alpha") => (2, &alpha[5..]),
        _ => return other,
    };
    let Ok(minor) = minor.parse() else { return other };
    (class, Reverse(major), Reverse(minor), String::new())
}

/// A group's row of an `APIGroupList`: this server's own versions and those of others.
fn group(table: &Table, name: &str, own: Option<&Value>) -> Value {
    let row = |version: &str| json!({"groupVersion": resource::api_version(name, version), "version": version});
    let mut versions: Vec<Value> =
        own.and_then(|own| own["versions"].as_array()).cloned().unwrap_or_default();
    for service in table.values().filter(|one| one.group == name && one.service.is_some()) {
        versions.retain(|version| version["version"] != *service.version);
        versions.push(row(&service.version));
    }
    sort_versions(table, name, &mut versions);
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": name, "versions": versions, "preferredVersion": preferred})
}

/// The resources of an `APIResourceList` in the form of aggregated discovery.
fn aggregated(service: &super::ApiService, list: &Value) -> Value {
    let mut rows: Vec<Value> = Vec::new();
    let mut below: Vec<(&str, Value)> = Vec::new();
    for resource in list["resources"].as_array().into_iter().flatten() {
        let name = resource["name"].as_str().unwrap_or_default();
        let text = |member: &str, default: &str| {
            let value = resource[member].as_str().filter(|value| !value.is_empty());
            value.unwrap_or(default).to_owned()
        };
        let kind = json!({
            "group": text("group", &service.group),
            "version": text("version", &service.version),
            "kind": text("kind", ""),
        });
        let mut row = Map::new();
        let verbs = resource["verbs"].clone();
        if let Some((parent, subresource)) = name.split_once('/') {
            row.insert("subresource".into(), subresource.into());
            row.insert("responseKind".into(), kind);
            row.insert("verbs".into(), verbs);
            below.push((parent, row.into()));
            continue;
        }
        row.insert("resource".into(), name.into());
        row.insert("responseKind".into(), kind);
        let namespaced = resource["namespaced"] == true;
        row.insert("scope".into(), if namespaced { "Namespaced" } else { "Cluster" }.into());
        row.insert("singularResource".into(), text("singularName", "").into());
        row.insert("verbs".into(), verbs);
        for list in ["shortNames", "categories"] {
            if resource[list].is_array() {
                row.insert(list.into(), resource[list].clone());
            }
        }
        rows.push(row.into());
    }
    for (parent, subresource) in below {
        let Some(row) = rows.iter_mut().find(|row| row["resource"] == parent) else { continue };
        match row["subresources"].as_array_mut() {
            Some(all) => all.push(subresource),
            None => row["subresources"] = json!([subresource]),
        }
    }
    rows.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let mut versions =
            ["foo1", "v1alpha2", "v10", "v2beta1", "v1", "v11beta2", "v2", "foo10", "v1alpha1"];
        versions.sort_by_cached_key(|version| age(version));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v2beta1", "v1alpha2", "v1alpha1", "foo1", "foo10"]
        );
    }

    #[test]
    fn lists_become_aggregated() {
        let object = json!({"metadata": {"name": "v1.w.org"}, "spec": {"group": "w.org",
            "version": "v1", "service": {"namespace": "n", "name": "s"}}});
        let service = super::super::ApiService::read(object.to_string().as_bytes(), None).unwrap();
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
             "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder",
             "verbs": ["update"]}]});
        assert_eq!(
            aggregated(&service, &list).to_string(),
            r#"[{"resource":"flunders","responseKind":{"group":"w.org","version":"v1","kind":"Flunder"},"scope":"Namespaced","singularResource":"flunder","verbs":["get"],"shortNames":["fl"],"subresources":[{"subresource":"status","responseKind":{"group":"w.org","version":"v1","kind":"Flunder"},"verbs":["update"]}]}]"#
        );
    }
}
