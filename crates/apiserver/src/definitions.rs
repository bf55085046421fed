//! Kinds that CustomResourceDefinitions define, as far as this server knows of them, and the care
//! of the definitions themselves: accepted names, conditions, and the end of what they defined.
//!
//! The table catches up with the store when it is asked, so that a definition counts from the next
//! request on. The care is a task of each server: what it writes is a function of the stored
//! definitions alone, so that two servers agree, and the loser of a race looks again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::custom::{self, definition, holds, resources};
use api::resource::{RESOURCES, Resource};
use http::Method;
use serde_json::{Value, json};
use store::{Entry, Page, Range, Revision, Store};

use crate::cached::Cached;
use crate::keeper::Keeper;
use crate::objects::object;
use crate::registry::time_now;
use crate::server::ApiServer;

/// Path of all definitions.
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How soon a definition that is on its way out is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Group, version, plural.
type Place = (String, String, String);

/// What is defined.
#[derive(Default)]
pub(crate) struct Defined {
    parts: BTreeMap<Arc<str>, Arc<Part>>,
    rows: Vec<Arc<Resource>>,
    by_path: HashMap<Place, Arc<Resource>>,
}

/// What one definition adds.
pub(crate) struct Part {
    /// The revision of the definition that this was read from.
    revision: Revision,
    rows: Vec<Arc<Resource>>,
    /// What others have to know of it, without its schemas: a definition that says no more.
    brief: Value,
    /// The group and versions that it serves, established or not.
    served: Vec<(String, String)>,
}

impl Part {
    fn read(entry: &Entry, before: Option<&Arc<Part>>) -> Option<Part> {
        let definition: Value = serde_json::from_slice(&entry.value).ok()?;
        let source: custom::Source = Arc::new(entry.value.clone());
        let custom = before.and_then(|part| part.rows.first()?.custom.as_ref());
        let rows = resources(&definition, source, custom);
        let spec = &definition["spec"];
        let group = spec["group"].as_str().unwrap_or_default();
        let versions = spec["versions"].as_array().into_iter().flatten();
        let served = versions.filter(|version| version["served"] == true);
        let served = served.filter_map(|version| version["name"].as_str());
        Some(Part {
            revision: entry.revision,
            rows: rows.into_iter().map(Arc::new).collect(),
            served: served.map(|version| (group.to_owned(), version.to_owned())).collect(),
            brief: brief(&definition),
        })
    }

    fn is_ending(&self) -> bool {
        !self.brief["metadata"]["deletionTimestamp"].is_null()
    }
}

fn brief(definition: &Value) -> Value {
    let metadata = &definition["metadata"];
    let of = |field: &str| metadata[field].clone();
    json!({
        "metadata": {"name": of("name"), "creationTimestamp": of("creationTimestamp"),
            "deletionTimestamp": of("deletionTimestamp")},
        "spec": {"group": definition["spec"]["group"]}, "status": definition["status"],
    })
}

impl Defined {
    /// A table that reads the store's definitions when it is asked.
    pub(crate) fn cached(store: &Store) -> Cached<Defined> {
        Cached::renewed(store.clone(), &[definition::COLLECTION], Defined::renew)
    }

    /// Reads those definitions that have changed.
    fn renew(store: &Store, before: &Self) -> Self {
        let range = Range { collection: definition::COLLECTION, namespace: None };
        let entries = store.list(range, Page::default()).map(|list| list.entries);
        let parts = entries.unwrap_or_default().into_iter().filter_map(|entry| {
            let known = before.parts.get(&entry.key.name);
            let part = match known.filter(|part| part.revision == entry.revision) {
                Some(part) => Arc::clone(part),
                None => Arc::new(Part::read(&entry, known)?),
            };
            Some((Arc::clone(&entry.key.name), part))
        });
        let mut defined = Defined { parts: parts.collect(), ..Defined::default() };
        let rows = defined.parts.values().flat_map(|part| &part.rows);
        defined.rows = rows.cloned().collect();
        defined.rows.sort_by(|a, b| a.group.cmp(&b.group));
        for row in &defined.rows {
            for version in &row.versions {
                let place = (row.group.to_string(), version.to_string(), row.plural.to_string());
                defined.by_path.insert(place, Arc::clone(row));
            }
        }
        defined
    }

    /// The kind that is served at a path.
    pub(crate) fn find(&self, place: &Place) -> Option<&Arc<Resource>> {
        self.by_path.get(place)
    }

    /// What is defined, a row for each served version.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_path.values()
    }

    /// Everything that is served: what is built in, then what is defined.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Resource> + Clone {
        RESOURCES.iter().chain(self.rows.iter().map(|row| &**row))
    }

    /// Whether a collection's definition is on its way out, so that nothing more is made.
    pub(crate) fn is_ending(&self, collection: &str) -> bool {
        let mut ending = self.parts.values().filter(|part| part.is_ending());
        ending.any(|part| part.rows.iter().any(|row| row.collection() == collection))
    }

    /// Every group and version that a definition serves, established or not.
    pub(crate) fn served(&self) -> impl Iterator<Item = &(String, String)> {
        self.parts.values().flat_map(|part| &part.served)
    }
}

