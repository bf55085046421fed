//! The garbage collector: deletes what has lost all its owners, and sees to foreground and
//! orphaning deletion.
//!
//! It watches the metadata of every kind that can have an owner, and keeps no more of it than
//! the graph needs (some 100 bytes a dependent). Whether an owner is really gone is asked of
//! the API before anything is deleted.

mod graph;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::resource::{self, RESOURCES, Resource};
use client::{Outcome, Queue};
use futures::{StreamExt, pin_mut};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use self::graph::{FOREGROUND, Graph, Node, ORPHAN, Uid, Work};
use crate::carry_out::FIELD_MANAGER;

/// Objects collected at the same time.
const WORKERS: usize = 4;
/// How long an owner may take to be seen before its absence is looked into.
const UNSEEN_OWNER: Duration = Duration::from_secs(2);
const WATCH_SECONDS: u32 = 290;
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// Kinds that have no owners and change too often to be watched for nothing.
const IGNORED: &[&str] = &["events"];

/// A kind that can own or be owned.
#[derive(Clone, Debug)]
struct Kind {
    api: ApiResource,
    namespaced: bool,
}

struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    /// Grows with the kinds ever seen; an index stays what it is.
    kinds: Mutex<Vec<Kind>>,
    /// Watches by kind index.
    watches: Mutex<HashMap<u16, AbortHandle>>,
    queue: Queue<Uid>,
    /// A custom resource has been defined or removed.
    definitions_changed: Notify,
}

/// Collects garbage until `stop` is cancelled.
pub async fn run(client: Client, stop: CancellationToken) {
    let collector = Arc::new(Collector {
        client,
        graph: Mutex::default(),
        kinds: Mutex::default(),
        watches: Mutex::default(),
        queue: Queue::default(),
        definitions_changed: Notify::new(),
    });
    builtin().into_iter().for_each(|kind| collector.watch(kind));
    let handle = |uid: Uid| {
        let collector = collector.clone();
        async move {
            collector.look_at(uid).await.unwrap_or_else(|error| {
                tracing::debug!(error = %base::chain(&error), "object not collected");
                Outcome::Retry
            })
        }
    };
    let definitions = collector.clone();
    tokio::select! {
        () = collector.queue.run(WORKERS, stop.clone(), handle) => {}
        () = definitions.follow_definitions() => {}
    }
    let watches = collector.watches.lock().unwrap_or_else(PoisonError::into_inner);
    watches.values().for_each(AbortHandle::abort);
}

fn builtin() -> Vec<Kind> {
    let collectable =
        |r: &&Resource| r.stored && ["list", "watch", "delete"].iter().all(|verb| r.allows(verb));
    let mut collections = HashSet::new();
    RESOURCES
        .iter()
        .filter(collectable)
        .filter(|r| !IGNORED.contains(&r.collection()))
        .filter(|r| collections.insert(r.collection().to_owned()))
        .map(|r| Kind { api: api_resource(r), namespaced: r.namespaced })
        .collect()
}

fn api_resource(r: &Resource) -> ApiResource {
    ApiResource {
        group: r.group.to_string(),
        version: r.versions[0].to_string(),
        api_version: r.api_version(&r.versions[0]),
        kind: r.kind.to_string(),
        plural: r.plural.to_string(),
    }
}

