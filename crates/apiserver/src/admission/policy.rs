//! Admission policies as they are written: what they are about, and the expressions that decide.

use std::sync::Arc;

use api::selector::LabelSelector;
use api::status::Status;
use expression::Language;
use serde_json::Value;
use store::Store;

use super::Attributes;
use super::rules::{Matcher, View};
use super::scene::{Compiled, Named, compiled};
use crate::cached;
use crate::registry::{Outcome, meta};

/// Collections of validating policies and of their bindings.
pub(super) const VALIDATING: [&str; 2] = [
    "admissionregistration.k8s.io/validatingadmissionpolicies",
    "admissionregistration.k8s.io/validatingadmissionpolicybindings",
];
/// Collections of mutating policies and of their bindings.
pub(super) const MUTATING: [&str; 2] = [
    "admissionregistration.k8s.io/mutatingadmissionpolicies",
    "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
];

/// A rule of a validating policy.
#[derive(Debug)]
pub(super) struct Rule {
    pub source: String,
    pub program: Compiled,
    pub message: String,
    pub message_program: Option<Compiled>,
    pub reason: String,
}

/// A change that a mutating policy makes.
#[derive(Debug)]
pub(super) struct Mutation {
    pub source: String,
    pub program: Compiled,
    /// A JSON patch, not a configuration to apply.
    pub is_patch: bool,
}

/// A policy with its bindings.
#[derive(Debug)]
pub(super) struct Policy {
    pub name: String,
    pub matcher: Matcher,
    pub conditions: Vec<Named>,
    pub variables: Vec<Named>,
    pub rules: Vec<Rule>,
    pub annotations: Vec<Named>,
    pub mutations: Vec<Mutation>,
    /// Whether a write passes where an expression has no value.
    pub ignores_failure: bool,
    /// `apiVersion` and kind of parameters.
    param_kind: Option<(String, String)>,
    pub bindings: Vec<Binding>,
    /// Whether it wants to see what others change after it.
    pub again: bool,
}

/// Where a policy holds, and with which parameters.
#[derive(Debug)]
pub(super) struct Binding {
    pub name: String,
    matcher: Option<Matcher>,
    param: Value,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

/// All policies of a kind, by name.
#[derive(Debug, Default)]
pub(super) struct Policies(pub Vec<Policy>);

impl Policies {
    /// Those that only look.
    pub fn validating(store: &Store) -> Self {
        Self::read(store, VALIDATING)
    }

    /// Those that change objects.
    pub fn mutating(store: &Store) -> Self {
        Self::read(store, MUTATING)
    }

