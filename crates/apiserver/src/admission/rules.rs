//! Whether a webhook or a policy is about a write: rules over operations and resources, and
//! selectors over the labels of the object and of its namespace.

use std::sync::Arc;

use api::resource::Resource;
use api::selector::LabelSelector;
use api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};
use crate::user::{APISERVER, MASTERS};

/// Kinds that no webhook and no policy sees: one that refuses everything must stay removable.
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];
const GROUP: &str = "admissionregistration.k8s.io";

/// Whether the write is about admission itself, or the server's own: a webhook that is away must
/// not keep a server from starting, for without it the webhook never comes back.
pub(super) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let own = attributes.user.name == APISERVER && attributes.user.in_group(MASTERS);
    own || (attributes.resource.group == GROUP && EXEMPT.contains(&&*attributes.resource.plural))
}

/// One rule (`RuleWithOperations`, `NamedRuleWithOperations`).
#[derive(Debug, Clone, Default)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    names: Vec<String>,
}

/// What a webhook or a policy is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Rules name the versions that they are about, and no others.
    exact: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

/// The kind and version as which a rule knows the object.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Another row than the request's.
    other: Option<Arc<Resource>>,
    pub version: String,
}

impl View {
    /// The version that the request is made in.
    pub fn requested(attributes: &Attributes<'_>) -> Self {
        View { other: None, version: attributes.version.to_owned() }
    }

    /// The row of the table.
    pub fn resource<'a>(&'a self, attributes: &'a Attributes<'_>) -> &'a Resource {
        self.other.as_deref().unwrap_or(attributes.resource)
    }
}

impl Rule {
    fn parse(rule: &Value) -> Self {
        Rule {
            operations: meta::strings(&rule["operations"]),
            groups: meta::strings(&rule["apiGroups"]),
            versions: meta::strings(&rule["apiVersions"]),
            resources: meta::strings(&rule["resources"]),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
            names: meta::strings(&rule["resourceNames"]),
        }
    }

    fn matches(&self, attributes: &Attributes<'_>, row: &Resource, version: &str) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|one| one == "*" || one == value);
        self.in_scope(attributes)
            && has(&self.operations, attributes.operation.name())
            && has(&self.groups, &row.group)
            && has(&self.versions, version)
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
            && self.resources.iter().any(|pattern| {
                let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
                (resource == "*" || resource == row.plural)
                    && (sub == "*" || sub == attributes.subresource)
            })
    }

    fn in_scope(&self, attributes: &Attributes<'_>) -> bool {
        let cluster =
            attributes.namespace.is_empty() || attributes.resource.collection() == "namespaces";
        match self.scope.as_str() {
            "Namespaced" => !cluster,
            "Cluster" => cluster,
            _ => true,
        }
    }
}