impl Collector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kind(&self, index: u16) -> Option<Kind> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.get(usize::from(index)).cloned()
    }

    fn do_work(&self, work: Work) {
        work.now.into_iter().for_each(|uid| self.queue.add(uid));
        work.soon.into_iter().for_each(|uid| self.queue.add_after(uid, UNSEEN_OWNER));
    }

    /// Starts to watch a kind.
    fn watch(self: &Arc<Self>, kind: Kind) {
        let index = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.push(kind.clone());
            u16::try_from(kinds.len() - 1).unwrap_or(u16::MAX)
        };
        let task = tokio::spawn(self.clone().follow(index, kind)).abort_handle();
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).insert(index, task);
    }

    async fn follow(self: Arc<Self>, index: u16, kind: Kind) {
        let defines_kinds = kind.api.kind == "CustomResourceDefinition";
        let api: Api<PartialObjectMeta> = Api::all_with(self.client.clone(), &kind.api);
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let stream = watcher::watcher(api, config);
        pin_mut!(stream);
        let (mut listed, mut failures) = (HashSet::new(), 0);
        while let Some(event) = stream.next().await {
            let work = match event {
                Err(error) => {
                    failures += 1;
                    tracing::debug!(kind = kind.api.kind, error = %base::chain(&error), "watch broke");
                    tokio::time::sleep(RETRY.jittered(failures)).await;
                    continue;
                }
                Ok(Event::Init) => {
                    listed.clear();
                    Work::default()
                }
                Ok(Event::InitApply(object)) => {
                    listed.extend(object.metadata.uid.as_deref().map(Uid::of));
                    self.graph().apply(index, &object.metadata)
                }
                Ok(Event::Apply(object)) => self.graph().apply(index, &object.metadata),
                Ok(Event::Delete(object)) => match object.metadata.uid.as_deref() {
                    Some(uid) => self.graph().remove(Uid::of(uid)),
                    None => Work::default(),
                },
                Ok(Event::InitDone) => {
                    let mut graph = self.graph();
                    let missing = graph.missing(index, &std::mem::take(&mut listed));
                    let now = missing.into_iter().flat_map(|uid| graph.remove(uid).now).collect();
                    Work { now, soon: Vec::new() }
                }
            };
            failures = 0;
            self.do_work(work);
            if defines_kinds {
                self.definitions_changed.notify_one();
            }
        }
    }

    /// Keeps a watch on every custom resource that is defined.
    async fn follow_definitions(self: Arc<Self>) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        loop {
            self.definitions_changed.notified().await;
            match definitions.list(&ListParams::default()).await {
                Ok(list) => self.sync_definitions(list.items),
                Err(error) => tracing::debug!(error = %base::chain(&error), "no definitions"),
            }
        }
    }

    fn sync_definitions(self: &Arc<Self>, definitions: Vec<CustomResourceDefinition>) {
        let defined: Vec<Kind> = definitions
            .into_iter()
            .filter_map(|definition| {
                let spec = definition.spec;
                let version = spec.versions.into_iter().find(|v| v.served)?.name;
                let namespaced = spec.scope == "Namespaced";
                let api_version = format!("{}/{version}", spec.group);
                let (kind, plural, group) = (spec.names.kind, spec.names.plural, spec.group);
                Some(Kind {
                    api: ApiResource { group, version, api_version, kind, plural },
                    namespaced,
                })
            })
            .collect();
        let is_builtin =
            |api: &ApiResource| resource::find(&api.group, &api.version, &api.plural).is_some();
        let known = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, kind) in known.iter().enumerate().filter(|(_, k)| !is_builtin(&k.api)) {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            if !defined.iter().any(|d| d.api == kind.api)
                && let Some(task) = watches.remove(&index)
            {
                task.abort();
            }
        }
        let watched: Vec<ApiResource> = watches
            .keys()
            .filter_map(|index| Some(known.get(usize::from(*index))?.api.clone()))
            .collect();
        drop(watches);
        for kind in defined.into_iter().filter(|kind| !watched.contains(&kind.api)) {
            self.watch(kind);
        }
    }

    async fn look_at(&self, uid: Uid) -> kube::Result<Outcome> {
        let (node, dependents) = {
            let graph = self.graph();
            let Some(node) = graph.node(uid).cloned() else { return Ok(Outcome::Done) };
            (node, graph.dependents(uid))
        };
        if node.orphan {
            return self.set_free(uid, &node, dependents).await;
        }
        if node.foreground {
            return self.wait_for(uid, &node, dependents).await;
        }
        if node.deleting || node.owners.iter().any(|(owner, _)| self.graph().is_solid(*owner)) {
            return self.drop_waiting_owners(uid, &node).await;
        }
        self.judge(uid, &node, !dependents.is_empty()).await
    }

    /// A dependent with a solid owner stays, but need not hold up one that is going.
    async fn drop_waiting_owners(&self, uid: Uid, node: &Node) -> kube::Result<Outcome> {
        let waiting = node.owners.iter().any(|(owner, _)| self.graph().is_waiting(*owner));
        if node.deleting || !waiting {
            return Ok(Outcome::Done);
        }
        self.judge(uid, node, false).await
    }

    /// Sets the dependents of an object free, then lets it go.
    async fn set_free(
        &self,
        uid: Uid,
        node: &Node,
        dependents: Vec<(Uid, bool)>,
    ) -> kube::Result<Outcome> {
        for (dependent, _) in dependents {
            let Some(child) = self.graph().node(dependent).cloned() else { continue };
            let Some(live) = self.live(dependent, &child).await? else { continue };
            self.disown(&child, &live, |owner| Uid::of(&owner.uid) == uid).await?;
        }
        self.drop_finalizer(uid, node, ORPHAN).await
    }

    /// Deletes the dependents of an object; the object goes when none blocks it any more.
    async fn wait_for(
        &self,
        uid: Uid,
        node: &Node,
        dependents: Vec<(Uid, bool)>,
    ) -> kube::Result<Outcome> {
        if !dependents.iter().any(|(_, blocks)| *blocks) {
            return self.drop_finalizer(uid, node, FOREGROUND).await;
        }
        for (dependent, _) in dependents {
            let Some(child) = self.graph().node(dependent).cloned() else { continue };
            if !child.deleting {
                self.queue.add(dependent);
            }
        }
        Ok(Outcome::Done)
    }

    /// Deletes an object none of whose owners holds it, after asking the API.
    async fn judge(&self, uid: Uid, node: &Node, has_dependents: bool) -> kube::Result<Outcome> {
        let Some(mut live) = self.live(uid, node).await? else { return Ok(Outcome::Done) };
        let owners = live.owner_references.clone().unwrap_or_default();
        if owners.is_empty() || live.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let (mut solid, mut waiting, mut dangling) = (0, HashSet::new(), HashSet::new());
        for owner in &owners {
            if self.graph().is_waiting(Uid::of(&owner.uid)) {
                waiting.insert(owner.uid.clone());
            } else if self.exists(owner, &node.namespace).await? {
                solid += 1;
            } else {
                dangling.insert(owner.uid.clone());
            }
        }
        if solid > 0 {
            let going = |owner: &OwnerReference| {
                waiting.contains(&owner.uid) || dangling.contains(&owner.uid)
            };
            if owners.iter().any(going) {
                self.disown(node, &live, going).await?;
            }
            return Ok(Outcome::Done);
        }
        if !waiting.is_empty() && has_dependents && self.graph().has_waiting_dependent(uid) {
            self.unblock(node, &live).await?;
            let Some(unblocked) = self.live(uid, node).await? else { return Ok(Outcome::Done) };
            live = unblocked;
        }
        let has = |finalizer: &str| live.finalizers.iter().flatten().any(|f| f == finalizer);
        let policy = match () {
            () if !waiting.is_empty() && has_dependents => PropagationPolicy::Foreground,
            () if has(ORPHAN) => PropagationPolicy::Orphan,
            () if has(FOREGROUND) => PropagationPolicy::Foreground,
            () => PropagationPolicy::Background,
        };
        self.delete(node, &live, policy).await
    }

    fn api(&self, node: &Node) -> Option<Api<DynamicObject>> {
        let kind = self.kind(node.kind)?;
        Some(self.api_of(&kind, &node.namespace))
    }

    fn api_of(&self, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
        match kind.namespaced {
            true => Api::namespaced_with(self.client.clone(), namespace, &kind.api),
            false => Api::all_with(self.client.clone(), &kind.api),
        }
    }

    /// The object's present metadata; none: it is gone, or another has its name.
    async fn live(&self, uid: Uid, node: &Node) -> kube::Result<Option<ObjectMeta>> {
        let Some(api) = self.api(node) else { return Ok(None) };
        let object: Option<PartialObjectMeta<DynamicObject>> =
            api.get_metadata_opt(&node.name).await?;
        let meta = object.map(|object| object.metadata);
        Ok(meta.filter(|meta| meta.uid.as_deref().map(Uid::of) == Some(uid)))
    }

    /// Whether an owner is there: of that kind, name and UID, in the dependent's namespace or
    /// cluster-scoped.
    async fn exists(&self, owner: &OwnerReference, namespace: &str) -> kube::Result<bool> {
        if self.graph().is_solid(Uid::of(&owner.uid)) {
            return Ok(true);
        }
        let (group, version) = resource::split_api_version(&owner.api_version);
        let builtin = resource::find_kind(group, version, &owner.kind)
            .map(|r| Kind { api: api_resource(r), namespaced: r.namespaced });
        let known = || {
            let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let same = |k: &&Kind| k.api.group == group && k.api.kind == owner.kind;
            kinds.iter().rev().find(same).cloned()
        };
        let Some(kind) = builtin.or_else(known) else { return Ok(false) };
        if kind.namespaced && namespace.is_empty() {
            return Ok(false);
        }
        let found = self.api_of(&kind, namespace).get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|object| object.metadata.uid.as_deref() == Some(&owner.uid)))
    }

    async fn delete(
        &self,
        node: &Node,
        live: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> kube::Result<Outcome> {
        let Some(api) = self.api(node) else { return Ok(Outcome::Done) };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: live.uid.clone(),
                // An owner may be added meanwhile; then there is a new version.
                resource_version: live.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        tracing::debug!(name = %node.name, namespace = %node.namespace, "collecting");
        gone_is_fine(api.delete(&node.name, &params).await.map(drop))
    }

    /// Removes owner references from an object.
    async fn disown(
        &self,
        node: &Node,
        live: &ObjectMeta,
        going: impl Fn(&OwnerReference) -> bool,
    ) -> kube::Result<Outcome> {
        let staying: Vec<_> =
            live.owner_references.iter().flatten().filter(|owner| !going(owner)).collect();
        // An empty list would stay in the object as one.
        let staying = if staying.is_empty() { json!(null) } else { json!(staying) };
        self.patch(node, live, json!({ "ownerReferences": staying })).await
    }

    /// Lets an object's owners go before it does: it waits for a dependent that waits as well,
    /// and so may be waiting for itself.
    async fn unblock(&self, node: &Node, live: &ObjectMeta) -> kube::Result<Outcome> {
        let freed = live
            .owner_references
            .iter()
            .flatten()
            .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() });
        let freed: Vec<OwnerReference> = freed.collect();
        self.patch(node, live, json!({ "ownerReferences": freed })).await
    }

    async fn drop_finalizer(
        &self,
        uid: Uid,
        node: &Node,
        finalizer: &str,
    ) -> kube::Result<Outcome> {
        let Some(live) = self.live(uid, node).await? else { return Ok(Outcome::Done) };
        let all = live.finalizers.clone().unwrap_or_default();
        let staying: Vec<_> = all.iter().filter(|f| *f != finalizer).collect();
        if staying.len() == all.len() {
            return Ok(Outcome::Done);
        }
        self.patch(node, &live, json!({ "finalizers": staying })).await
    }

    async fn patch(
        &self,
        node: &Node,
        live: &ObjectMeta,
        mut meta: serde_json::Value,
    ) -> kube::Result<Outcome> {
        let Some(api) = self.api(node) else { return Ok(Outcome::Done) };
        meta["resourceVersion"] = json!(live.resource_version);
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let patch = Patch::Merge(json!({ "metadata": meta }));
        gone_is_fine(api.patch_metadata(&node.name, &params, &patch).await.map(drop))
    }
}

fn gone_is_fine(result: kube::Result<()>) -> kube::Result<Outcome> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Done),
        Err(error) => Err(error),
        Ok(()) => Ok(Outcome::Done),
    }
}
