//! Kinds that are questions: created, answered, never stored. May this user do that, what may
//! I do, who am I, whose token is this.

use std::sync::Arc;

use api::status::{FieldError, Status};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::authz::rbac::Rule;
use crate::authz::selectors::{self, Term};
use crate::authz::{Attributes, Decision, Selectors};
use crate::request::{Request, RequestInfo, Response};
use crate::response;
use crate::server::Context;
use crate::user::User;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    groups: Option<Vec<String>>,
    extra: Option<std::collections::BTreeMap<String, Vec<String>>>,
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceAttributes {
    field_selector: Option<Selector>,
    label_selector: Option<Selector>,
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
}

/// Which objects of a list are meant: a selector as it is written in a query, or taken apart.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    raw_selector: String,
    requirements: Option<Vec<Term>>,
}

impl Selector {
    /// What is wrong with it; `at` is its path.
    fn check(&self, at: &str) -> Option<FieldError> {
        let requirements = self.requirements.as_deref().unwrap_or_default();
        if !self.raw_selector.is_empty() && !requirements.is_empty() {
            let why = "may not specified at the same time as requirements";
            let raw = self.raw_selector.as_str();
            return Some(FieldError::invalid(format!("{at}.rawSelector"), raw, why));
        }
        if self.raw_selector.is_empty() && requirements.is_empty() {
            let why = format!("when {at} is specified, requirements or rawSelector is required");
            return Some(FieldError::required(format!("{at}.requirements"), why));
        }
        let wrong = |(index, one): (usize, &Term)| {
            let at = format!("{at}.requirements[{index}]");
            let values = one.values.len();
            match one.operator.as_str() {
                _ if one.key.is_empty() => {
                    Some(FieldError::required(format!("{at}.key"), "must be specified"))
                }
                "In" | "NotIn" if values == 0 => {
                    let why = "must be specified when `operator` is 'In' or 'NotIn'";
                    Some(FieldError::required(format!("{at}.values"), why))
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    Some(FieldError::forbidden(format!("{at}.values"), why))
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => None,
                other => {
                    let path = format!("{at}.operator");
                    Some(FieldError::invalid(path, other, "not a valid selector operator"))
                }
            }
        };
        requirements.iter().enumerate().find_map(wrong)
    }

    /// What of it an authorizer is asked with, and whether that is all: `read` reads one as it is
    /// written, `is_known` says which requirements there are.
    fn terms(
        &self,
        read: fn(&str) -> Option<Vec<Term>>,
        is_known: fn(&Term) -> bool,
    ) -> (Vec<Term>, bool) {
        if !self.raw_selector.is_empty() {
            let terms = read(&self.raw_selector);
            return (terms.clone().unwrap_or_default(), terms.is_some());
        }
        let all = self.requirements.as_deref().unwrap_or_default();
        let known: Vec<Term> = all.iter().filter(|term| is_known(term)).cloned().collect();
        let is_all = known.len() == all.len();
        (known, is_all)
    }
}

impl ResourceAttributes {
    /// The selectors, and what is said about parts of them that cannot be used.
    fn selectors(&self) -> (Selectors, Vec<String>) {
        let mut errors = Vec::new();
        let mut terms = |name: &str, selector: &Option<Selector>, read, is_known| {
            let Some(selector) = selector else { return Vec::new() };
            let (terms, is_all) = selector.terms(read, is_known);
            if !is_all {
                let partially = if terms.is_empty() { "" } else { "partially " };
                errors.push(format!(
                    "spec.resourceAttributes.{name} {partially}ignored due to parse error"
                ));
            }
            terms
        };
        let fields = terms(
            "fieldSelector",
            &self.field_selector,
            selectors::fields_of,
            selectors::is_of_field,
        );
        let labels = terms(
            "labelSelector",
            &self.label_selector,
            selectors::labels_of,
            selectors::is_of_label,
        );
        (Selectors { fields, labels }, errors)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

/// Whether a request creates a review.
pub(crate) fn is_review(info: &RequestInfo) -> bool {
    info.verb == "create"
        && info.subresource.is_empty()
        && matches!(
            (info.group.as_str(), info.version.as_str(), info.resource.as_str()),
            (
                "authorization.k8s.io",
                "v1",
                "selfsubjectaccessreviews"
                    | "subjectaccessreviews"
                    | "localsubjectaccessreviews"
                    | "selfsubjectrulesreviews"
            ) | ("authentication.k8s.io", "v1", "tokenreviews" | "selfsubjectreviews")
        )
}

/// Answers a review.
pub(crate) async fn handle(
    context: Arc<Context>,
    info: RequestInfo,
    user: User,
    request: Request,
) -> Response {
    let limit = context.config.limits.body_bytes;
    let row = api::resource::find(&info.group, &info.version, &info.resource);
    let kind = row.map_or("", |row| &*row.kind);
    let kind = (info.group.as_str(), info.version.as_str(), kind);
    let mut review = match crate::body::object(request, limit, kind).await {
        Ok(read) => read,
        Err(status) => return response::status(&status),
    };
    let answered = match info.resource.as_str() {
        "tokenreviews" => token(&context, &review).await,
        _ => {
            // A permission may have been given at another server.
            context.refreshed().await;
            answer(&context, &info, &user, &review).await
        }
    };
    match answered {
        Ok(status) => {
            review["metadata"]["creationTimestamp"] = Value::Null;
            review["status"] = status;
            response::json(StatusCode::CREATED, &review)
        }
        Err(status) => response::status(&status),
    }
}

async fn answer(
    context: &Context,
    info: &RequestInfo,
    user: &User,
    review: &Value,
) -> Result<Value, Status> {
    match info.resource.as_str() {
        "selfsubjectaccessreviews" => {
            let spec = access_spec(review)?;
            check_access(&spec, "SelfSubjectAccessReview")?;
            Ok(decide(context, user, &spec).await)
        }
        "selfsubjectrulesreviews" => rules(context, user, review),
        "selfsubjectreviews" => Ok(json!({"userInfo": user_info(user)})),
        local_or_not => {
            let spec = access_spec(review)?;
            let (local, kind) = match local_or_not {
                "localsubjectaccessreviews" => (true, "LocalSubjectAccessReview"),
                _ => (false, "SubjectAccessReview"),
            };
            check_access(&spec, kind)?;
            check_subject(&spec, kind)?;
            if local {
                check_local(&spec, &info.namespace)?;
            }
            let subject = User {
                name: spec.user.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone().unwrap_or_default(),
                extra: spec.extra.clone().unwrap_or_default(),
            };
            Ok(decide(context, &subject, &spec).await)
        }
    }
}

fn access_spec(review: &Value) -> Result<AccessSpec, Status> {
    serde_json::from_value(review["spec"].clone())
        .map_err(|error| Status::bad_request(format!("reading spec: {error}")))
}

fn invalid(kind: &str, error: FieldError) -> Status {
    Status::invalid(("authorization.k8s.io", kind), "", &[error])
}

fn check_access(spec: &AccessSpec, kind: &str) -> Result<(), Status> {
    let path = "spec.resourceAttributes";
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), Some(_)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            Err(invalid(kind, FieldError::invalid("spec.nonResourceAttributes", "", why)))
        }
        (None, None) => {
            let why =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(invalid(kind, FieldError::invalid(path, "", why)))
        }
        (Some(resource), None) => {
            let selectors = [
                ("fieldSelector", &resource.field_selector),
                ("labelSelector", &resource.label_selector),
            ];
            let wrong = selectors
                .into_iter()
                .find_map(|(name, selector)| selector.as_ref()?.check(&format!("{path}.{name}")));
            wrong.map_or(Ok(()), |error| Err(invalid(kind, error)))
        }
        _ => Ok(()),
    }
}

