//! `Status`: the answer of the API when something fails (and of deletions that succeed).
//!
//! Clients match on code, reason and details, people on the message; all four are upstream's
//! (`k8s.io/apimachinery/pkg/api/errors`), word for word.

mod field;

pub(crate) use field::aggregate;
pub use field::{FieldError, FieldErrorKind, Path, go_print, go_quote};

use crate::resource::Resource;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A failed (or, for deletions, successful) request. Serialises to the `v1` `Status` object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, for instance `NotFound`; empty for a success.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// What was concerned and why, in parts.
    pub details: Option<Box<Details>>,
    /// Token to go on listing with, sent along with `Expired` where that is possible.
    pub continue_token: Option<String>,
}

/// What a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Plural resource name, or the kind for invalid objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Single causes, for instance one for each invalid field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which the client may try again; 0 means it is not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// One cause of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Machine-readable kind, for instance `FieldValueRequired`.
    #[serde(rename = "reason", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What a person reads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, for instance `spec.containers[0].image`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A group with a plural resource name or a kind: what a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// Plural resource name or kind.
    pub name: &'a str,
}

impl<'a> From<&'a Resource> for Subject<'a> {
    fn from(resource: &'a Resource) -> Self {
        Self { group: &resource.group, name: &resource.plural }
    }
}

impl<'a> From<(&'a str, &'a str)> for Subject<'a> {
    fn from((group, name): (&'a str, &'a str)) -> Self {
        Self { group, name }
    }
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

impl Subject<'_> {
    fn details(&self, name: &str) -> Details {
        Details {
            name: name.to_owned(),
            group: self.group.to_owned(),
            kind: self.name.to_owned(),
            ..Details::default()
        }
    }
}

/// Text of the conflict that a stale `resourceVersion` causes.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Status {
    /// A failure with this code, reason and message and no details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: None }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The same telling the client to wait.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Answer to a deletion that is complete.
    pub fn deleted<'a>(resource: impl Into<Subject<'a>>, name: &str, uid: &str) -> Self {
        let details = Details { uid: uid.to_owned(), ..resource.into().details(name) };
        Self::new(200, "", "").with_details(details)
    }

    /// 404: no object of that name.
    pub fn not_found<'a>(resource: impl Into<Subject<'a>>, name: &str) -> Self {
        let subject = resource.into();
        Self::new(404, "NotFound", format!("{subject} {} not found", go_quote(name)))
            .with_details(subject.details(name))
    }

    /// 404: nothing is served at that path.
    pub fn unknown_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
            .with_details(Details::default())
    }

    /// 409: an object of that name exists.
    pub fn already_exists<'a>(resource: impl Into<Subject<'a>>, name: &str) -> Self {
        let subject = resource.into();
        Self::new(409, "AlreadyExists", format!("{subject} {} already exists", go_quote(name)))
            .with_details(subject.details(name))
    }

    /// 409: `generateName` met a taken name every time.
    pub fn generate_name_conflict<'a>(resource: impl Into<Subject<'a>>, name: &str) -> Self {
        let subject = resource.into();
        let message = format!(
            "{subject} {} already exists, the server was not able to generate a unique name for the object",
            go_quote(name)
        );
        Self::new(409, "AlreadyExists", message)
            .with_details(subject.details(name))
            .with_retry_after(1)
    }

    /// 409: the object is not in the state the request asks for; see [`MODIFIED`].
    pub fn conflict<'a>(resource: impl Into<Subject<'a>>, name: &str, why: &str) -> Self {
        let subject = resource.into();
        let message =
            format!("Operation cannot be fulfilled on {subject} {}: {why}", go_quote(name));
        Self::new(409, "Conflict", message).with_details(subject.details(name))
    }

    /// 409: server-side apply would take fields away from other managers.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        Self::new(409, "Conflict", message).with_details(Details { causes, ..Details::default() })
    }

    /// 422: the object breaks a rule; one cause for each error. `kind` is the group and kind.
    pub fn invalid<'a>(kind: impl Into<Subject<'a>>, name: &str, errors: &[FieldError]) -> Self {
        let subject = kind.into();
        let mut message = format!("{subject} {} is invalid", go_quote(name));
        if !errors.is_empty() {
            message.push_str(": ");
            message.push_str(&aggregate(errors));
        }
        let causes = errors.iter().map(Cause::from).collect();
        Self::new(422, "Invalid", message).with_details(Details { causes, ..subject.details(name) })
    }

    /// 403. An empty name stands for the whole resource, an empty subject for a plain path.
    pub fn forbidden<'a>(resource: impl Into<Subject<'a>>, name: &str, why: &str) -> Self {
        let subject = resource.into();
        let message = match (subject.name, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{subject} is forbidden: {why}"),
            _ => format!("{subject} {} is forbidden: {why}", go_quote(name)),
        };
        Self::new(403, "Forbidden", message).with_details(subject.details(name))
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405: the resource does not know that verb.
    pub fn method_not_allowed<'a>(resource: impl Into<Subject<'a>>, action: &str) -> Self {
        let subject = resource.into();
        let message = format!(
            "{action} is not supported on resources of kind {}",
            go_quote(&subject.to_string())
        );
        Self::new(405, "MethodNotAllowed", message).with_details(subject.details(""))
    }

    /// 410: that resource version is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410: a watch cannot go on from that revision.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    /// 406: none of the media types the client accepts is served.
    pub fn not_acceptable(served: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", served.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: the request's body is in none of the known formats.
    pub fn unsupported_media_type(served: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            served.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413.
    pub fn request_entity_too_large(why: &str) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {why}"))
    }

    /// 500.
    pub fn internal_error(why: &str) -> Self {
        let causes = vec![Cause { message: why.to_owned(), ..Cause::default() }];
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
            .with_details(Details { causes, ..Details::default() })
    }

    /// 504: the request ran out of time; it may still complete.
    pub fn timeout(why: &str) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {why}")).with_details(Details::default())
    }

    /// 500: a passing fault; the client should try again.
    pub fn server_timeout<'a>(resource: impl Into<Subject<'a>>, operation: &str) -> Self {
        let subject = resource.into();
        let message = format!(
            "The {operation} operation against {subject} could not be completed at this time, please try again."
        );
        Self::new(500, "ServerTimeout", message).with_details(subject.details(operation))
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after_seconds)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// Whether this reports a failure.
    pub fn is_failure(&self) -> bool {
        self.code >= 400
    }

    /// The object as JSON, with upstream's order of fields.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct ListMeta<'a> {
            #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
            continue_token: &'a Option<String>,
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", "Status")?;
        map.serialize_entry("apiVersion", "v1")?;
        map.serialize_entry("metadata", &ListMeta { continue_token: &self.continue_token })?;
        map.serialize_entry("status", if self.is_failure() { "Failure" } else { "Success" })?;
        if !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        if !self.reason.is_empty() {
            map.serialize_entry("reason", self.reason)?;
        }
        if let Some(details) = &self.details {
            map.serialize_entry("details", details)?;
        }
        if self.is_failure() {
            map.serialize_entry("code", &self.code)?;
        }
        map.end()
    }
}

