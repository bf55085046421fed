//! patch: JSON patch, merge patch, strategic merge patch and server-side apply.

use std::sync::{Mutex, PoisonError};

use api::apply::{ApplyError, Conflict, Manager};
use api::schema::{self, Problem};
use api::status::{Cause, Details, FieldError, Status};
use json_patch::{PatchError, PatchOperation};
use serde_json::Value;

use super::call::{Call, Reply};
use super::options::{FieldValidation, WriteOptions};
use super::twice::Twice;
use super::write::{Change, Writer, check_fields};
use super::{Outcome, Registry, decode, meta, names, not_json};

/// Most operations in a JSON patch, as upstream.
const JSON_PATCH_MAX_OPERATIONS: usize = 10_000;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A patch as it was sent, read once.
pub enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7396.
    Merge(Value),
    /// Upstream's merge that knows list keys.
    Strategic(Value),
    /// What a manager wants its fields to be.
    Apply(Value),
}

impl Patch {
    /// Reads the body as its content type says.
    pub fn parse(call: &Call) -> Outcome<Self> {
        Self::tracked(call).map(|(patch, _)| patch)
    }

    /// The same, and the fields that it has twice.
    fn tracked(call: &Call) -> Outcome<(Self, Twice)> {
        let broken = |error: serde_json::Error| undecoded(&not_json::why(&call.body, &error));
        match call.content_type().as_str() {
            JSON => json_patch(&call.body),
            MERGE => {
                let (patch, twice) = decode::json(&call.body).map_err(broken)?;
                Ok((Patch::Merge(patch), twice))
            }
            STRATEGIC if call.target.resource.custom.is_some() => {
                Err(Status::unsupported_media_type(&[JSON, MERGE, APPLY]))
            }
            STRATEGIC => {
                let (patch, twice) = decode::json(&call.body).map_err(broken)?;
                Ok((Patch::Strategic(patch), twice))
            }
            APPLY => decode::yaml(&call.body)
                .map(|(patch, twice)| (Patch::Apply(patch), twice))
                .map_err(|mut status| {
                    let why = status.message.split_once(": ").map_or("", |(_, why)| why);
                    status.message = format!("error decoding YAML: {why}");
                    status
                }),
            _ => Err(Status::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY])),
        }
    }

    /// The patched form of an object (any patch but an apply).
    pub fn patched(&self, call: &Call, live: &Value) -> Outcome<Value> {
        let mut object = live.clone();
        match self {
            Patch::Json(patch) => json_patched(&mut object, patch).map_err(|_| unpatched())?,
            Patch::Merge(patch) => json_patch::merge(&mut object, patch),
            Patch::Strategic(patch) => {
                let target = &call.target;
                api::patch::strategic(&target.resource, &target.version, &mut object, patch)
                    .map_err(|error| match error.code() {
                        400 => Status::bad_request(error.to_string()),
                        422 => unpatched(),
                        code => Status::new(code, "", error.to_string()),
                    })?;
            }
            Patch::Apply(_) => {}
        }
        Ok(object)
    }
}

impl Patch {
    /// A patched object that cannot be read: upstream says that the patch is invalid, and shows
    /// what came of it, or a strategic patch itself.
    fn refused(&self, call: &Call, live: &Value, status: Status) -> Status {
        let prefix = schema::decode_error(&call.target.resource.kind, &call.target.version, "");
        let Some(why) = status.message.strip_prefix(&prefix) else { return status };
        let patched = self.patched(call, live).unwrap_or_default();
        let (shown, why) = match self {
            Patch::Strategic(patch) => {
                let target = &call.target;
                let schema = schema::Schema::of_resource(&target.resource, &target.version);
                let restored = schema.and_then(|schema| schema.restore_error(&patched));
                (api::status::go_print(patch), restored.unwrap_or_else(|| why.to_owned()))
            }
            _ => (patched.to_string(), why.to_owned()),
        };
        Status::invalid(("", ""), "", &[FieldError::invalid("patch", shown, why)])
    }
}

