//! What a webhook answers.

use api::status::{Cause, Details, Status};
use base64::Engine as _;
use serde_json::Value;

use super::hook::Hook;
use super::review;
use crate::notes;
use crate::registry::meta;

/// Reasons that clients know; others are left out.
const REASONS: [&str; 16] = [
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Invalid",
    "ServerTimeout",
    "Timeout",
    "TooManyRequests",
    "BadRequest",
    "MethodNotAllowed",
    "NotAcceptable",
    "RequestEntityTooLarge",
    "InternalError",
    "ServiceUnavailable",
];

/// A reason with the life that a `Status` wants.
pub(super) fn known_reason(reason: &str) -> &'static str {
    REASONS.into_iter().find(|known| *known == reason).unwrap_or_default()
}

/// A webhook's answer, checked.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Why the write is refused, if it is.
    pub refused: Option<Status>,
    /// What is to be changed.
    pub patch: Option<json_patch::Patch>,
}

impl Verdict {
    /// Reads the answer to the request of this uid, and notes its warnings and annotations. The
    /// error says what is wrong with it.
    pub fn read(hook: &Hook, version: &str, uid: &str, answer: &Value) -> Result<Self, String> {
        let found = (&answer["apiVersion"], &answer["kind"]);
        let expected = review::api_version(version);
        if found.0 != expected.as_str() || found.1 != "AdmissionReview" {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(format!(
                "expected webhook response of {expected}, Kind=AdmissionReview, got {}, Kind={}",
                text(found.0),
                text(found.1)
            ));
        }
        let response = &answer["response"];
        if response.is_null() {
            return Err("webhook response was absent".to_owned());
        }
        let given = response["uid"].as_str().unwrap_or_default();
        if version == "v1" && given != uid {
            return Err(format!("expected response.uid={uid:?}, got {given:?}"));
        }
        let patch = patch_of(response, version)?;
        for (key, value) in response["auditAnnotations"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            notes::annotate(format!("{}/{key}", hook.name), value);
        }
        meta::strings(&response["warnings"]).into_iter().for_each(notes::warn);
        let refused =
            (response["allowed"] != true).then(|| refusal(&hook.name, &response["status"]));
        Ok(Verdict { refused, patch })
    }
}

fn patch_of(response: &Value, version: &str) -> Result<Option<json_patch::Patch>, String> {
    let (patch, kind) = (&response["patch"], &response["patchType"]);
    let patch = patch.as_str().filter(|patch| !patch.is_empty());
    match (patch, kind.as_str()) {
        (None, None) => Ok(None),
        (None, Some(_)) if version == "v1beta1" => Ok(None),
        (None, Some(_)) => {
            Err("webhook returned response.patchType but not response.patch".to_owned())
        }
        (Some(_), None) if version == "v1" => {
            Err("webhook returned response.patch but not response.patchType".to_owned())
        }
        (Some(_), Some(kind)) if kind != "JSONPatch" => {
            Err(format!("webhook returned invalid response.patchType of {kind:?}"))
        }
        (Some(patch), _) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(patch);
            let bytes = bytes.map_err(|error| format!("response.patch: {error}"))?;
            serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
        }
    }
}

/// The refusal that a webhook has put into its answer, with upstream's words around it.
fn refusal(name: &str, result: &Value) -> Status {
    let denied = format!("admission webhook {name:?} denied the request");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (message, reason) = (text(&result["message"]), text(&result["reason"]));
    let message = match (message.as_str(), reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let mut status = Status::new(code, known_reason(&reason), message);
    let details = &result["details"];
    if details.is_object() {
        let causes = details["causes"].as_array().into_iter().flatten();
        let cause = |cause: &Value| Cause {
            reason: text(&cause["reason"]),
            message: text(&cause["message"]),
            field: text(&cause["field"]),
        };
        status.details = Some(Box::new(Details {
            name: text(&details["name"]),
            group: text(&details["group"]),
            kind: text(&details["kind"]),
            uid: text(&details["uid"]),
            causes: causes.map(cause).collect(),
            retry_after_seconds: details["retryAfterSeconds"]
                .as_u64()
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or(0),
        }));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals_have_upstreams_words() {
        for (result, code, expected) in [
            (json!(null), 400, "admission webhook \"w\" denied the request without explanation"),
            (
                json!({"message": "no", "code": 403, "reason": "Forbidden"}),
                403,
                "admission webhook \"w\" denied the request: no",
            ),
            (
                json!({"reason": "Because", "code": 200}),
                400,
                "admission webhook \"w\" denied the request: Because",
            ),
        ] {
            let status = refusal("w", &result);
            assert_eq!((status.code, status.message.as_str()), (code, expected));
        }
    }

    #[test]
    fn patches_need_their_type() {
        let patch = base64::engine::general_purpose::STANDARD.encode("[]");
        let said = |response: Value, version: &str| match patch_of(&response, version) {
            Ok(patch) => patch.is_some().to_string(),
            Err(why) => why,
        };
        for (response, version, expected) in [
            (json!({}), "v1", "false"),
            (json!({"patch": patch, "patchType": "JSONPatch"}), "v1", "true"),
            (json!({"patch": patch}), "v1beta1", "true"),
            (
                json!({"patch": patch}),
                "v1",
                "webhook returned response.patch but not response.patchType",
            ),
            (
                json!({"patch": patch, "patchType": "Merge"}),
                "v1",
                "webhook returned invalid response.patchType of \"Merge\"",
            ),
        ] {
            assert_eq!(said(response, version), expected);
        }
    }
}
