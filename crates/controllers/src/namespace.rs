//! Empties a namespace that is being deleted, then lets it go.
//!
//! It reads the API itself: no cache holds all kinds. Pods go before everything else, so
//! that what they lean on (network policies, secrets) outlives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::resource::{RESOURCES, Resource};
use client::{Outcome, Pod};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, PartialObjectMeta, Request};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;

use crate::carry_out::FIELD_MANAGER;
use crate::context::Key;
use crate::driver::{Controller, Hub, Reconcile};

/// The finalizer in `spec.finalizers` that stands for this controller.
const FINALIZER: &str = "kubernetes";

/// Pause before a namespace that is not empty yet is looked at again, if no pod's end wakes
/// it sooner.
const REMAINING_SECONDS: u64 = 2;

/// Namespaces that are being deleted.
pub const NAMESPACE: Controller = Controller {
    name: "namespace-controller",
    watches: |watches| {
        watches.own::<Namespace>();
        watches.map::<Pod>(|world, pod| {
            let name = pod.namespace().unwrap_or_default();
            let dying = world
                .get::<Namespace>("", &name)
                .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some());
            if dying { vec![Key::new("", name)] } else { Vec::new() }
        });
    },
    reconcile: Reconcile::Live(|hub, key| reconcile(hub, key).boxed()),
};

/// What is left of a namespace's content.
#[derive(Debug, Default, PartialEq)]
struct Remaining {
    /// Objects by `resource.group`.
    objects: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// What could not be deleted, and why.
    failures: Vec<String>,
}

async fn reconcile(hub: Arc<Hub>, key: Key) -> kube::Result<Outcome> {
    let dying = |namespace: &Arc<Namespace>| namespace.metadata.deletion_timestamp.is_some();
    let Some(namespace) = hub.world.get::<Namespace>("", &key.name).filter(dying) else {
        return Ok(Outcome::Done);
    };
    let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Outcome::Done);
    }
    let mut remaining = Remaining::default();
    let (pods, others): (Vec<_>, Vec<_>) =
        kinds(&hub.client).await?.into_iter().partition(|kind| kind.plural == "pods");
    for kinds in [pods, others] {
        for kind in &kinds {
            empty(&hub.client, &key.name, kind, &mut remaining).await;
        }
        if !remaining.objects.is_empty() {
            break;
        }
    }
    report(&hub.client, &namespace, &remaining).await?;
    if remaining.objects.is_empty() && remaining.failures.is_empty() {
        finalize(&hub.client, &namespace).await?;
        return Ok(Outcome::Done);
    }
    Ok(Outcome::After(Duration::from_secs(REMAINING_SECONDS)))
}

/// Every kind of object that can be in a namespace, once.
async fn kinds(client: &Client) -> kube::Result<Vec<ApiResource>> {
    let deletable =
        |r: &&Resource| r.namespaced && r.stored && r.allows("list") && r.allows("delete");
    let mut collections = std::collections::HashSet::new();
    let mut kinds: Vec<ApiResource> = RESOURCES
        .iter()
        .filter(deletable)
        .filter(|r| collections.insert(r.collection().to_owned()))
        .map(|r| ApiResource {
            group: r.group.to_string(),
            version: r.versions[0].to_string(),
            api_version: r.api_version(&r.versions[0]),
            kind: r.kind.to_string(),
            plural: r.plural.to_string(),
        })
        .collect();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definitions = definitions.list(&ListParams::default()).await?;
    kinds.extend(
        definitions.items.into_iter().filter(|d| d.spec.scope == "Namespaced").filter_map(
            |definition| {
                let spec = definition.spec;
                let version = spec.versions.into_iter().find(|v| v.served)?.name;
                Some(ApiResource {
                    api_version: format!("{}/{version}", spec.group),
                    group: spec.group,
                    version,
                    kind: spec.names.kind,
                    plural: spec.names.plural,
                })
            },
        ),
    );
    Ok(kinds)
}

/// Deletes all objects of one kind and counts those that stay.
async fn empty(client: &Client, namespace: &str, kind: &ApiResource, remaining: &mut Remaining) {
    let result = async {
        if left(client, namespace, kind).await?.is_empty() {
            return Ok(Vec::new());
        }
        let params = DeleteParams::background();
        let request = Request::new(path(namespace, kind))
            .delete_collection(&params, &ListParams::default())
            .map_err(kube::Error::BuildRequest)?;
        client.request::<serde::de::IgnoredAny>(request).await?;
        left(client, namespace, kind).await
    };
    match result.await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            let name = format!("{}.{}", kind.plural, kind.group);
            remaining.objects.insert(name, left.len());
            for finalizer in left.iter().flat_map(|object| object.finalizers()) {
                *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
        }
        // A kind that is not served (any more) has no objects that could be reached.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {}
        Err(error) => remaining.failures.push(base::chain(&error).to_string()),
    }
}