impl Registry {
    /// PATCH on an object or one of its views.
    pub(super) async fn patch(&self, call: &Call) -> Outcome<Reply> {
        let options = patch_options(call)?;
        let (patch, duplicates) = Patch::tracked(call)?;
        let target = &call.target;
        let writer = Writer {
            user: &call.user,
            manager: call.field_manager(&options),
            dry_run: options.dry_run,
        };
        let is_apply = matches!(patch, Patch::Apply(_));
        // What the last attempt had to say of unknown fields.
        let warnings = Mutex::new(Vec::new());
        let applied = match &patch {
            Patch::Apply(applied) => {
                let mut applied = applied.clone();
                set(&warnings, settle_applied(call, &options, &duplicates, &mut applied)?);
                Some(applied)
            }
            _ => None,
        };
        let time = names::time(self.now());
        let api_version = target.api_version();
        let build = |live: Option<&Value>| match (&applied, live) {
            (Some(applied), live) => {
                let manager = Manager {
                    name: &writer.manager,
                    api_version: &api_version,
                    subresource: &call.subresource,
                    time: &time,
                };
                api::apply::apply(&target.resource, live, applied, &manager, options.force)
                    .map_err(apply_failure)
            }
            (None, Some(live)) => {
                let mut object = patch.patched(call, live)?;
                decode::settle_kind(&target.resource, &target.version, &mut object)?;
                call.check_names(&object)?;
                let checked = check_fields(target, &options, &duplicates, &mut object);
                set(&warnings, checked.map_err(|status| patch.refused(call, live, status))?);
                Ok(object)
            }
            (None, None) => Err(Status::not_found(&*target.resource, &target.name)),
        };
        let change = Change {
            target,
            subresource: &call.subresource,
            create: is_apply && call.subresource.is_empty(),
            conditional: false,
            track: !is_apply,
            build: &build,
        };
        let written = self.change(&change, &writer).await?;
        let warnings = warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Reply::written(written.value, written.created).with_warnings(warnings))
    }
}