    fn read(store: &Store, [policies, bindings]: [&str; 2]) -> Self {
        let bindings = cached::objects(store, bindings, None);
        let of = |policy: &Value| {
            let own = bindings.iter().filter(|one| one["spec"]["policyName"] == meta::name(policy));
            own.map(Binding::parse).collect()
        };
        let all = cached::objects(store, policies, None);
        let parsed = all.iter().map(|policy| Policy::parse(policy, of(policy)));
        // One that is bound to nothing does nothing.
        Policies(parsed.filter(|policy| !policy.bindings.is_empty()).collect())
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Policy {
    /// Reads a policy of either kind.
    pub fn parse(policy: &Value, bindings: Vec<Binding>) -> Self {
        let spec = &policy["spec"];
        // Variables of a mutating policy may make what its changes are made of.
        let mutates = spec["mutations"].is_array();
        let language = if mutates { Language::MUTATION } else { Language::default() };
        let compiled = |source: &Value| compiled(source, language);
        let rule = |one: &Value| Rule {
            source: text(&one["expression"]),
            program: compiled(&one["expression"]),
            message: text(&one["message"]).trim().to_owned(),
            message_program: one["messageExpression"]
                .as_str()
                .filter(|source| !source.is_empty())
                .map(|_| compiled(&one["messageExpression"])),
            reason: text(&one["reason"]),
        };
        let annotation = |one: &Value| Named {
            name: text(&one["key"]),
            program: compiled(&one["valueExpression"]),
        };
        let mutation = |one: &Value| {
            let is_patch = one["patchType"] == "JSONPatch";
            let source = if is_patch { "jsonPatch" } else { "applyConfiguration" };
            let source = &one[source]["expression"];
            Mutation { source: text(source), program: compiled(source), is_patch }
        };
        let kind = &spec["paramKind"];
        Policy {
            name: meta::name(policy).to_owned(),
            matcher: Matcher::parse(&spec["matchConstraints"]),
            conditions: Named::list(&spec["matchConditions"], Language::default()),
            variables: Named::list(&spec["variables"], language),
            rules: items(&spec["validations"]).map(rule).collect(),
            annotations: items(&spec["auditAnnotations"]).map(annotation).collect(),
            mutations: items(&spec["mutations"]).map(mutation).collect(),
            ignores_failure: spec["failurePolicy"] == "Ignore",
            param_kind: kind.is_object().then(|| (text(&kind["apiVersion"]), text(&kind["kind"]))),
            bindings,
            again: spec["reinvocationPolicy"] == "IfNeeded",
        }
    }

    /// The parameters with which a binding holds for a write: one evaluation each. The error
    /// says what is wrong with the binding.
    pub fn params(
        &self,
        binding: &Binding,
        attributes: &Attributes<'_>,
    ) -> Result<Vec<Value>, String> {
        let (Some((api_version, kind)), true) = (&self.param_kind, binding.param.is_object())
        else {
            return Ok(vec![Value::Null]);
        };
        let param = &binding.param;
        let row = attributes.cluster.kind(api_version, kind);
        let Some(row) = row else {
            return Err(format!(
                "failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'"
            ));
        };
        let given = param["namespace"].as_str().filter(|namespace| !namespace.is_empty());
        let namespace = match (row.namespaced, given) {
            (false, Some(_)) => {
                return Err(
                    "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                        .to_owned(),
                );
            }
            (false, None) => "",
            (true, Some(namespace)) => namespace,
            (true, None) if attributes.namespace.is_empty() => {
                return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
            }
            (true, None) => attributes.namespace,
        };
        let collection = row.collection();
        let found: Vec<Value> = match param["name"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => {
                let found = attributes.cluster.find(collection, namespace, name);
                found.into_iter().map(Arc::unwrap_or_clone).collect()
            }
            None => {
                let selector = LabelSelector::from_object(&param["selector"]).unwrap_or_default();
                let all = attributes.cluster.within(collection, namespace);
                all.into_iter().filter(|one| selector.matches_object(one)).collect()
            }
        };
        if found.is_empty() && param["parameterNotFoundAction"] != "Allow" {
            return Err(
                "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()
            );
        }
        Ok(found)
    }
}

impl Binding {
    fn parse(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let matcher = &spec["matchResources"];
        Binding {
            name: meta::name(binding).to_owned(),
            matcher: matcher.is_object().then(|| Matcher::parse(matcher)),
            param: spec["paramRef"].clone(),
            actions: meta::strings(&spec["validationActions"]),
        }
    }

    /// Whether the policy, which is about the write as `view`, holds here.
    pub fn matches(&self, attributes: &Attributes<'_>, object: &Value) -> Outcome<bool> {
        self.matcher.as_ref().map_or(Ok(true), |matcher| matcher.narrows(attributes, object))
    }
}

/// What a policy that cannot be decided comes to.
pub(super) fn denied(
    attributes: &Attributes<'_>,
    object: &Value,
    (message, reason): (String, &str),
) -> Status {
    use api::status::Cause;
    let shown = if object.is_null() { attributes.name } else { meta::name(object) };
    let mut status = Status::forbidden(attributes.resource, shown, &message);
    status.reason = match reason {
        "Unauthorized" | "Forbidden" | "RequestEntityTooLarge" => {
            super::verdict::known_reason(reason)
        }
        _ => "Invalid",
    };
    status.code = match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let cause = Cause { message, ..Cause::default() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

/// The kind as which a policy meets a write, if it does.
pub(super) fn met(
    policy: &Policy,
    attributes: &Attributes<'_>,
    object: &Value,
) -> Outcome<Option<View>> {
    policy.matcher.matches(attributes, object)
}
