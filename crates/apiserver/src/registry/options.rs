//! What a request asks for beside its path: the query parameters of `ListOptions`,
//! `CreateOptions` and their kin, and the body of `DeleteOptions`.

use std::time::Duration;

use api::status::{FieldError, Status};
use serde_json::{Value, json};

use super::Outcome;
use super::call::MANAGER_MAX_BYTES;
use crate::request::{is_on, query_true, query_value};

/// How unknown and repeated fields of a body are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Dropped in silence.
    Ignore,
    /// Dropped, and told in `Warning` headers.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// How a list's `resourceVersion` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// This revision and no other.
    Exact,
    /// This revision or a newer one.
    NotOlderThan,
}

/// The query of a get, list or watch.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Label selector as sent.
    pub labels: String,
    /// Field selector as sent.
    pub fields: String,
    /// Most items wanted in one answer; `None` for all.
    pub limit: Option<usize>,
    /// Token of the page before.
    pub continue_token: String,
    /// `resourceVersion` as sent.
    pub resource_version: String,
    /// `resourceVersionMatch`, checked.
    pub version_match: Option<VersionMatch>,
    /// After this time a watch ends.
    pub timeout: Option<Duration>,
    /// Whether bookmark events are wanted.
    pub bookmarks: bool,
    /// Whether a watch begins with what is there, closed by a bookmark.
    pub send_initial_events: Option<bool>,
}

/// The query of a write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Do everything but the write.
    pub dry_run: bool,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// Who owns the fields that the write sets; derived from the user agent where empty.
    pub field_manager: String,
    /// Take fields over from other managers (apply only).
    pub force: bool,
}

/// `metav1.DeleteOptions`, from the body or the query.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds to wait for an orderly end; `None` for the kind's own default.
    pub grace_period_seconds: Option<i64>,
    /// Only this object.
    pub uid: Option<String>,
    /// Only this version of the object.
    pub resource_version: Option<String>,
    /// Deprecated form of the propagation policy.
    pub orphan_dependents: Option<bool>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<String>,
    /// Do everything but the write.
    pub dry_run: bool,
}

/// 422 about options, where there is anything wrong with them.
fn refuse(kind: &str, errors: &[FieldError]) -> Outcome<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(("meta.k8s.io", kind), "", errors))
}

/// A parameter that is a number.
fn number(query: &str, key: &str) -> Outcome<Option<i64>> {
    let Some(text) = query_value(query, key).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = |_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
    text.parse().map(Some).map_err(wrong).map_err(Status::bad_request)
}

const MATCH: &str = "resourceVersionMatch";
const INITIAL: &str = "sendInitialEvents";
const WITH_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";