fn check_subject(spec: &AccessSpec, kind: &str) -> Result<(), Status> {
    if spec.user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        let why = "at least one of user or group must be specified";
        return Err(invalid(kind, FieldError::invalid("spec.user", "", why)));
    }
    Ok(())
}

fn check_local(spec: &AccessSpec, namespace: &str) -> Result<(), Status> {
    let kind = "LocalSubjectAccessReview";
    let Some(resource) = &spec.resource_attributes else {
        let why = "disallowed on this kind of request";
        return Err(invalid(kind, FieldError::invalid("spec.nonResourceAttributes", "", why)));
    };
    if resource.namespace != namespace {
        let path = "spec.resourceAttributes.namespace";
        let found = resource.namespace.as_str();
        let error = FieldError::invalid(path, found, "must match metadata.namespace");
        return Err(invalid(kind, error));
    }
    Ok(())
}

async fn decide(context: &Context, user: &User, spec: &AccessSpec) -> Value {
    let mut want = Attributes::on(user, "", "", "");
    let resource = spec.resource_attributes.as_ref();
    let (selectors, ignored) = resource.map(ResourceAttributes::selectors).unwrap_or_default();
    if let Some(resource) = &spec.resource_attributes {
        want = Attributes::on(user, &resource.verb, &resource.group, &resource.resource);
        want.version = if resource.version.is_empty() { "*" } else { &resource.version };
        want.subresource = &resource.subresource;
        want.namespace = &resource.namespace;
        want.name = &resource.name;
        want.selectors = &selectors;
    } else if let Some(plain) = &spec.non_resource_attributes {
        want.is_resource = false;
        want.verb = &plain.verb;
        want.path = &plain.path;
    }
    let Decision { allowed, denied, reason, error } = context.decide(&want).await;
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = true.into();
    }
    let errors = [error].into_iter().filter(|error| !error.is_empty()).chain(ignored);
    let error = errors.collect::<Vec<_>>().join("; ");
    for (field, text) in [("reason", reason), ("evaluationError", error)] {
        if !text.is_empty() {
            status[field] = text.into();
        }
    }
    status
}

fn rules(context: &Context, user: &User, review: &Value) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, errors) = context.authorizer.rules_for(user, namespace);
    let resource_rules: Vec<Value> =
        rules.iter().filter(|rule| !rule.resources.is_empty()).map(resource_rule).collect();
    let other_rules: Vec<Value> = rules
        .iter()
        .filter(|rule| !rule.non_resource_urls.is_empty())
        .map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}))
        .collect();
    let mut status = json!({
        "resourceRules": resource_rules,
        "nonResourceRules": other_rules,
        "incomplete": !errors.is_empty(),
    });
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    Ok(status)
}

fn resource_rule(rule: &Rule) -> Value {
    let mut value = json!({
        "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources,
    });
    if !rule.resource_names.is_empty() {
        value["resourceNames"] = json!(rule.resource_names);
    }
    value
}

/// A user as reviews and audit events show it.
pub(crate) fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

async fn token(context: &Context, review: &Value) -> Result<Value, Status> {
    let spec = &review["spec"];
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let audiences = if asked.is_empty() { context.tokens.audiences() } else { &asked };
    Ok(match context.token_user(token, audiences).await {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Err(error) => json!({"user": {}, "error": error.to_string()}),
    })
}
