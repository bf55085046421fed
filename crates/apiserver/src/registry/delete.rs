//! delete and deletecollection.

use api::status::{MODIFIED, Status};
use api::strategy;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use store::{Entry, Expect, WriteError};

use super::call::{Call, Content, Reply, Target};
use super::deletion::{self, Plan};
use super::negotiate::Shape;
use super::options::{DeleteOptions, ListOptions};
use super::read::Selection;
use super::write::{Writer, may_be_stale, write_failure};
use super::{Outcome, Registry, codec, decode, meta, negotiate, read};
use crate::admission::Operation;
use crate::user::User;

/// How often a delete is tried again because somebody else wrote meanwhile.
const DELETE_ATTEMPTS: usize = 64;

/// Upstream's warning.
const JOB_ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// What came of a delete.
pub struct Deleted {
    /// The object's last state, or the one that waits for its end.
    pub value: Bytes,
    /// Whether it is gone.
    pub gone: bool,
    /// `metadata.uid`.
    pub uid: String,
    /// Whether the datastore has taken a write.
    pub committed: bool,
}

impl Registry {
    /// DELETE of an object.
    pub(super) async fn delete(&self, call: &Call) -> Outcome<Reply> {
        let options = delete_options(call)?;
        let target = &call.target;
        warn_of_orphans(target, &options);
        let deleted = self.remove(target, &call.user, &options).await?;
        let content = if deleted.gone && !strategy::returns_deleted(&target.resource) {
            let status = Status::deleted(&*target.resource, &target.name, &deleted.uid);
            Content::Object(serde_json::to_value(status).unwrap_or_default())
        } else {
            Content::Stored(deleted.value)
        };
        let cascades = options.orphan_dependents == Some(false)
            || options.propagation_policy.as_deref() == Some("Foreground");
        let status = if !deleted.gone && cascades { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(Reply { status, content, warnings: Vec::new() })
    }

    /// Deletes an object or notes that it is to go.
    pub(super) async fn remove(
        &self,
        target: &Target,
        user: &User,
        options: &DeleteOptions,
    ) -> Outcome<Deleted> {
        let mut fresh = !self.store().is_shared();
        for _ in 0..DELETE_ATTEMPTS {
            let done = match self.store().get(&target.key()) {
                Some(entry) => self.remove_once(target, user, options, &entry).await,
                None => Err(Status::not_found(&*target.resource, &target.name)),
            };
            match done {
                Ok(Some(deleted)) if fresh || deleted.committed => return Ok(deleted),
                Err(status) if fresh || !may_be_stale(&status) => return Err(status),
                // Somebody else wrote meanwhile, or what is known here may be behind.
                Ok(_) | Err(_) => self.context.fresh().await?,
            }
            fresh = true;
        }
        Err(Status::conflict(&*target.resource, &target.name, MODIFIED))
    }

    /// One attempt; `None` where somebody else wrote meanwhile.
    async fn remove_once(
        &self,
        target: &Target,
        user: &User,
        options: &DeleteOptions,
        entry: &Entry,
    ) -> Outcome<Option<Deleted>> {
        let live = negotiate::parse(&entry.value)?;
        check_preconditions(target, &live, options)?;
        let writer = Writer { user, manager: String::new(), dry_run: options.dry_run };
        let mut attributes = self.attributes((Operation::Delete, ""), target, &writer, Some(&live));
        attributes.options = options.review();
        self.admission.delete(&attributes).await?;
        let uid = meta::uid(&live).to_owned();
        let expect = Expect::Revision(entry.revision);
        let plan = deletion::plan(&target.resource, &live, options, self.now());
        let (result, gone) = match plan {
            Plan::Pending => {
                let value = entry.value.clone();
                return Ok(Some(Deleted { value, gone: false, uid, committed: false }));
            }
            _ if options.dry_run => {
                return Ok(Some(Deleted {
                    value: entry.value.clone(),
                    gone: plan == Plan::Remove,
                    uid,
                    committed: false,
                }));
            }
            Plan::Remove => (self.store().delete(&entry.key, expect).await, true),
            Plan::Mark(object) => {
                let value = codec::encode(&object).into();
                (self.store().put(entry.key.clone(), expect, value).await, false)
            }
        };
        match result {
            Ok(entry) => {
                if gone {
                    self.release(target, &live, None).await;
                }
                let value = entry.value.clone();
                Ok(Some(Deleted { value, gone, uid, committed: true }))
            }
            Err(WriteError::Conflict { .. } | WriteError::NotFound) => Ok(None),
            Err(error) => Err(write_failure(target, error)),
        }
    }

    /// DELETE of a collection: everything that a list with the same query shows.
    pub(super) async fn delete_collection(&self, call: &Call) -> Outcome<Reply> {
        // Which versions are meant is said of the list, not of each object.
        let mut options = delete_options(call)?;
        if call.body.is_empty() {
            (options.uid, options.resource_version) = (None, None);
        }
        warn_of_orphans(&call.target, &options);
        let selected = ListOptions::parse(&call.query, false)?;
        let selection = Selection::parse(&call.target, &selected)?;
        // A limit bounds what is deleted: the first page of the list goes.
        let page = self.page(&call.target, &selected, &selection).await?;
        let mut items = Vec::new();
        for entry in &page.entries {
            let mut target = call.target.named(&entry.key.name);
            target.namespace = entry.key.namespace.to_string();
            match self.remove(&target, &call.user, &options).await {
                Ok(deleted) => items.push(read::item(&target, Shape::Object, &deleted.value)?),
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        let list = json!({
            "kind": call.target.resource.list_kind, "apiVersion": call.target.api_version(),
            "metadata": read::metadata(&page), "items": items,
        });
        Ok(Reply::ok(Content::Ready(crate::response::with_type(
            StatusCode::OK,
            call.accept.content_type(),
            call.accept.write(&list)?,
        ))))
    }
}

/// Says what becomes of a job's pods where the client has not.
fn warn_of_orphans(target: &Target, options: &DeleteOptions) {
    let unsaid = options.propagation_policy.is_none() && options.orphan_dependents.is_none();
    if unsaid && target.resource.collection() == "batch/jobs" {
        crate::notes::warn(JOB_ORPHANS);
    }
}

/// Reads `DeleteOptions` from body and query.
fn delete_options(call: &Call) -> Outcome<DeleteOptions> {
    let body = if call.body.is_empty() {
        None
    } else {
        Some(decode::parse(&call.content_type(), &call.body)?)
    };
    if let Some(kind) = body.as_ref().and_then(|body| body["kind"].as_str())
        && kind != "DeleteOptions"
    {
        return Err(Status::bad_request(format!(
            "the body of a delete must be DeleteOptions, not {kind}"
        )));
    }
    DeleteOptions::parse(&call.query, body.as_ref())
}

pub(super) fn check_preconditions(
    target: &Target,
    live: &Value,
    options: &DeleteOptions,
) -> Outcome<()> {
    // Upstream names the kind here where it names the resource elsewhere.
    let subject = (target.resource.group.as_ref(), target.resource.kind.as_ref());
    let refuse = |why: String| Err(Status::conflict(subject, &target.name, &why));
    let uid = meta::uid(live);
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        return refuse(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        ));
    }
    let version = meta::text(live, "resourceVersion");
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        return refuse(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
}