impl Matcher {
    /// Of a webhook (`rules`) or of a policy's constraints (`resourceRules`). A selector that
    /// does not parse selects nothing: validation does not let it in.
    pub fn parse(source: &Value) -> Self {
        let rules = |field: &str| -> Vec<Rule> {
            source[field].as_array().into_iter().flatten().map(Rule::parse).collect()
        };
        let selector = |field: &str| match &source[field] {
            Value::Null => LabelSelector::default(),
            given => LabelSelector::from_object(given).unwrap_or_default(),
        };
        let field = if source["rules"].is_array() { "rules" } else { "resourceRules" };
        Matcher {
            rules: rules(field),
            excluded: rules("excludeResourceRules"),
            exact: source["matchPolicy"] == "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// As which kind the object is met; `None` where it is not met at all.
    pub fn matches(&self, attributes: &Attributes<'_>, object: &Value) -> Outcome<Option<View>> {
        let Some(view) = self.view(&self.rules, attributes) else { return Ok(None) };
        if self.view(&self.excluded, attributes).is_some() {
            return Ok(None);
        }
        Ok(self.selects(attributes, object)?.then_some(view))
    }

    /// Whether a binding, which may name rules of its own, takes the object in.
    pub fn narrows(&self, attributes: &Attributes<'_>, object: &Value) -> Outcome<bool> {
        if !self.rules.is_empty() {
            return Ok(self.matches(attributes, object)?.is_some());
        }
        if self.view(&self.excluded, attributes).is_some() {
            return Ok(false);
        }
        self.selects(attributes, object)
    }

    /// Whether the selectors alone take the object in.
    fn selects(&self, attributes: &Attributes<'_>, object: &Value) -> Outcome<bool> {
        if !self.objects.is_empty() {
            let matches = |one: &Value| !one.is_null() && self.objects.matches_object(one);
            if !matches(object) && !attributes.old.is_some_and(matches) {
                return Ok(false);
            }
        }
        self.in_namespace(attributes, object)
    }

    fn view(&self, rules: &[Rule], attributes: &Attributes<'_>) -> Option<View> {
        let any = |row: &Resource, version: &str| {
            rules.iter().any(|rule| rule.matches(attributes, row, version))
        };
        if any(attributes.resource, attributes.version) {
            return Some(View::requested(attributes));
        }
        if self.exact || rules.is_empty() {
            return None;
        }
        attributes.cluster.views(attributes.resource).into_iter().find_map(|row| {
            let served = attributes.subresource.is_empty()
                || row.subresource(attributes.subresource).is_some();
            let version =
                row.versions.iter().find(|version| served && any(&row, version))?.to_string();
            Some(View { other: Some(Arc::clone(&row)), version })
        })
    }

    fn in_namespace(&self, attributes: &Attributes<'_>, object: &Value) -> Outcome<bool> {
        if self.namespaces.is_empty() {
            return Ok(true);
        }
        if attributes.resource.collection() == "namespaces" {
            let written = matches!(attributes.operation, Operation::Create | Operation::Update)
                && attributes.subresource.is_empty();
            let own = if written { Some(object) } else { attributes.old };
            return Ok(own.is_none_or(|own| self.namespaces.matches_object(own)));
        }
        if attributes.namespace.is_empty() {
            return Ok(true);
        }
        match attributes.cluster.find("namespaces", "", attributes.namespace) {
            Some(namespace) => Ok(self.namespaces.matches_object(&namespace)),
            None => Err(Status::not_found(("", "namespaces"), attributes.namespace)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};
    use serde_json::json;

    #[test]
    fn rules_meet_operations_groups_and_resources() {
        let cluster = Few::default();
        let matches = |rule: Value, sub: &'static str| {
            let source = json!({"rules": [rule], "matchPolicy": "Exact"});
            let mut write = attributes(&cluster, ("apps", "v1", "deployments"), "ns");
            write.subresource = sub;
            Matcher::parse(&source).matches(&write, &json!({})).unwrap().is_some()
        };
        let rule = |operations: &str, group: &str, version: &str, resource: &str, scope: &str| {
            json!({"operations": [operations], "apiGroups": [group], "apiVersions": [version],
                   "resources": [resource], "scope": scope})
        };
        for (rule, sub, expected) in [
            (rule("CREATE", "apps", "v1", "deployments", "*"), "", true),
            (rule("*", "*", "*", "*", "Namespaced"), "", true),
            (rule("*", "*", "*", "*", "Cluster"), "", false),
            (rule("*", "*", "*", "*", "*"), "scale", false),
            (rule("*", "*", "*", "*/*", "*"), "scale", true),
            (rule("*", "*", "*", "deployments/*", "*"), "scale", true),
            (rule("*", "*", "*", "*/scale", "*"), "scale", true),
            (rule("*", "*", "*", "*/status", "*"), "scale", false),
            (rule("UPDATE", "apps", "v1", "deployments", "*"), "", false),
            (rule("CREATE", "", "v1", "deployments", "*"), "", false),
            (rule("CREATE", "apps", "v2", "deployments", "*"), "", false),
        ] {
            assert_eq!(matches(rule.clone(), sub), expected, "{rule} {sub}");
        }
    }

    #[test]
    fn selectors_look_at_labels_of_object_and_namespace() {
        let cluster = Few::default()
            .with("namespaces", json!({"metadata": {"name": "ns", "labels": {"team": "a"}}}));
        let matches = |namespaces: Value, objects: Value, namespace: &str| {
            let rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
                "resources": ["*"]});
            let source = json!({"rules": [rule], "namespaceSelector": namespaces,
                "objectSelector": objects});
            let write = attributes(&cluster, ("", "v1", "configmaps"), namespace);
            let object = json!({"metadata": {"labels": {"x": "1"}}});
            match Matcher::parse(&source).matches(&write, &object) {
                Ok(found) => found.is_some().to_string(),
                Err(status) => status.message,
            }
        };
        let label = |key: &str, value: &str| json!({"matchLabels": {key: value}});
        assert_eq!(matches(json!({}), json!({}), "none"), "true");
        assert_eq!(matches(label("team", "a"), json!({}), "ns"), "true");
        assert_eq!(matches(label("team", "b"), json!({}), "ns"), "false");
        assert_eq!(matches(label("team", "b"), json!({}), "none"), "namespaces \"none\" not found");
        assert_eq!(matches(json!({}), label("x", "1"), "ns"), "true");
        assert_eq!(matches(json!({}), label("x", "2"), "ns"), "false");
    }
}
