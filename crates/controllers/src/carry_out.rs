//! Carries out actions against the API and says what the caches must have seen before the
//! next look: a plan made from a cache that lags behind our own writes would create twice.

use std::collections::HashMap;

use client::{EventKind, Key, Recorder};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;

use crate::action::{Action, Announce, Notice, Target};
use crate::context::Failure;

/// The name under which our writes appear in `managedFields`, upstream's own: tools that
/// tell a person's edits from the cluster's know it.
pub const FIELD_MANAGER: &str = "kube-controller-manager";

/// Deletions under way at the same time for one key.
const CONCURRENT_DELETES: usize = 16;

/// A write that the cache of its kind has to catch up with.
#[derive(Debug)]
pub struct Written {
    /// What was written.
    pub target: Target,
    /// The version of the write; zero for a deletion that left nothing.
    pub revision: u64,
    /// The UID that was deleted; empty for other writes.
    pub deleted_uid: String,
}

/// How the actions of one plan went.
#[derive(Debug, Default)]
pub struct Results {
    /// Writes that went through.
    pub written: Vec<Written>,
    /// The first failure of an action that has a name for its failing.
    pub failure: Option<Failure>,
    /// Whether the key needs another try.
    pub retry: bool,
}

/// The part of an answer that matters: an object's metadata, or a `Status`.
#[derive(Deserialize, Default)]
struct Answer {
    #[serde(default)]
    metadata: AnswerMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AnswerMeta {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl AnswerMeta {
    fn revision(&self) -> u64 {
        self.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

/// Writes on behalf of one controller.
pub struct Hands {
    client: Client,
    recorder: Recorder,
}

impl Hands {
    /// Acts through `client`, and signs events with `component`.
    pub fn new(client: Client, component: &str) -> Self {
        Hands { recorder: Recorder::new(client.clone(), component, ""), client }
    }

    /// Carries out `actions` in order. Neighbouring creations go in batches of 1, 2, 4, ...;
    /// after a failure nothing more is done, since the next plan knows of it.
    pub async fn carry_out(&self, actions: Vec<Action>) -> Results {
        let mut results = Results::default();
        // A second patch of an object in one plan goes on from the first one's version.
        let mut versions: HashMap<Target, u64> = HashMap::new();
        let mut rest = actions.into_iter().peekable();
        while let Some(action) = rest.next() {
            let same = |a: &Action, b: &Action| {
                matches!(
                    (a, b),
                    (Action::Create { .. }, Action::Create { .. })
                        | (Action::Delete { .. }, Action::Delete { .. })
                )
            };
            let mut group = vec![action];
            while let Some(next) = rest.next_if(|next| same(&group[0], next)) {
                group.push(next);
            }
            self.group(group, &mut versions, &mut results).await;
            if results.retry {
                break;
            }
        }
        results
    }

    async fn group(
        &self,
        mut group: Vec<Action>,
        versions: &mut HashMap<Target, u64>,
        results: &mut Results,
    ) {
        let creating = matches!(group[0], Action::Create { .. });
        let mut batch_size = if creating { 1 } else { CONCURRENT_DELETES };
        while !(group.is_empty() || creating && results.retry) {
            let later = group.split_off(batch_size.min(group.len()));
            let batch = group.into_iter().map(|action| self.one(action, versions));
            for result in futures::future::join_all(batch).await {
                if let Some(written) = &result.written {
                    versions.insert(written.target.clone(), written.revision);
                }
                results.written.extend(result.written);
                results.retry |= result.retry;
                results.failure = results.failure.take().or(result.failure);
            }
            group = later;
            if creating {
                batch_size *= 2;
            }
        }
    }

    async fn one(&self, action: Action, versions: &HashMap<Target, u64>) -> OneResult {
        match action {
            Action::Event(notice) => {
                self.notify(&notice);
                OneResult::default()
            }
            Action::Create { target, body, announce } => {
                let result = self.create(&target, &body).await;
                self.conclude(target, String::new(), announce, result)
            }
            Action::Patch { target, subresource, mut patch } => {
                if let Some(version) = versions.get(&target) {
                    patch["metadata"]["resourceVersion"] = version.to_string().into();
                }
                let result = self.patch(&target, subresource, &patch).await;
                self.conclude(target, String::new(), None, result)
            }
            Action::Delete { target, uid, propagation, grace_seconds, announce } => {
                let result = self.delete(&target, &uid, propagation, grace_seconds).await;
                self.conclude(target, uid, announce, result)
            }
        }
    }

    async fn create(&self, target: &Target, body: &Value) -> kube::Result<AnswerMeta> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let data = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
        let request =
            Request::new(target.path()).create(&params, data).map_err(kube::Error::BuildRequest)?;
        Ok(self.client.request::<Answer>(request).await?.metadata)
    }

    async fn patch(
        &self,
        target: &Target,
        subresource: &str,
        patch: &Value,
    ) -> kube::Result<AnswerMeta> {
        let params =
            PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let (request, patch) = (Request::new(target.path()), Patch::Merge(patch));
        let request = match subresource {
            "" => request.patch(&target.name, &params, &patch),
            _ => request.patch_subresource(subresource, &target.name, &params, &patch),
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        Ok(self.client.request::<Answer>(request).await?.metadata)
    }

    async fn delete(
        &self,
        target: &Target,
        uid: &str,
        propagation: Option<&str>,
        grace_period_seconds: Option<u32>,
    ) -> kube::Result<AnswerMeta> {
        let params = DeleteParams {
            grace_period_seconds,
            propagation_policy: propagation.map(|policy| match policy {
                "Foreground" => PropagationPolicy::Foreground,
                "Orphan" => PropagationPolicy::Orphan,
                _ => PropagationPolicy::Background,
            }),
            preconditions: Some(Preconditions {
                uid: (!uid.is_empty()).then(|| uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let request = Request::new(target.path())
            .delete(&target.name, &params)
            .map_err(kube::Error::BuildRequest)?;
        Ok(self.client.request::<Answer>(request).await?.metadata)
    }

    fn conclude(
        &self,
        mut target: Target,
        uid: String,
        announce: Option<Announce>,
        result: kube::Result<AnswerMeta>,
    ) -> OneResult {
        match result {
            Ok(meta) => {
                if let Some(name) = meta.name.clone() {
                    target.name = name;
                }
                if let Some(announce) = announce
                    && let Some((reason, text)) = announce.done
                {
                    self.notify(&Notice {
                        regarding: announce.regarding,
                        warning: false,
                        reason,
                        note: format!("{text}{}", target.name),
                    });
                }
                // A deletion may answer with a Status, which carries no version.
                let revision = if meta.uid.is_some() { meta.revision() } else { 0 };
                let written = Some(Written { target, revision, deleted_uid: uid });
                OneResult { written, ..OneResult::default() }
            }
            Err(error) => self.fail(&target, !uid.is_empty(), announce, error),
        }
    }

    fn fail(
        &self,
        target: &Target,
        deleting: bool,
        announce: Option<Announce>,
        error: kube::Error,
    ) -> OneResult {
        let (reason, message, terminating) = match &error {
            kube::Error::Api(status) => {
                let ending = "because it is being terminated";
                (status.reason.as_str(), status.message.clone(), status.message.contains(ending))
            }
            _ => ("", base::chain(&error).to_string(), false),
        };
        if (deleting && reason == "NotFound") || terminating {
            return OneResult::default();
        }
        tracing::debug!(%target, error = message, "action failed");
        let lost_race = matches!(reason, "Conflict" | "NotFound" | "AlreadyExists");
        let failure = announce.filter(|_| !lost_race).map(|announce| {
            let (reason, text) = announce.failed;
            self.notify(&Notice {
                regarding: announce.regarding,
                warning: true,
                reason,
                note: format!("{text}{message}"),
            });
            Failure { reason, message }
        });
        OneResult { written: None, failure, retry: true }
    }

    fn notify(&self, notice: &Notice) {
        let kind = if notice.warning { EventKind::Warning } else { EventKind::Normal };
        self.recorder.event(&notice.regarding, kind, notice.reason, &notice.note);
    }
}

#[derive(Default)]
struct OneResult {
    written: Option<Written>,
    failure: Option<Failure>,
    retry: bool,
}

impl Written {
    /// The key under which a cache holds the object.
    pub fn key(&self) -> Key {
        Key::new(&self.target.namespace, &self.target.name)
    }
}