fn path(namespace: &str, kind: &ApiResource) -> String {
    let root = if kind.group.is_empty() { "/api" } else { "/apis" };
    format!("{root}/{}/namespaces/{namespace}/{}", kind.api_version, kind.plural)
}

#[derive(Deserialize)]
struct MetaList {
    #[serde(default)]
    items: Vec<PartialObjectMeta>,
}

async fn left(
    client: &Client,
    namespace: &str,
    kind: &ApiResource,
) -> kube::Result<Vec<PartialObjectMeta>> {
    let request = Request::new(path(namespace, kind))
        .list_metadata(&ListParams::default())
        .map_err(kube::Error::BuildRequest)?;
    Ok(client.request::<MetaList>(request).await?.items)
}

async fn report(client: &Client, namespace: &Namespace, remaining: &Remaining) -> kube::Result<()> {
    let before = namespace.status.clone().unwrap_or_default();
    let conditions =
        conditions(before.conditions.clone().unwrap_or_default(), remaining, Timestamp::now());
    if before.phase.as_deref() == Some("Terminating")
        && before.conditions.as_ref() == Some(&conditions)
    {
        return Ok(());
    }
    let status =
        NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions) };
    let patch = Patch::Merge(serde_json::json!({ "status": status }));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.patch_status(&namespace.name_any(), &params, &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// Upstream's five conditions; times change only where the status does.
fn conditions(
    before: Vec<NamespaceCondition>,
    remaining: &Remaining,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let list = |counts: &BTreeMap<String, usize>, verb: &str| {
        let parts = counts.iter().map(|(name, n)| format!("{name} {verb} {n} resource instances"));
        parts.collect::<Vec<_>>().join(", ")
    };
    let content = list(&remaining.objects, "has");
    let finalizers = list(&remaining.finalizers, "in");
    let failures = remaining.failures.join(", ");
    let row = |type_: &str, bad: &str, good: (&str, &str), wrong: (&str, String)| {
        let (status, reason, message) = match bad.is_empty() {
            true => ("False", good.0, good.1.to_owned()),
            false => ("True", wrong.0, wrong.1),
        };
        let same = before.iter().find(|c| c.type_ == type_ && c.status == status);
        NamespaceCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: same
                .and_then(|c| c.last_transition_time.clone())
                .or(Some(Time(now))),
        }
    };
    let never = || ("", String::new());
    vec![
        row(
            "NamespaceDeletionDiscoveryFailure",
            "",
            ("ResourcesDiscovered", "All resources successfully discovered"),
            never(),
        ),
        row(
            "NamespaceDeletionGroupVersionParsingFailure",
            "",
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            never(),
        ),
        row(
            "NamespaceDeletionContentFailure",
            &failures,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            (
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {failures}",
                    remaining.failures.len()
                ),
            ),
        ),
        row(
            "NamespaceContentRemaining",
            &content,
            ("ContentRemoved", "All content successfully removed"),
            ("SomeResourcesRemain", format!("Some resources are remaining: {content}")),
        ),
        row(
            "NamespaceFinalizersRemaining",
            &finalizers,
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            (
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {finalizers}"),
            ),
        ),
    ]
}

/// Takes our finalizer off, upon which the API server removes the namespace.
async fn finalize(client: &Client, namespace: &Namespace) -> kube::Result<()> {
    let mut done = namespace.clone();
    // The report before has changed the version; finalizers are nobody else's at this point.
    done.metadata.resource_version = None;
    done.status = None;
    if let Some(finalizers) = done.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    let data = serde_json::to_vec(&done).map_err(kube::Error::SerdeError)?;
    let request = Request::new("/api/v1/namespaces")
        .replace_subresource("finalize", &namespace.name_any(), &PostParams::default(), data)
        .map_err(kube::Error::BuildRequest)?;
    match client.request::<serde::de::IgnoredAny>(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_left() {
        let remaining = Remaining {
            objects: BTreeMap::from([("pods.".into(), 2), ("jobs.batch".into(), 1)]),
            finalizers: BTreeMap::from([("batch.kubernetes.io/job-tracking".into(), 1)]),
            failures: Vec::new(),
        };
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let all = conditions(Vec::new(), &remaining, now);
        let message = |at: usize| all[at].message.clone().unwrap_or_default();
        assert_eq!(
            message(3),
            "Some resources are remaining: jobs.batch has 1 resource instances, pods. has 2 resource instances"
        );
        assert_eq!(
            message(4),
            "Some content in the namespace has finalizers remaining: batch.kubernetes.io/job-tracking in 1 resource instances"
        );
        assert_eq!(all[0].status, "False");
    }
}
