//! What a request asks for beside its path: the query parameters of `ListOptions`,
//! `CreateOptions` and their kin, and the body of `DeleteOptions`.

use std::time::Duration;

use serde_json::Value;

use super::call::MANAGER_MAX_BYTES;
use crate::request::{query_true, query_value};

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

/// Upstream's sentence for options that do not fit together or do not parse.
fn invalid(kind: &str, detail: &str) -> String {
    format!("{kind}.meta.k8s.io \"\" is invalid: {detail}")
}

impl ListOptions {
    /// Reads the query of a list (`watch` false) or a watch.
    pub fn parse(query: &str, watch: bool) -> Result<Self, String> {
        let value = |key: &str| query_value(query, key).unwrap_or_default();
        let number = |key: &str| match value(key) {
            text if text.is_empty() => Ok(None),
            text => text
                .parse::<i64>()
                .map(Some)
                .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
        };
        let version_match = match value("resourceVersionMatch").as_str() {
            "" => None,
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            other => {
                let detail = format!(
                    "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
                );
                return Err(invalid("ListOptions", &detail));
            }
        };
        let options = ListOptions {
            labels: value("labelSelector"),
            fields: value("fieldSelector"),
            limit: number("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
            continue_token: value("continue"),
            resource_version: value("resourceVersion"),
            version_match,
            timeout: number("timeoutSeconds")?
                .and_then(|n| u64::try_from(n).ok())
                .filter(|n| *n > 0)
                .map(Duration::from_secs),
            bookmarks: query_true(query, "allowWatchBookmarks"),
            send_initial_events: query_value(query, "sendInitialEvents")
                .map(|_| query_true(query, "sendInitialEvents")),
        };
        options.check(watch).map_err(|detail| invalid("ListOptions", &detail))?;
        Ok(options)
    }

    fn check(&self, watch: bool) -> Result<(), String> {
        if watch {
            return self.check_watch();
        }
        if self.send_initial_events.is_some() {
            return Err(
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".into()
            );
        }
        let Some(how) = self.version_match else { return Ok(()) };
        if self.resource_version.is_empty() {
            return Err("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided".into());
        }
        if !self.continue_token.is_empty() {
            return Err("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided".into());
        }
        if how == VersionMatch::Exact && self.resource_version == "0" {
            return Err("resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"".into());
        }
        Ok(())
    }

    fn check_watch(&self) -> Result<(), String> {
        match (self.send_initial_events, self.version_match) {
            (Some(_), None) => Err("resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan".into()),
            (Some(_), Some(VersionMatch::NotOlderThan)) if self.bookmarks || self.send_initial_events == Some(false) => Ok(()),
            (Some(_), Some(VersionMatch::NotOlderThan)) => Err("allowWatchBookmarks: Forbidden: sendInitialEvents requires setting allowWatchBookmarks to true".into()),
            (Some(_), Some(VersionMatch::Exact)) => Err("resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"".into()),
            (None, Some(_)) => Err("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided".into()),
            (None, None) => Ok(()),
        }
    }
}

fn dry_run(values: impl Iterator<Item = String>, kind: &str) -> Result<bool, String> {
    let mut dry = false;
    for value in values {
        if value != "All" {
            let detail = format!("dryRun: Unsupported value: {value:?}: supported values: \"All\"");
            return Err(invalid(kind, &detail));
        }
        dry = true;
    }
    Ok(dry)
}

fn query_values<'a>(query: &'a str, key: &'a str) -> impl Iterator<Item = String> + 'a {
    form_urlencoded::parse(query.as_bytes())
        .filter(move |(name, _)| name == key)
        .map(|(_, value)| value.into_owned())
}

/// A manager's name is short and printable.
fn check_manager(name: &str) -> Result<(), String> {
    if name.len() > MANAGER_MAX_BYTES {
        return Err(format!(
            "fieldManager: Too long: may not be more than {MANAGER_MAX_BYTES} bytes"
        ));
    }
    match name.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(format!(
            "fieldManager: Invalid value: {}: should only contain printable characters (error position: {at})",
            api::status::go_quote(name)
        )),
        None => Ok(()),
    }
}

impl WriteOptions {
    /// Reads the query of a create, update or patch; `kind` is `CreateOptions` and so on.
    pub fn parse(query: &str, kind: &str) -> Result<Self, String> {
        let field_validation = match query_value(query, "fieldValidation")
            .unwrap_or_default()
            .as_str()
        {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let detail = format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Warn\", \"Strict\""
                );
                return Err(invalid(kind, &detail));
            }
        };
        let field_manager = query_value(query, "fieldManager").unwrap_or_default();
        check_manager(&field_manager).map_err(|detail| invalid(kind, &detail))?;
        Ok(WriteOptions {
            dry_run: dry_run(query_values(query, "dryRun"), kind)?,
            field_validation,
            field_manager,
            force: query_true(query, "force"),
        })
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

    /// Reads the body of a delete, and the query for what the body does not say.
    pub fn parse(query: &str, body: Option<&Value>) -> Result<Self, String> {
        let empty = Value::Null;
        let body = body.unwrap_or(&empty);
        let in_query = |key: &str| query_value(query, key);
        let grace = match body["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => in_query("gracePeriodSeconds")
                .map(|text| {
                    text.parse()
                        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
                })
                .transpose()?,
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let in_body = super::meta::strings(&body["dryRun"]);
        let options = DeleteOptions {
            grace_period_seconds: grace,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            orphan_dependents: body["orphanDependents"].as_bool().or_else(|| {
                in_query("orphanDependents").map(|_| query_true(query, "orphanDependents"))
            }),
            propagation_policy: text(&body["propagationPolicy"])
                .or_else(|| in_query("propagationPolicy")),
            dry_run: dry_run(
                in_body.into_iter().chain(query_values(query, "dryRun")),
                "DeleteOptions",
            )?,
        };
        options.check().map_err(|detail| invalid("DeleteOptions", &detail))?;
        Ok(options)
    }

    fn check(&self) -> Result<(), String> {
        let Some(policy) = &self.propagation_policy else { return Ok(()) };
        if self.orphan_dependents.is_some() {
            return Err(format!(
                "propagationPolicy: Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set"
            ));
        }
        if !matches!(policy.as_str(), "Orphan" | "Background" | "Foreground") {
            return Err(format!(
                "propagationPolicy: Unsupported value: {policy:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn list_options_that_do_not_fit_are_refused() {
        for (query, watch, expected) in [
            ("resourceVersionMatch=Exact", false, "unless resourceVersion is provided"),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                false,
                "is forbidden for resourceVersion \"0\"",
            ),
            ("resourceVersion=3&resourceVersionMatch=Near", false, "Unsupported value: \"Near\""),
            (
                "resourceVersion=3&resourceVersionMatch=Exact&continue=x",
                false,
                "when continue is provided",
            ),
            ("sendInitialEvents=true", true, "requires setting resourceVersionMatch"),
            ("sendInitialEvents=true", false, "forbidden for list"),
            ("limit=x", false, "invalid syntax"),
        ] {
            let error = ListOptions::parse(query, watch).unwrap_err();
            assert!(error.contains(expected), "{query}: {error}");
        }
        assert_eq!(ListOptions::parse("limit=5", false).unwrap().limit, Some(5));
    }

    #[test]
    fn delete_options_come_from_body_then_query() {
        let body = json!({"gracePeriodSeconds": 3, "preconditions": {"uid": "u"}});
        let options =
            DeleteOptions::parse("gracePeriodSeconds=9&propagationPolicy=Orphan", Some(&body))
                .unwrap();
        assert_eq!(options.grace_period_seconds, Some(3));
        assert_eq!(options.uid.as_deref(), Some("u"));
        assert_eq!(options.propagation_policy.as_deref(), Some("Orphan"));
        assert!(DeleteOptions::parse("propagationPolicy=Slow", None).is_err());
        assert!(
            DeleteOptions::parse("propagationPolicy=Orphan&orphanDependents=true", None).is_err()
        );
    }
}
