//! A place in an object and how values there merge, as the schema says or, where there is none,
//! as the value suggests.

use super::element::Element;
use crate::schema::{ListType, Schema, Type};
use crate::status::go_print;
use serde_json::Value;

/// A place in an object. Without a schema (an untyped custom resource) objects merge member by
/// member and everything else is one value.
#[derive(Clone, Copy)]
pub(super) struct Place<'s> {
    schema: Option<Schema<'s>>,
    /// Whether this is a whole object; `metadata` has a schema in all of them.
    is_root: bool,
}

/// How the value at a place merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merging {
    /// As one value.
    Whole,
    /// An object, member by member.
    Members,
    /// A list, item by item; [`Place::element`] tells them apart.
    Items,
}

/// A value's type as Go names it.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The definition of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Fields that upstream's types hold by value, so that they are there, empty, even in an object
/// that does not set them: field and name of its definition. Nobody is recorded as having added
/// them, only what is in them.
const ALWAYS_THERE: [(&str, &str); 22] = [
    ("backend", "IngressBackend"),
    ("daemonEndpoints", "NodeDaemonEndpoints"),
    ("involvedObject", "ObjectReference"),
    ("jobTemplate", "JobTemplateSpec"),
    ("kubeletEndpoint", "DaemonEndpoint"),
    ("lastState", "ContainerState"),
    ("loadBalancer", "IngressLoadBalancerStatus"),
    ("loadBalancer", "LoadBalancerStatus"),
    ("metadata", "ObjectMeta"),
    ("nodeInfo", "NodeSystemInfo"),
    ("podSelector", "LabelSelector"),
    ("regarding", "ObjectReference"),
    ("resources", "ResourceRequirements"),
    ("resources", "VolumeResourceRequirements"),
    ("roleRef", "RoleRef"),
    ("scaleTargetRef", "CrossVersionObjectReference"),
    ("source", "EventSource"),
    ("state", "ContainerState"),
    ("strategy", "DeploymentStrategy"),
    ("template", "PodTemplateSpec"),
    ("updateStrategy", "DaemonSetUpdateStrategy"),
    ("updateStrategy", "StatefulSetUpdateStrategy"),
];

impl<'s> Place<'s> {
    /// The place of a whole object.
    pub(super) fn root(schema: Option<Schema<'s>>) -> Self {
        Self { schema, is_root: true }
    }

    /// Whether the schema says how values merge here.
    pub(super) fn is_typed(self) -> bool {
        self.schema.is_some()
    }

    /// The place below, of a field or a map's key.
    pub(super) fn member(self, name: &str) -> Self {
        let schema = match self.schema {
            // A defined kind leaves it out.
            schema if self.is_root && name == "metadata" => schema
                .and_then(|schema| schema.field(name))
                .or_else(|| Schema::of_definition(OBJECT_META)),
            schema => schema.and_then(|schema| schema.member(name)),
        };
        Self { schema, is_root: false }
    }

    /// The place of a list's items.
    pub(super) fn item(self) -> Self {
        Self { schema: self.schema.and_then(|schema| schema.items()), is_root: false }
    }

    /// Whether the schema names the field; a map's keys are data.
    pub(super) fn has_field(self, name: &str) -> bool {
        let meta = self.is_root && name == "metadata";
        meta || self.schema.is_some_and(|schema| schema.field(name).is_some())
    }

    /// Whether the schema lists the fields of the object here.
    pub(super) fn has_fields(self) -> bool {
        self.schema.is_some_and(|schema| schema.kind() == Type::Object && !schema.is_open())
    }

    /// Upstream's message about a value of another type than the schema has here. Bytes, times and
    /// amounts may be written in more than one way.
    pub(super) fn misfit(self, value: &Value) -> Option<String> {
        // Go shows the struct that holds the value.
        let held = || format!("&{{{}}}", go_print(value));
        let (fits, wanted, found) = match self.schema?.kind() {
            _ if value.is_null() => return None,
            Type::Object | Type::Map => (value.is_object(), "map", held()),
            Type::List => (value.is_array(), "list", held()),
            Type::Boolean => (value.is_boolean(), "boolean", held()),
            Type::Int32 | Type::Int64 | Type::Number => {
                (value.is_number(), "numeric (int or float)", go_type(value).to_owned())
            }
            Type::String => {
                let held = format!("&value.valueUnstructured{{Value:{}}}", go_print(value));
                (value.is_string(), "string", held)
            }
            _ => return None,
        };
        (!fits).then(|| format!("expected {wanted}, got {found}"))
    }