impl ListOptions {
    /// Reads the query of a list (`watch` false) or a watch.
    pub fn parse(query: &str, watch: bool) -> Outcome<Self> {
        let value = |key: &str| query_value(query, key).unwrap_or_default();
        let how = value(MATCH);
        let options = ListOptions {
            labels: value("labelSelector"),
            fields: value("fieldSelector"),
            limit: number(query, "limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
            continue_token: value("continue"),
            resource_version: value("resourceVersion"),
            version_match: match how.as_str() {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            timeout: number(query, "timeoutSeconds")?
                .and_then(|n| u64::try_from(n).ok())
                .filter(|n| *n > 0)
                .map(Duration::from_secs),
            bookmarks: query_true(query, "allowWatchBookmarks"),
            send_initial_events: query_value(query, INITIAL).map(|_| query_true(query, INITIAL)),
        };
        let errors = if watch { options.watch_errors(&how) } else { options.list_errors(&how) };
        refuse("ListOptions", &errors)?;
        Ok(options)
    }

    /// Whether a page before this one was read.
    pub fn is_continued(&self) -> bool {
        !self.continue_token.is_empty()
    }

    fn list_errors(&self, how: &str) -> Vec<FieldError> {
        let known = self.version_match.is_some();
        let exact_of_any =
            self.version_match == Some(VersionMatch::Exact) && self.resource_version == "0";
        let mut errors = Vec::new();
        for (wrong, why) in [
            (
                self.resource_version.is_empty(),
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (self.is_continued(), WITH_CONTINUE),
        ] {
            errors.extend((wrong && !how.is_empty()).then(|| FieldError::forbidden(MATCH, why)));
        }
        if !how.is_empty() && !known {
            let supported = ["Exact", "NotOlderThan", ""];
            errors.push(FieldError::not_supported(MATCH, how, &supported));
        }
        if exact_of_any {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if self.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            errors.push(FieldError::forbidden(INITIAL, why));
        }
        errors
    }

    fn watch_errors(&self, how: &str) -> Vec<FieldError> {
        let not_older = self.version_match == Some(VersionMatch::NotOlderThan);
        let mut errors = Vec::new();
        if self.send_initial_events.is_some() && !not_older {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if how.is_empty() {
            return errors;
        }
        if self.send_initial_events.is_none() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if !not_older {
            errors.push(FieldError::not_supported(MATCH, how, &["NotOlderThan"]));
        }
        if self.is_continued() {
            errors.push(FieldError::forbidden(MATCH, WITH_CONTINUE));
        }
        errors
    }
}

/// Whether nothing is to be written; all values have to say so.
fn dry_run(values: impl Iterator<Item = String>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<String> = values.collect();
    if values.iter().any(|value| value != "All") {
        errors.push(FieldError::not_supported("dryRun", json!(values), &["All"]));
    }
    !values.is_empty()
}

fn query_values<'a>(query: &'a str, key: &'a str) -> impl Iterator<Item = String> + 'a {
    form_urlencoded::parse(query.as_bytes())
        .filter(move |(name, _)| name == key)
        .map(|(_, value)| value.into_owned())
}

/// A manager's name is short and printable.
fn manager_errors(name: &str, errors: &mut Vec<FieldError>) {
    if name.len() > MANAGER_MAX_BYTES {
        errors.push(FieldError::too_long("fieldManager", MANAGER_MAX_BYTES));
    }
    if let Some((at, _)) = name.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("should only contain printable characters (error position: {at})");
        errors.push(FieldError::invalid("fieldManager", name, why));
    }
}

impl WriteOptions {
    /// Reads the query of a create, update or patch; `kind` is `CreateOptions` and so on.
    pub fn parse(query: &str, kind: &str) -> Outcome<Self> {
        Self::parse_for(query, kind, None)
    }

    /// The same of a patch, which is or is not an apply.
    pub fn of_patch(query: &str, apply: bool) -> Outcome<Self> {
        Self::parse_for(query, "PatchOptions", Some(apply))
    }

    fn parse_for(query: &str, kind: &str, apply: Option<bool>) -> Outcome<Self> {
        let mut errors = Vec::new();
        let field_manager = query_value(query, "fieldManager").unwrap_or_default();
        let force = query_value(query, "force");
        match apply {
            Some(true) if field_manager.is_empty() => {
                errors.push(FieldError::required("fieldManager", "is required for apply patch"));
            }
            Some(false) if force.is_some() => {
                let why = "may not be specified for non-apply patch";
                errors.push(FieldError::forbidden("force", why));
            }
            _ => {}
        }
        manager_errors(&field_manager, &mut errors);
        let dry_run = dry_run(query_values(query, "dryRun"), &mut errors);
        let wanted = query_value(query, "fieldValidation").unwrap_or_default();
        let field_validation = match wanted.as_str() {
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            "" | "Warn" => FieldValidation::Warn,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", other, &supported));
                FieldValidation::Warn
            }
        };
        refuse(kind, &errors)?;
        let force = force.is_some_and(|force| is_on(&force));
        Ok(WriteOptions { dry_run, field_validation, field_manager, force })
    }
}

impl DeleteOptions {
    /// As admission webhooks see them.
    pub fn review(&self) -> Value {
        let mut options = crate::admission::options("DeleteOptions", "", self.dry_run);
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                options[field] = value;
            }
        };
        set("gracePeriodSeconds", self.grace_period_seconds.map(Value::from));
        set("orphanDependents", self.orphan_dependents.map(Value::from));
        set("propagationPolicy", self.propagation_policy.clone().map(Value::from));
        if self.uid.is_some() || self.resource_version.is_some() {
            let preconditions =
                serde_json::json!({"uid": self.uid, "resourceVersion": self.resource_version});
            set("preconditions", Some(preconditions));
        }
        options
    }

    /// Reads the options of a delete: from its body, and from the query only where there is none.
    pub fn parse(query: &str, body: Option<&Value>) -> Outcome<Self> {
        let (mut options, asked) = match body {
            Some(body) => Self::of_body(body),
            None => Self::of_query(query)?,
        };
        let mut errors = Vec::new();
        options.policy_errors(&mut errors);
        options.dry_run = dry_run(asked.into_iter(), &mut errors);
        refuse("DeleteOptions", &errors)?;
        Ok(options)
    }

    /// What a body says, and its `dryRun` as sent.
    fn of_body(body: &Value) -> (Self, Vec<String>) {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let options = DeleteOptions {
            grace_period_seconds: body["gracePeriodSeconds"].as_i64(),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            orphan_dependents: body["orphanDependents"].as_bool(),
            propagation_policy: text(&body["propagationPolicy"]),
            dry_run: false,
        };
        (options, super::meta::strings(&body["dryRun"]))
    }

    /// The same of a query.
    fn of_query(query: &str) -> Outcome<(Self, Vec<String>)> {
        let given = |key: &str| query_value(query, key).filter(|value| !value.is_empty());
        let options = DeleteOptions {
            grace_period_seconds: number(query, "gracePeriodSeconds")?,
            uid: given("uid"),
            resource_version: given("resourceVersion"),
            orphan_dependents: query_value(query, "orphanDependents").map(|text| is_on(&text)),
            propagation_policy: query_value(query, "propagationPolicy"),
            dry_run: false,
        };
        Ok((options, query_values(query, "dryRun").collect()))
    }

