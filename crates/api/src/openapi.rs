//! OpenAPI documents: `/openapi/v2` as JSON and protobuf, `/openapi/v3` and below.
//!
//! Documents are made when asked for, by streaming the compressed definitions and adding the
//! paths that follow from the resource table; nothing large stays in memory. Callers that serve
//! one often keep the compressed bytes, under the hash given here.

mod foreign;
mod operation;
mod protobuf;
mod v3;

use crate::resource::{Resource, api_version};
use crate::schema;
pub use foreign::Foreign;
use operation::PathItem;
use serde_json::{Map, Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

/// Media type of the v2 document as JSON.
pub const V2_JSON: &str = "application/json";
/// Media type of the v2 document as protobuf, as clients of today ask for it. Every answer in
/// protobuf carries this one: clients fail to parse the older form in an answer.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The same as older clients ask for it (`@` is illegal in a media type; kubectl 1.20 sends it).
pub const V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Media type of a v3 document as protobuf, in answers.
pub const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// The same as it was called first.
pub const V3_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// The schema of a kind that is not built in, in both forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its name.
    pub name: String,
    /// The group and version that it belongs to.
    pub group: String,
    /// The version.
    pub version: String,
    /// As OpenAPI v2 has it.
    pub v2: Value,
    /// As OpenAPI v3 has it.
    pub v3: Value,
}

/// The documents that describe a set of resources.
pub struct OpenApi<'a> {
    resources: Vec<&'a Resource>,
    /// Of kinds that are not built in.
    documents: Vec<Document>,
    /// What other servers say of what they serve.
    foreign: Foreign,
    /// The server's version, for instance `v1.36.0`.
    version: &'a str,
}

impl<'a> OpenApi<'a> {
    /// Documents for these resources, served by a server of that version.
    pub fn new(resources: impl IntoIterator<Item = &'a Resource>, version: &'a str) -> Self {
        let (documents, foreign) = (Vec::new(), Foreign::default());
        Self { resources: resources.into_iter().collect(), documents, foreign, version }
    }

    /// The same with the schemas of kinds that are not built in.
    #[must_use]
    pub fn with(self, documents: Vec<Document>) -> Self {
        Self { documents, ..self }
    }

    /// The same with what other servers serve, in the v2 document.
    #[must_use]
    pub fn with_foreign(self, all: &[Foreign]) -> Self {
        let own = |name: &str| {
            schema::is_definition(name) || self.documents.iter().any(|one| one.name == name)
        };
        let foreign = Foreign::joined(all, own);
        Self { foreign, ..self }
    }

    /// Changes whenever the v2 document changes: its `ETag`, without quotes.
    pub fn v2_hash(&self) -> String {
        let own = hash(self.version, self.resources.iter().copied());
        if self.foreign == Foreign::default() {
            return own;
        }
        let mut hasher = DefaultHasher::new();
        for (name, value) in self.foreign.paths.iter().chain(&self.foreign.definitions) {
            (name, value.to_string()).hash(&mut hasher);
        }
        format!("{own}{:016X}", hasher.finish())
    }

    /// Writes `/openapi/v2` as JSON.
    pub fn v2_json(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, r#"{{"swagger":"2.0","info":{},"paths":{{"#, self.info())?;
        for (i, (path, item)) in self.paths(None).into_iter().enumerate() {
            write!(out, "{}{}:{}", comma(i), Value::from(path), item.to_v2())?;
        }
        for (path, item) in &self.foreign.paths {
            write!(out, ",{}:{item}", Value::from(path.as_str()))?;
        }
        write!(out, r#"}},"definitions":{{"#)?;
        let mut outcome = Ok(());
        let mut i = 0;
        schema::documents(|name, text| {
            if outcome.is_ok() {
                outcome = write!(out, "{}\"{name}\":{text}", comma(i));
                i += 1;
            }
        });
        outcome?;
        for document in &self.documents {
            write!(out, ",{}:{}", Value::from(document.name.as_str()), document.v2)?;
        }
        for (name, definition) in &self.foreign.definitions {
            write!(out, ",{}:{definition}", Value::from(name.as_str()))?;
        }
        write!(out, "}}}}")
    }

    /// Writes `/openapi/v2` as protobuf (gnostic's `openapi.v2.Document`).
    pub fn v2_protobuf(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&protobuf::v2::head(&self.info()))?;
        for (path, item) in self.paths(None) {
            out.write_all(&protobuf::v2::path(&path, &item.to_v2()))?;
        }
        for (path, item) in &self.foreign.paths {
            out.write_all(&protobuf::v2::path(path, item))?;
        }
        let mut outcome = Ok(());
        schema::documents(|name, text| {
            let definition = serde_json::from_str(text).unwrap_or(Value::Null);
            if outcome.is_ok() {
                outcome = out.write_all(&protobuf::v2::definition(name, &definition));
            }
        });
        outcome?;
        for document in &self.documents {
            out.write_all(&protobuf::v2::definition(&document.name, &document.v2))?;
        }
        for (name, definition) in &self.foreign.definitions {
            out.write_all(&protobuf::v2::definition(name, definition))?;
        }
        Ok(())
    }