    /// How `value` merges here. A value that does not fit the schema is one value.
    pub(super) fn merging(self, value: &Value) -> Merging {
        let Some(schema) = self.schema else {
            return if value.is_object() { Merging::Members } else { Merging::Whole };
        };
        match schema.kind() {
            Type::Object | Type::Map if value.is_object() && !schema.is_atomic() => {
                Merging::Members
            }
            Type::List if value.is_array() && schema.list_type() != ListType::Atomic => {
                Merging::Items
            }
            _ => Merging::Whole,
        }
    }

    /// What tells an item of the list here from the others. The error is upstream's message about
    /// a key that the item does not have.
    pub(super) fn element(self, item: &Value) -> Result<Element, String> {
        self.identify(item, true)
    }

    /// The same for items that are stored already, whose missing keys count as null.
    pub(super) fn stored_element(self, item: &Value) -> Element {
        // Nothing is refused when no key is asked for.
        self.identify(item, false).unwrap_or_else(|_| Element::value(item))
    }

    fn identify(self, item: &Value, strict: bool) -> Result<Element, String> {
        let Some(schema) = self.schema.filter(|schema| schema.list_type() == ListType::Map) else {
            return Ok(Element::value(item));
        };
        let names = schema.map_keys();
        let defaults: Vec<Value> = names
            .iter()
            .map(|name| {
                let field = schema.items().and_then(|item| item.field(name));
                field.and_then(|field| field.default_value()).map_or(Value::Null, Value::from)
            })
            .collect();
        let mut pairs = Vec::with_capacity(names.len());
        for (name, default) in names.iter().zip(&defaults) {
            let value = item.get(&**name).filter(|value| !value.is_null()).unwrap_or(default);
            if strict && value.is_null() {
                return Err(format!(
                    "associative list with keys has an element that omits key field {} (and doesn't have default value)",
                    crate::status::go_quote(name)
                ));
            }
            pairs.push((name.as_ref(), value));
        }
        Ok(Element::keys(pairs))
    }

    /// Whether upstream's types have the field `name` of this place in every object.
    pub(super) fn is_always_there(self, name: &str) -> bool {
        let Some(parent) = self.schema.and_then(|schema| schema.name()).map(short) else {
            return false;
        };
        if name == "containers" {
            return parent == "PodSpec";
        }
        let Some(field) = self.member(name).schema.and_then(|schema| schema.name()).map(short)
        else {
            return false;
        };
        match (name, parent) {
            // Pointers in these, where others hold the same type by value.
            ("resources", "PodSpec") | ("template", "ReplicationControllerSpec") => return false,
            _ => {}
        }
        match name {
            "spec" => field.ends_with("Spec"),
            "status" => field.ends_with("Status"),
            "podSelector" => parent == "NetworkPolicySpec",
            _ => ALWAYS_THERE.binary_search(&(name, field)).is_ok(),
        }
    }
}

/// The last part of a definition's name.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_there_is_found() {
        assert!(ALWAYS_THERE.is_sorted(), "it is searched by halves");
        let at = |group: &str, version: &str, kind: &str, path: &str| {
            let mut place = Place::root(Schema::of(group, version, kind));
            let (above, name) = path.rsplit_once('.').unwrap_or(("", path));
            for step in above.split('.').filter(|step| !step.is_empty()) {
                place = if step == "[]" { place.item() } else { place.member(step) };
            }
            place.is_always_there(name)
        };
        for (group, version, kind, path, expected) in [
            ("", "v1", "Pod", "spec", true),
            ("", "v1", "Pod", "spec.containers", true),
            ("", "v1", "Pod", "spec.volumes", false),
            ("", "v1", "Pod", "spec.resources", false),
            ("", "v1", "Pod", "spec.containers.[].resources", true),
            ("", "v1", "Pod", "spec.securityContext", false),
            ("", "v1", "Node", "status.nodeInfo", true),
            ("", "v1", "Service", "status.loadBalancer", true),
            ("", "v1", "ConfigMap", "metadata", true),
            ("", "v1", "ConfigMap", "data", false),
            ("", "v1", "ReplicationController", "spec.template", false),
            ("apps", "v1", "Deployment", "spec.template", true),
            ("apps", "v1", "Deployment", "spec.strategy", true),
            ("apps", "v1", "Deployment", "spec.strategy.rollingUpdate", false),
            ("apps", "v1", "Deployment", "spec.selector", false),
            ("networking.k8s.io", "v1", "NetworkPolicy", "spec.podSelector", true),
            ("batch", "v1", "CronJob", "spec.jobTemplate.spec.template", true),
        ] {
            assert_eq!(at(group, version, kind, path), expected, "{kind} {path}");
        }
    }
}
