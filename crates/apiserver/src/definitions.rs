//! Kinds that CustomResourceDefinitions define, as far as this server knows of them, and the care
//! of the definitions themselves: accepted names, conditions, and the end of what they defined.
//!
//! The table catches up with the store when it is asked, so that a definition counts from the next
//! request on. The care is a task of each server: what it writes is a function of the stored
//! definitions alone, so that two servers agree, and the loser of a race looks again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::custom::{self, definition, holds, resources};
use api::resource::{RESOURCES, Resource};
use http::Method;
use serde_json::{Value, json};
use store::{Page, Range, Store};

use crate::cached::{Cached, objects};
use crate::feed::Feed;
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
    rows: Vec<Resource>,
    by_path: HashMap<Place, Arc<Resource>>,
    ending: BTreeSet<String>,
}

impl Defined {
    /// A table that reads the store's definitions when it is asked.
    pub(crate) fn cached(store: &Store) -> Cached<Defined> {
        Cached::new(store.clone(), &[definition::COLLECTION], Defined::read)
    }

    fn read(store: &Store) -> Self {
        let mut defined = Defined::default();
        for definition in objects(store, definition::COLLECTION, None) {
            let ending = !definition["metadata"]["deletionTimestamp"].is_null();
            for row in resources(&definition) {
                if ending {
                    defined.ending.insert(row.collection.to_string());
                }
                defined.rows.push(row);
            }
        }
        defined.rows.sort_by(|a, b| a.group.cmp(&b.group));
        for row in &defined.rows {
            let shared = Arc::new(row.clone());
            for version in &row.versions {
                let place = (row.group.to_string(), version.to_string(), row.plural.to_string());
                defined.by_path.insert(place, Arc::clone(&shared));
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
        RESOURCES.iter().chain(&self.rows)
    }

    /// Whether a collection's definition is on its way out, so that nothing more is made.
    pub(crate) fn is_ending(&self, collection: &str) -> bool {
        self.ending.contains(collection)
    }
}

/// The OpenAPI schemas of everything that is defined: read for each document, since they are
/// large and seldom asked for.
pub(crate) fn documents(store: &Store) -> Vec<api::openapi::Document> {
    let all = objects(store, definition::COLLECTION, None);
    let served = all.iter().filter(|definition| holds(definition, "Established"));
    served.flat_map(api::custom::documents).collect()
}

/// Keeps the definitions until the server stops.
pub(crate) fn start(server: &Arc<ApiServer>) {
    let store = server.context.store.clone();
    let stopping = server.context.stopping.clone();
    // A weak reference: this task must not keep a server alive that nobody else holds.
    let server = Arc::downgrade(server);
    tokio::spawn(async move {
        let mut feed = Feed::new(store, definition::COLLECTION);
        let mut again = false;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                change = feed.next() => if change.is_none() { return },
                () = tokio::time::sleep(LOOK_AGAIN), if again => {}
            }
            while feed.try_next().is_some() {}
            let Some(server) = server.upgrade() else { return };
            again = reconcile(&server).await;
        }
    });
}

/// Brings every definition in order; whether one of them has to be looked at again.
async fn reconcile(server: &Arc<ApiServer>) -> bool {
    let mut all = objects(&server.context.store, definition::COLLECTION, None);
    // Of two with one name the older has it.
    let age = |definition: &Value| definition["metadata"]["creationTimestamp"].to_string();
    all.sort_by_key(|definition| (!holds(definition, "NamesAccepted"), age(definition)));
    let mut again = false;
    for at in 0..all.len() {
        let done = match all[at]["metadata"]["deletionTimestamp"].is_null() {
            true => settle(server, &mut all, at).await,
            false => end(server, &all[at]).await,
        };
        if let Err(error) = done {
            let name = all[at]["metadata"]["name"].as_str().unwrap_or_default();
            tracing::debug!(definition = name, error, "keeping a CustomResourceDefinition");
            again = true;
        }
    }
    again
}

async fn settle(server: &Arc<ApiServer>, all: &mut [Value], at: usize) -> Result<(), String> {
    let mut others = all.to_vec();
    let mut definition = others.remove(at);
    let status = custom::status(&definition, &others, &time_now());
    if status == definition["status"] {
        return Ok(());
    }
    definition["status"] = status;
    all[at] = definition.clone();
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
    let rows = resources(definition);
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