    /// `/openapi/v3`: every group version's document and its hash.
    pub fn v3_index(&self) -> Value {
        let mut paths = Map::new();
        for (group, version) in self.group_versions() {
            let path = group_path(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", self.v3_hash(group, version));
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
        json!({"paths": paths})
    }

    /// Changes whenever the v3 document of that group version changes.
    pub fn v3_hash(&self, group: &str, version: &str) -> String {
        hash(self.version, self.served(group, version))
    }

    /// Writes `/openapi/v3/api/VERSION` or `/openapi/v3/apis/GROUP/VERSION`; false if nothing is
    /// served under that group and version.
    pub fn v3(&self, group: &str, version: &str, out: &mut dyn Write) -> io::Result<bool> {
        let items = self.paths(Some((group, version)));
        write!(out, r#"{{"openapi":"3.0.0","info":{},"paths":{{"#, self.info())?;
        for (i, (path, item)) in items.iter().enumerate() {
            write!(out, "{}{}:{}", comma(i), Value::from(path.as_str()), item.to_v3())?;
        }
        write!(out, r#"}},"components":{{"schemas":{{"#)?;
        let mut i = 0;
        self.v3_schemas(group, version, &items, |name, schema| {
            i += 1;
            write!(out, "{}{}:{schema}", comma(i - 1), Value::from(name))
        })?;
        write!(out, "}}}}}}").map(|()| !items.is_empty())
    }

    /// The same as protobuf (gnostic's `openapi.v3.Document`).
    pub fn v3_protobuf(&self, group: &str, version: &str, out: &mut dyn Write) -> io::Result<bool> {
        let items = self.paths(Some((group, version)));
        out.write_all(&protobuf::v3::head(&self.info()))?;
        for (path, item) in &items {
            out.write_all(&protobuf::v3::path(path, &item.to_v3()))?;
        }
        self.v3_schemas(group, version, &items, |name, schema| {
            out.write_all(&protobuf::v3::definition(name, schema))
        })?;
        Ok(!items.is_empty())
    }

    /// The schemas that paths lead to, those of built-in kinds first.
    fn v3_schemas(
        &self,
        group: &str,
        version: &str,
        items: &[(String, PathItem)],
        mut each: impl FnMut(&str, &Value) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut roots: Vec<&str> = items.iter().flat_map(|(_, item)| item.definitions()).collect();
        roots.extend([operation::WATCH_EVENT, operation::OBJECT_META, operation::LIST_META]);
        let wanted = schema::reachable(roots);
        let mut outcome = Ok(());
        schema::documents(|name, text| {
            if outcome.is_ok() && wanted.contains(name) {
                let definition = serde_json::from_str(text).unwrap_or(Value::Null);
                outcome = each(name, &v3::definition(name, definition));
            }
        });
        outcome?;
        let mut own = self.documents.iter().filter(|d| d.group == group && d.version == version);
        own.try_for_each(|document| each(&document.name, &document.v3))
    }

    fn info(&self) -> Value {
        json!({"title": "Kubernetes", "version": self.version})
    }

    /// Paths in alphabetical order, of all group versions or of one.
    fn paths(&self, only: Option<(&str, &str)>) -> Vec<(String, PathItem)> {
        let mut items = Vec::new();
        for resource in &self.resources {
            for version in &resource.versions {
                if only.is_none_or(|only| only == (resource.group.as_ref(), version.as_ref())) {
                    let root = format!("/{}", group_path(&resource.group, version));
                    operation::paths(resource, version, &root, &mut items);
                }
            }
        }
        items.sort_by(|(a, _), (b, _)| a.cmp(b));
        items
    }

    fn served(&self, group: &str, version: &str) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().copied().filter(move |r| r.group == group && r.serves(version))
    }

    fn group_versions(&self) -> Vec<(&'a str, &'a str)> {
        let mut found = Vec::new();
        for resource in &self.resources {
            for version in &resource.versions {
                let pair = (resource.group.as_ref(), version.as_ref());
                if !found.contains(&pair) {
                    found.push(pair);
                }
            }
        }
        found
    }
}

/// `api/v1` or `apis/GROUP/VERSION`.
fn group_path(group: &str, version: &str) -> String {
    format!("{}/{}", if group.is_empty() { "api" } else { "apis" }, api_version(group, version))
}

fn comma(position: usize) -> &'static str {
    if position == 0 { "" } else { "," }
}

/// Documents are a function of the version, the resources and the generated data.
fn hash<'a>(version: &str, resources: impl Iterator<Item = &'a Resource>) -> String {
    let mut halves = [DefaultHasher::new(), DefaultHasher::new()];
    halves[1].write_u8(1);
    let resources: Vec<&Resource> = resources.collect();
    for hasher in &mut halves {
        (version, schema::documents_hash(), &resources).hash(hasher);
    }
    halves.map(|hasher| format!("{:016X}", hasher.finish())).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::RESOURCES;

    fn document(write: impl Fn(&OpenApi<'_>, &mut dyn Write)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&OpenApi::new(RESOURCES.iter(), "v1.36.0"), &mut bytes);
        bytes
    }

    #[test]
    fn v2_has_paths_and_definitions() {
        let bytes = document(|api, out| api.v2_json(out).unwrap());
        let v2: Value = serde_json::from_slice(&bytes).unwrap();
        let patch =
            &v2["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
        assert_eq!(patch["x-kubernetes-action"], "patch");
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let parameters = patch["parameters"].as_array().unwrap();
        let names: Vec<&str> = parameters.iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names, ["body", "dryRun", "fieldManager", "fieldValidation", "force"]);
        assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"].is_object());
        assert!(v2["paths"]["/api/v1/pods"]["get"].is_object());
        assert!(v2["paths"]["/api/v1/pods"]["post"].is_null());
        assert_eq!(
            v2["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]["x-kubernetes-group-version-kind"]
                ["group"],
            "policy"
        );
    }

    /// Every reference in a v3 document leads somewhere. Some groups stand for all: those whose
    /// definitions or subresources lead to other groups.
    #[test]
    fn v3_documents_are_closed() {
        let api = OpenApi::new(RESOURCES.iter(), "v1.36.0");
        let checked =
            [("", "v1"), ("apps", "v1"), ("autoscaling", "v2"), ("apiextensions.k8s.io", "v1")];
        for (group, version) in checked {
            let mut bytes = Vec::new();
            assert!(api.v3(group, version, &mut bytes).unwrap());
            let text = String::from_utf8(bytes).unwrap();
            let v3: Value = serde_json::from_str(&text).unwrap();
            for part in text.split(r##""$ref":"#/components/schemas/"##).skip(1) {
                let name = part.split('"').next().unwrap();
                assert!(v3["components"]["schemas"][name].is_object(), "{group} {name}");
            }
            assert!(!text.contains("#/definitions/"), "{group}");
        }
        assert!(!api.v3("apps", "v2", &mut Vec::new()).unwrap());
    }

    #[test]
    fn v3_index_names_documents_by_hash() {
        let api = OpenApi::new(RESOURCES.iter(), "v1.36.0");
        let index = api.v3_index();
        assert_eq!(
            index["paths"]["apis/apps/v1"]["serverRelativeURL"],
            format!("/openapi/v3/apis/apps/v1?hash={}", api.v3_hash("apps", "v1"))
        );
        assert!(index["paths"]["api/v1"].is_object());
        assert_ne!(api.v3_hash("apps", "v1"), api.v3_hash("batch", "v1"));
        assert_ne!(api.v2_hash(), OpenApi::new(RESOURCES.iter().skip(1), "v1.36.0").v2_hash());
    }
}
