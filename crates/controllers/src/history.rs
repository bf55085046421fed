//! The templates that a workload has had, as ControllerRevisions: what `kubectl rollout history`
//! and `undo` read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use serde_json::json;

use crate::action::{Action, Kind};
use crate::owner;

/// Revisions that nothing runs any more are kept up to so many, where the owner does not say.
const DEFAULT_LIMIT_REVISIONS: i32 = 10;

/// The revisions of one owner.
pub struct History {
    /// Those that are stored, the oldest first.
    pub all: Vec<Arc<ControllerRevision>>,
    /// The stored revision that holds the template now. What it holds decides, not its name:
    /// somebody may have made it.
    known: Option<Arc<ControllerRevision>>,
    wanted: ControllerRevision,
    label: &'static str,
}

impl History {
    /// The history of `owner`, whose template is this one now; `hash` is a label's name and the
    /// template's hash as its value.
    pub fn new<O: Kind>(
        owner: &O,
        template: &PodTemplateSpec,
        hash: (&'static str, &str),
        mut all: Vec<Arc<ControllerRevision>>,
    ) -> Self {
        all.sort_by_key(|revision| revision.revision);
        let newest = all.last().map_or(0, |revision| revision.revision);
        let wanted = revision(owner, template, hash, newest + 1);
        let newest_that = |is: &dyn Fn(&ControllerRevision) -> bool| {
            all.iter().rev().find(|revision| is(revision)).cloned()
        };
        let known = newest_that(&|revision| revision.data == wanted.data)
            .or_else(|| newest_that(&|revision| revision.name_any() == wanted.name_any()));
        Self { all, known, wanted, label: hash.0 }
    }

    fn current(&self) -> &ControllerRevision {
        self.known.as_deref().unwrap_or(&self.wanted)
    }

    /// The name of the revision that the template is.
    pub fn name(&self) -> &str {
        self.current().metadata.name.as_deref().unwrap_or_default()
    }

    /// The hash that the revision is labelled with.
    pub fn hash(&self) -> &str {
        let labels = [self.current(), &self.wanted].into_iter();
        labels
            .filter_map(|revision| revision.labels().get(self.label))
            .next()
            .map_or("", String::as_str)
    }

    /// The hashes of other revisions that hold the very same.
    pub fn aliases(&self) -> BTreeSet<&str> {
        let same = self.all.iter().filter(|revision| revision.data == self.current().data);
        let hashes = same.filter_map(|revision| revision.labels().get(self.label));
        hashes.map(String::as_str).filter(|hash| *hash != self.hash()).collect()
    }

    /// Stores the template where it is new, and makes it the newest where it has come back.
    pub fn record(&self) -> Option<Action> {
        let Some(known) = &self.known else { return Some(Action::create(&self.wanted, None)) };
        let newest = self.all.last().map_or(0, |revision| revision.revision);
        if known.revision == newest {
            return None;
        }
        let raised =
            ControllerRevision { revision: self.wanted.revision, ..known.as_ref().clone() };
        Action::change(known.as_ref(), &raised, "")
    }

    /// Deletes the oldest revisions that are neither the template's nor in use, beyond the limit.
    pub fn forget(
        &self,
        limit: Option<i32>,
        in_use: impl Fn(&ControllerRevision) -> bool,
    ) -> Vec<Action> {
        let is_old = |r: &&Arc<ControllerRevision>| r.name_any() != self.name() && !in_use(r);
        let old: Vec<_> = self.all.iter().filter(is_old).collect();
        let limit = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT_REVISIONS)).unwrap_or(0);
        let surplus = old.len().saturating_sub(limit);
        old[..surplus].iter().map(|r| Action::delete(r.as_ref(), None)).collect()
    }
}

/// The template that a revision holds.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let data = &revision.data.as_ref()?.0;
    serde_json::from_value(data.pointer("/spec/template")?.clone()).ok()
}

fn revision<O: Kind>(
    owner: &O,
    template: &PodTemplateSpec,
    (label, hash): (&'static str, &str),
    number: i64,
) -> ControllerRevision {
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    let mut labels: BTreeMap<_, _> = labels.unwrap_or_default();
    labels.insert(label.into(), hash.into());
    let mut template = serde_json::to_value(template).unwrap_or_default();
    // `kubectl rollout undo` applies the data as a strategic merge patch.
    template["$patch"] = json!("replace");
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.name_any())),
            namespace: owner.namespace(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![owner::controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json!({ "spec": { "template": template } }))),
        revision: number,
    }
}
