//! Why a write came to nothing, in upstream's words.

use api::status::{FieldError, MODIFIED, Status};
use store::WriteError;

use crate::fresh;
use crate::registry::call::Target;

/// 422 about the target.
pub(super) fn invalid(target: &Target, errors: &[FieldError]) -> Status {
    let resource = &target.resource;
    Status::invalid((resource.group.as_ref(), resource.kind.as_ref()), &target.name, errors)
}

/// Somebody else was faster, again and again.
pub(super) fn modified(target: &Target) -> Status {
    Status::conflict(&*target.resource, &target.name, MODIFIED)
}

/// Whether a refusal may come from what was known here and is not so any more. That something
/// exists already is the datastore's own word.
pub fn may_be_stale(status: &Status) -> bool {
    (400..500).contains(&status.code) && status.reason != "AlreadyExists"
}

/// A store's refusal in upstream's words.
pub fn write_failure(target: &Target, error: WriteError) -> Status {
    match &error {
        WriteError::Conflict { .. } => Status::conflict(&*target.resource, &target.name, MODIFIED),
        WriteError::NotFound => Status::not_found(&*target.resource, &target.name),
        WriteError::TooLarge { limit, .. } => {
            Status::request_entity_too_large(&format!("limit is {limit}"))
        }
        WriteError::Closed => Status::unavailable("the server is shutting down"),
        WriteError::Storage(cause) => fresh::unreachable_datastore(cause, &error),
        WriteError::Unresolved(_) => Status::timeout(&format!(
            "it is not known whether this was done: {}",
            base::chain(&error)
        )),
    }
}