/// The OpenAPI schemas of what is defined, in one group or in all: read for each document, since
/// they are large and seldom asked for.
pub(crate) fn documents(
    store: &Store,
    defined: &Defined,
    group: Option<&str>,
) -> Vec<api::openapi::Document> {
    let of_group = |part: &Part| group.is_none_or(|group| part.brief["spec"]["group"] == group);
    let served = defined.parts.iter().filter(|(_, part)| !part.rows.is_empty() && of_group(part));
    let read = served.filter_map(|(name, _)| object(store, definition::COLLECTION, "", name));
    read.flat_map(|definition| custom::documents(&definition)).collect()
}

/// Keeps the definitions in order.
#[derive(Default)]
pub(crate) struct Definitions {
    /// The revisions of those in which nothing is left to do.
    settled: HashMap<Arc<str>, Revision>,
}

impl Keeper for Definitions {
    const COLLECTIONS: &'static [&'static str] = &[definition::COLLECTION];

    async fn look(&mut self, server: &Arc<ApiServer>) -> Option<Duration> {
        let defined = server.context.definitions.get();
        // What became of them meanwhile, for those that come after.
        let mut briefs: BTreeMap<&Arc<str>, Value> =
            defined.parts.iter().map(|(name, part)| (name, part.brief.clone())).collect();
        self.settled.retain(|name, _| defined.parts.contains_key(name));
        let mut again = None;
        for name in self.due(&defined) {
            let revision = defined.parts[name].revision;
            match tend(server, name, &mut briefs).await {
                Ok(()) => drop(self.settled.insert(Arc::clone(name), revision)),
                Err(error) => {
                    tracing::debug!(
                        definition = &**name,
                        error,
                        "keeping a CustomResourceDefinition"
                    );
                    again = Some(LOOK_AGAIN);
                }
            }
        }
        again
    }
}

impl Definitions {
    /// Those to look at: what has changed, and what waits for a name that may be free now. Of two
    /// with one name the older has it.
    fn due<'d>(&self, defined: &'d Defined) -> Vec<&'d Arc<str>> {
        let accepted = |part: &Part| holds(&part.brief, "NamesAccepted");
        let changed = |name: &Arc<str>, part: &Part| self.settled.get(name) != Some(&part.revision);
        let mut due: Vec<_> = defined
            .parts
            .iter()
            .filter(|(name, part)| changed(name, part) || !accepted(part))
            .collect();
        let age = |part: &Part| part.brief["metadata"]["creationTimestamp"].to_string();
        due.sort_by_key(|(_, part)| (!accepted(part), age(part)));
        due.into_iter().map(|(name, _)| name).collect()
    }
}

/// Brings one definition in order beside the others.
async fn tend(
    server: &Arc<ApiServer>,
    name: &Arc<str>,
    briefs: &mut BTreeMap<&Arc<str>, Value>,
) -> Result<(), String> {
    let store = &server.context.store;
    let Some(mut definition) = object(store, definition::COLLECTION, "", name) else {
        return Ok(());
    };
    if !definition["metadata"]["deletionTimestamp"].is_null() {
        return end(server, &definition).await;
    }
    let others = briefs.iter().filter(|(other, _)| **other != name).map(|(_, brief)| brief);
    let status = custom::status(&definition, others, &time_now());
    if status == definition["status"] {
        return Ok(());
    }
    definition["status"] = status;
    if let Some(known) = briefs.get_mut(name) {
        *known = brief(&definition);
    }
    put_status(server, &definition).await
}

async fn put_status(server: &Arc<ApiServer>, definition: &Value) -> Result<(), String> {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    server.write_own(Method::PUT, &format!("{PATH}/{name}/status"), definition).await
}

/// Deletes what was defined; when nothing is left, the definition may go.
async fn end(server: &Arc<ApiServer>, definition: &Value) -> Result<(), String> {
    let finalizers = definition["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == definition::FINALIZER) {
        return Ok(());
    }
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let rows = resources(definition, Arc::new(Vec::new()), None);
    if let Some(row) = rows.first() {
        let left = delete_all(server, row).await?;
        if left > 0 {
            return Err(format!("{left} objects are left"));
        }
    }
    let mut last = definition.clone();
    let now = time_now();
    let done = ("Terminating", "False", "InstanceDeletionCompleted", "removed all instances");
    custom::set_condition(&mut last["status"], done, &now);
    put_status(server, &last).await?;
    let kept: Vec<&Value> = finalizers.iter().filter(|f| *f != definition::FINALIZER).collect();
    let patch = json!({"metadata": {"finalizers": kept}});
    server.write_own(Method::PATCH, &format!("{PATH}/{name}"), &patch).await
}

/// Deletes all objects of a kind; how many are still there.
async fn delete_all(server: &Arc<ApiServer>, row: &Resource) -> Result<usize, String> {
    let store = &server.context.store;
    let range = Range { collection: row.collection(), namespace: None };
    let list = store.list(range, Page::default()).map_err(|error| error.to_string())?;
    let root = format!("/apis/{}/{}", row.group, row.versions.first().map_or("", |v| v.as_ref()));
    for entry in &list.entries {
        let key = &entry.key;
        let path = match key.namespace.is_empty() {
            true => format!("{root}/{}/{}", row.plural, key.name),
            false => format!("{root}/namespaces/{}/{}/{}", key.namespace, row.plural, key.name),
        };
        // Those that wait for their finalizers are deleted already.
        if let Err(error) = server.write_own(Method::DELETE, &path, &json!({})).await {
            tracing::debug!(path, error, "deleting what a CustomResourceDefinition defined");
        }
    }
    let left = store.list(range, Page::default()).map_err(|error| error.to_string())?;
    Ok(left.entries.len())
}