    fn policy_errors(&self, errors: &mut Vec<FieldError>) {
        const FIELD: &str = "propagationPolicy";
        let Some(policy) = &self.propagation_policy else { return };
        if self.orphan_dependents.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(FIELD, policy.as_str(), why));
        }
        if !matches!(policy.as_str(), "Orphan" | "Background" | "Foreground") {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(FIELD, policy.as_str(), &supported));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn list_options_that_do_not_fit_are_refused() {
        const UNLESS: &str = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
        const CONTINUED: &str = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
        const WATCH: &str = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        const REQUIRES: &str = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        for (query, watch, expected) in [
            ("resourceVersionMatch=Exact", false, &[UNLESS][..]),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                false,
                &[
                    "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ],
            ),
            (
                "resourceVersionMatch=Near",
                false,
                &[
                    UNLESS,
                    "resourceVersionMatch: Unsupported value: \"Near\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
                ],
            ),
            ("resourceVersion=3&resourceVersionMatch=Exact&continue=x", false, &[CONTINUED]),
            ("resourceVersionMatch=Exact&continue=x", false, &[UNLESS, CONTINUED]),
            ("resourceVersion=3&resourceVersionMatch=Exact", false, &[]),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", false, &[]),
            ("sendInitialEvents=true", true, &[REQUIRES]),
            ("sendInitialEvents=false", true, &[REQUIRES]),
            (
                "sendInitialEvents=true&resourceVersionMatch=Exact",
                true,
                &[
                    REQUIRES,
                    "resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"",
                ],
            ),
            ("resourceVersionMatch=NotOlderThan", true, &[WATCH]),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, &[]),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
                true,
                &[CONTINUED],
            ),
            (
                "sendInitialEvents=true",
                false,
                &["sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"],
            ),
        ] {
            let found = match ListOptions::parse(query, watch) {
                Ok(_) => Vec::new(),
                Err(status) => {
                    let details = status.details.unwrap();
                    assert_eq!((&*details.group, &*details.kind), ("meta.k8s.io", "ListOptions"));
                    let lines =
                        details.causes.iter().map(|c| format!("{}: {}", c.field, c.message));
                    lines.collect()
                }
            };
            assert_eq!(found, expected, "{query}");
        }
        let refused = |query: &str| ListOptions::parse(query, false).unwrap_err();
        for query in ["limit=x", "timeoutSeconds=x"] {
            let status = refused(query);
            assert_eq!(
                (status.code, &*status.message),
                (400, "strconv.ParseInt: parsing \"x\": invalid syntax")
            );
        }
        assert_eq!(ListOptions::parse("limit=5", false).unwrap().limit, Some(5));
    }

    #[test]
    fn write_options_that_do_not_fit_are_refused() {
        let long = format!("fieldManager={}", "x".repeat(MANAGER_MAX_BYTES + 1));
        for (query, apply, expected) in [
            ("dryRun=All&fieldManager=a&fieldValidation=Strict", None, ""),
            ("dryRun=foo", None, "dryRun: Unsupported value: [\"foo\"]: supported values: \"All\""),
            (
                "fieldValidation=Foo",
                None,
                "fieldValidation: Unsupported value: \"Foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (&long, None, "fieldManager: Too long: may not be more than 128 bytes"),
            (
                "fieldManager=a%0Ab",
                None,
                "fieldManager: Invalid value: \"a\\nb\": should only contain printable characters (error position: 1)",
            ),
            ("", Some(true), "fieldManager: Required value: is required for apply patch"),
            (
                "force=true",
                Some(false),
                "force: Forbidden: may not be specified for non-apply patch",
            ),
            ("force=true&fieldManager=a", Some(true), ""),
        ] {
            let parsed = match apply {
                None => WriteOptions::parse(query, "CreateOptions"),
                Some(apply) => WriteOptions::of_patch(query, apply),
            };
            let found = parsed.err().map(|status| status.message).unwrap_or_default();
            let found = found.split_once("is invalid: ").map_or("", |(_, why)| why);
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn delete_options_come_from_the_body_or_else_from_the_query() {
        let query = "gracePeriodSeconds=9&propagationPolicy=Orphan&dryRun=All&uid=v";
        let body = json!({"gracePeriodSeconds": 3, "preconditions": {"uid": "u"}});
        let options = DeleteOptions::parse(query, Some(&body)).unwrap();
        assert_eq!((options.grace_period_seconds, options.uid.as_deref()), (Some(3), Some("u")));
        assert_eq!((options.propagation_policy, options.dry_run), (None, false));
        let options = DeleteOptions::parse(query, None).unwrap();
        assert_eq!((options.grace_period_seconds, options.uid.as_deref()), (Some(9), Some("v")));
        assert_eq!(
            (options.propagation_policy.as_deref(), options.dry_run),
            (Some("Orphan"), true)
        );
        assert!(DeleteOptions::parse("propagationPolicy=Slow", None).is_err());
        assert!(
            DeleteOptions::parse("propagationPolicy=Orphan&orphanDependents=true", None).is_err()
        );
    }
}