/// Reads a JSON patch. What is no list of objects cannot be read (400); what its operations say
/// is looked at where they are carried out (422).
fn json_patch(body: &[u8]) -> Outcome<(Patch, Twice)> {
    let read = decode::json(body);
    let (value, twice) = read.map_err(|error| undecoded(&not_json::why(body, &error)))?;
    let operations = match value.as_array() {
        Some(list) if list.iter().all(Value::is_object) => list,
        _ => return Err(undecoded("a JSON patch is a list of operations")),
    };
    if operations.len() > JSON_PATCH_MAX_OPERATIONS {
        return Err(Status::request_entity_too_large(&format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let known = ["op", "path", "from", "value"];
    let unknown = operations.iter().enumerate().flat_map(|(i, operation)| {
        let names = operation.as_object().into_iter().flat_map(|fields| fields.keys());
        let names = names.filter(|name| !known.contains(&name.as_str()));
        names.map(move |name| Problem::Unknown(format!("[{i}].{name}")).to_string())
    });
    // What is inside the values is none of the patch's own.
    let own = |line: &String| line.matches('.').count() == 1;
    let told: Vec<String> = twice.warnings().into_iter().filter(own).chain(unknown).collect();
    let patch = serde_json::from_value(value).map_err(|_| unpatched())?;
    Ok((Patch::Json(patch), Twice::of_patch(told.into_iter())))
}

/// 400 about a patch that cannot be read.
fn undecoded(why: &str) -> Status {
    Status::bad_request(format!("error decoding patch: {why}"))
}

/// 422 about a patch that does not fit. Upstream keeps to itself which part of it.
fn unpatched() -> Status {
    let text = "the server rejected our request due to an error in our request";
    Status::new(422, "Invalid", text).with_details(Details::default())
}

/// Applies a JSON patch as upstream's library does: a test for null holds where there is nothing,
/// by which clients make sure that they are the first.
fn json_patched(object: &mut Value, patch: &json_patch::Patch) -> Result<(), PatchError> {
    for operation in &patch.0 {
        if let PatchOperation::Test(test) = operation
            && test.value.is_null()
            && test.path.resolve(&*object).is_err()
        {
            continue;
        }
        json_patch::patch(object, std::slice::from_ref(operation))?;
    }
    Ok(())
}

fn set(warnings: &Mutex<Vec<String>>, texts: Vec<String>) {
    *warnings.lock().unwrap_or_else(PoisonError::into_inner) = texts;
}

/// Reads and checks the query of a patch.
pub fn patch_options(call: &Call) -> Outcome<WriteOptions> {
    WriteOptions::of_patch(&call.query, call.content_type() == APPLY)
}

/// Makes an applied configuration whole: its kind, its name, its namespace.
fn settle_applied(
    call: &Call,
    options: &WriteOptions,
    duplicates: &Twice,
    applied: &mut Value,
) -> Outcome<Vec<String>> {
    let target = &call.target;
    if !applied.is_object()
        || applied["apiVersion"].as_str().is_none_or(str::is_empty)
        || applied["kind"].as_str().is_none_or(str::is_empty)
    {
        return Err(Status::bad_request(
            "invalid object type: apiVersion and kind must be set in an applied configuration",
        ));
    }
    let (given, expected) =
        (applied["apiVersion"].as_str().unwrap_or_default(), target.api_version());
    if given != expected {
        return Err(Status::bad_request(format!(
            "incorrect version specified in apply patch. Specified patch version: {given}, expected: {expected}"
        )));
    }
    decode::settle_kind(&target.resource, &target.version, applied)?;
    if applied["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    if meta::name(applied).is_empty() {
        meta::set(applied, "name", target.name.as_str());
    }
    if meta::namespace(applied).is_empty() && target.resource.namespaced {
        meta::set(applied, "namespace", target.namespace.as_str());
    }
    call.check_names(applied)?;
    api::apply::check(&target.resource, &expected, applied).map_err(apply_failure)?;
    if let (FieldValidation::Strict, [wrong]) =
        (options.field_validation, duplicates.errors().as_slice())
    {
        let why = format!("error strict decoding YAML: error converting YAML to JSON: {wrong}");
        return Err(Status::bad_request(why));
    }
    check_fields(target, options, duplicates, applied)
}

/// A refused apply as a `Status`.
pub fn apply_failure(error: ApplyError) -> Status {
    match error {
        ApplyError::Untyped(_) | ApplyError::Owners => Status::new(500, "", error.to_string()),
        ApplyError::Conflicts(conflicts) => {
            let lines = |of: &str| -> Vec<String> {
                conflicts
                    .iter()
                    .filter(|c| c.manager == of)
                    .map(|c| format!("- {}", c.field))
                    .collect()
            };
            let cause = |conflict: &Conflict| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {}", conflict.manager),
                field: conflict.field.clone(),
            };
            let causes: Vec<Cause> = conflicts.iter().map(cause).collect();
            let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
            managers.sort_unstable();
            managers.dedup();
            let text = match (managers.as_slice(), conflicts.as_slice()) {
                (_, [one]) => format!("conflict with {}: {}", one.manager, one.field),
                (managers, _) => {
                    let parts: Vec<String> = managers
                        .iter()
                        .map(|m| format!("conflicts with {m}:\n{}", lines(m).join("\n")))
                        .collect();
                    parts.join("\n")
                }
            };
            let noun = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
            Status::apply_conflict(
                causes,
                format!("Apply failed with {} {noun}: {text}", conflicts.len()),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_test_for_null_holds_where_there_is_nothing() {
        let patch = |value: Value| -> json_patch::Patch {
            let test = json!({"op": "test", "path": "/metadata/finalizers", "value": value});
            let add = json!({"op": "add", "path": "/metadata/finalizers", "value": ["a"]});
            serde_json::from_value(json!([test, add])).unwrap()
        };
        let mut object = json!({"metadata": {}});
        assert!(json_patched(&mut object, &patch(json!([]))).is_err());
        json_patched(&mut object, &patch(Value::Null)).unwrap();
        assert_eq!(object, json!({"metadata": {"finalizers": ["a"]}}));
        assert!(json_patched(&mut object, &patch(Value::Null)).is_err(), "there is one now");
    }
}