impl From<&FieldError> for Cause {
    fn from(error: &FieldError) -> Self {
        Self {
            reason: error.kind.reason().to_owned(),
            message: error.body(),
            field: error.path.clone(),
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let deployments = ("apps", "deployments");
        for (status, expected) in [
            (Status::not_found(("", "pods"), "x"), r#"404 NotFound: pods "x" not found"#),
            (
                Status::already_exists(deployments, "x"),
                r#"409 AlreadyExists: deployments.apps "x" already exists"#,
            ),
            (
                Status::conflict(("", "pods"), "x", MODIFIED),
                r#"409 Conflict: Operation cannot be fulfilled on pods "x": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                Status::forbidden(deployments, "", "no"),
                "403 Forbidden: deployments.apps is forbidden: no",
            ),
            (
                Status::forbidden(("", "pods"), "x", "no"),
                r#"403 Forbidden: pods "x" is forbidden: no"#,
            ),
            (Status::forbidden(("", ""), "", "no"), "403 Forbidden: forbidden: no"),
            (
                Status::method_not_allowed(("", "bindings"), "list"),
                r#"405 MethodNotAllowed: list is not supported on resources of kind "bindings""#,
            ),
            (
                Status::request_entity_too_large("limit is 3145728"),
                "413 RequestEntityTooLarge: Request entity too large: limit is 3145728",
            ),
            (Status::internal_error("x"), "500 InternalError: Internal error occurred: x"),
            (Status::timeout("x"), "504 Timeout: Timeout: x"),
        ] {
            assert_eq!(format!("{} {}: {status}", status.code, status.reason), expected);
        }
    }

    #[test]
    fn serialises_in_upstreams_order() {
        let json = |status: Status| String::from_utf8(status.to_json()).unwrap();
        assert_eq!(
            json(Status::not_found(("", "pods"), "x")),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"x\" not found","reason":"NotFound","details":{"name":"x","kind":"pods"},"code":404}"#
        );
        assert_eq!(
            json(Status::deleted(("apps", "deployments"), "x", "u")),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"x","group":"apps","kind":"deployments","uid":"u"}}"#
        );
        let invalid = Status::invalid(
            ("", "Pod"),
            "x",
            &[FieldError::required("spec.containers[0].image", "")],
        );
        assert_eq!(
            json(invalid),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Pod \"x\" is invalid: spec.containers[0].image: Required value","reason":"Invalid","details":{"name":"x","kind":"Pod","causes":[{"reason":"FieldValueRequired","message":"Required value","field":"spec.containers[0].image"}]},"code":422}"#
        );
    }
}
