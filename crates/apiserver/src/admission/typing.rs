//! What can be said of a policy's expressions before they meet an object: those that do not
//! compile are refused when they are written; those that do not fit the kinds that the policy
//! is about are named in its status.

use std::sync::Arc;

use api::resource::Resource;
use api::schema::{Schema, Type};
use api::status::{FieldError, Status};
use expression::{Kind, Language, compile_as};
use serde_json::{Value, json};

use super::{Attributes, Cluster, Operation};
use crate::registry::{Outcome, meta};

const GROUP: &str = "admissionregistration.k8s.io";
/// How deep a schema is followed; what is deeper is anything.
const DEPTH_MAX: usize = 10;
/// The definition of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Kinds that a policy is checked against, as upstream.
const KINDS_MAX: usize = 10;

/// An expression of a policy, and where it stands.
struct Source<'v> {
    path: String,
    text: &'v str,
    /// Whether a condition: it knows no variables and no parameters.
    condition: bool,
    /// What its value has to be.
    wanted: Option<Wanted>,
}

/// What the value of an expression has to be.
#[derive(Clone, Copy)]
enum Wanted {
    Bool,
    Text,
    /// Of an annotation that is null nothing is noted.
    TextOrNull,
    Object,
    Patches,
}

impl Wanted {
    /// Whether a value of this kind may be what is wanted: of null nobody knows a kind, and
    /// objects and patches are maps.
    fn allows(self, kind: &Kind) -> bool {
        match kind {
            Kind::Any => true,
            Kind::Bool => matches!(self, Wanted::Bool),
            Kind::Text => matches!(self, Wanted::Text | Wanted::TextOrNull),
            Kind::Map(_) | Kind::Object(_) => matches!(self, Wanted::Object),
            Kind::List(..) => matches!(self, Wanted::Patches),
            _ => false,
        }
    }

    /// Upstream's name of it.
    fn name(self) -> &'static str {
        match self {
            Wanted::Bool => "bool",
            Wanted::Text => "string",
            Wanted::TextOrNull => "one of [string null_type]",
            Wanted::Object => "Object",
            Wanted::Patches => "list(JSONPatch)",
        }
    }
}

impl Source<'_> {
    /// Why this is no expression for its place, with what is known of these names.
    fn refused(&self, policy: &Value, known: &[(&str, Kind)]) -> Option<String> {
        let language = language(policy, self.condition);
        match (compile_as(self.text, known, language), self.wanted) {
            (Err(error), _) => Some(format!("compilation failed: {error}")),
            (Ok(program), Some(wanted)) if !wanted.allows(program.result()) => {
                Some(format!("must evaluate to {}", wanted.name()))
            }
            _ => None,
        }
    }
}

/// What an expression of a policy knows: those of mutating ones may make objects and patches.
fn language(policy: &Value, condition: bool) -> Language {
    match policy["spec"]["mutations"].is_array() && !condition {
        true => Language::MUTATION,
        false => Language::default(),
    }
}

/// What the value of an expression in this field has to be.
fn wanted(list: &str, field: &str) -> Option<Wanted> {
    match (list.rsplit('.').next().unwrap_or_default(), field) {
        ("matchConditions" | "validations", "expression") => Some(Wanted::Bool),
        (_, "messageExpression") => Some(Wanted::Text),
        (_, "valueExpression") => Some(Wanted::TextOrNull),
        (_, "applyConfiguration.expression") => Some(Wanted::Object),
        (_, "jsonPatch.expression") => Some(Wanted::Patches),
        _ => None,
    }
}

fn collect<'v>(object: &'v Value, list: &str, fields: &[&str], found: &mut Vec<Source<'v>>) {
    let pointer = format!("/{}", list.replace('.', "/"));
    let items = object.pointer(&pointer).and_then(Value::as_array).into_iter().flatten();
    for (place, item) in items.enumerate() {
        for field in fields {
            let text = item.pointer(&format!("/{}", field.replace('.', "/")));
            if let Some(text) = text.and_then(Value::as_str).filter(|text| !text.is_empty()) {
                let condition = list.ends_with("matchConditions");
                let (path, wanted) = (format!("{list}[{place}].{field}"), wanted(list, field));
                found.push(Source { path, text, condition, wanted });
            }
        }
    }
}

fn sources<'v>(object: &'v Value) -> Vec<Source<'v>> {
    let mut found = Vec::new();
    collect(object, "spec.matchConditions", &["expression"], &mut found);
    collect(object, "spec.variables", &["expression"], &mut found);
    collect(object, "spec.validations", &["expression", "messageExpression"], &mut found);
    collect(object, "spec.auditAnnotations", &["valueExpression"], &mut found);
    let mutations = ["applyConfiguration.expression", "jsonPatch.expression"];
    collect(object, "spec.mutations", &mutations, &mut found);
    let hooks = object["webhooks"].as_array().into_iter().flatten();
    for (place, hook) in hooks.enumerate() {
        let mut own = Vec::new();
        collect(hook, "matchConditions", &["expression"], &mut own);
        let with_place = |one: Source<'v>| {
            let path = format!("webhooks[{place}].{}", one.path);
            Source { path, condition: true, ..one }
        };
        found.extend(own.into_iter().map(with_place));
    }
    found
}

/// The names that an expression knows, with what is known of their kinds.
fn variables(policy: &Value, condition: bool, object: Kind, params: Kind) -> Vec<(&str, Kind)> {
    let mut known = vec![
        ("authorizer", Kind::Any),
        ("namespaceObject", Kind::Any),
        ("object", object.clone()),
        ("oldObject", object),
        ("request", request()),
    ];
    if policy["spec"]["paramKind"].is_object() {
        known.push(("params", params));
    }
    if !condition {
        known.push(("variables", Kind::object([])));
        let mut fields = Vec::new();
        for variable in policy["spec"]["variables"].as_array().into_iter().flatten() {
            let Some(name) = variable["name"].as_str() else { continue };
            let source = variable["expression"].as_str().unwrap_or_default();
            // Each knows those before it.
            let made = compile_as(source, &known, language(policy, condition));
            let kind = made.map_or(Kind::Any, |made| made.result().clone());
            fields.push((name, kind));
            known.pop();
            known.push(("variables", Kind::object(fields.clone())));
        }
    }
    known
}

/// Refuses what does not compile.
pub(super) fn check(attributes: &Attributes<'_>, object: &Value) -> Outcome<()> {
    let resource = attributes.resource;
    let written = matches!(attributes.operation, Operation::Create | Operation::Update);
    if resource.group != GROUP || !written || !attributes.subresource.is_empty() {
        return Ok(());
    }
    let old: Vec<&str> =
        attributes.old.iter().flat_map(|old| sources(old)).map(|one| one.text).collect();
    let mut errors = Vec::new();
    for source in sources(object).iter().filter(|one| !old.contains(&one.text)) {
        let known = variables(object, source.condition, Kind::Any, Kind::Any);
        if let Some(why) = source.refused(object, &known) {
            errors.push(FieldError::invalid(&source.path, source.text, why));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid((GROUP, resource.kind.as_ref()), meta::name(object), &errors))
}

/// The status that a validating policy is to have.
pub(crate) fn status(policy: &Value, cluster: &dyn Cluster) -> Value {
    let kinds = kinds(policy, cluster);
    let param = &policy["spec"]["paramKind"];
    let text = |field: &str| param[field].as_str().unwrap_or_default();
    let params = cluster.kind(text("apiVersion"), text("kind")).map_or(Kind::Any, |row| {
        let version = api::resource::split_api_version(text("apiVersion")).1.to_owned();
        of_resource(&row, &version)
    });
    let mut warnings = Vec::new();
    let shown = |source: &Source<'_>| source.path.starts_with("spec.validations");
    for source in sources(policy).into_iter().filter(shown) {
        let mut said = String::new();
        for (name, kind) in &kinds {
            let known = variables(policy, source.condition, kind.clone(), params.clone());
            let language = language(policy, source.condition);
            if let Err(error) = compile_as(source.text, &known, language) {
                said += &format!("{name}: {error}\n");
            }
        }
        if !said.is_empty() {
            warnings.push(json!({"fieldRef": source.path, "warning": said}));
        }
    }
    let checked =
        if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
    json!({"observedGeneration": policy["metadata"]["generation"], "typeChecking": checked})
}

/// The kinds that the policy's rules name one by one.
fn kinds(policy: &Value, cluster: &dyn Cluster) -> Vec<(String, Kind)> {
    let rules = policy["spec"]["matchConstraints"]["resourceRules"].as_array();
    let mut found: Vec<(String, Kind)> = Vec::new();
    for rule in rules.into_iter().flatten() {
        for group in meta::strings(&rule["apiGroups"]) {
            for version in meta::strings(&rule["apiVersions"]) {
                for plural in meta::strings(&rule["resources"]) {
                    let Some(row) = cluster.resource(&group, &version, &plural) else { continue };
                    let api_version = row.api_version(&version);
                    let name = format!("{api_version}, Kind={}", row.kind);
                    if found.len() < KINDS_MAX && !found.iter().any(|(known, _)| *known == name) {
                        let kind = of_resource(&row, &version);
                        found.push((name, kind));
                    }
                }
            }
        }
    }
    found
}

fn of_resource(row: &Arc<Resource>, version: &str) -> Kind {
    let schema = Schema::of_resource(row, version);
    let kind = schema.map_or(Kind::Any, |schema| of_schema(schema, 0));
    match kind {
        // The schema of a defined kind leaves out what all objects have.
        Kind::Object(fields) if row.custom.is_some() => {
            let mut fields = (*fields).clone();
            let metadata = Schema::of_definition(OBJECT_META);
            let metadata = metadata.map_or(Kind::Any, |schema| of_schema(schema, 1));
            fields.insert("metadata".to_owned(), metadata);
            Kind::Object(Arc::new(fields))
        }
        other => other,
    }
}

/// What expressions see of the request.
fn request() -> Kind {
    let texts = |names: &[&'static str]| {
        Kind::object(names.iter().map(|name| (*name, Kind::Text)).collect::<Vec<_>>())
    };
    let (kind, resource) =
        (texts(&["group", "version", "kind"]), texts(&["group", "version", "resource"]));
    let user = Kind::object([
        ("username", Kind::Text),
        ("uid", Kind::Text),
        ("groups", Kind::list(Kind::Text)),
        ("extra", Kind::map(Kind::list(Kind::Text))),
    ]);
    let mut fields = vec![
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("requestKind", kind),
        ("requestResource", resource),
        ("userInfo", user),
        ("dryRun", Kind::Bool),
        ("options", Kind::Any),
    ];
    for name in ["subResource", "requestSubResource", "name", "namespace", "operation"] {
        fields.push((name, Kind::Text));
    }
    Kind::object(fields)
}

fn of_schema(schema: Schema<'_>, depth: usize) -> Kind {
    // Nobody knows the fields of what may have any.
    if depth > DEPTH_MAX || schema.is_open() {
        return Kind::Any;
    }
    match schema.kind() {
        Type::Object => {
            let fields = schema.fields().map(|(name, field)| (name, of_schema(field, depth + 1)));
            Kind::object(fields.collect::<Vec<_>>())
        }
        Type::List => {
            schema.items().map_or(Kind::Any, |items| Kind::list(of_schema(items, depth + 1)))
        }
        Type::Map => {
            schema.additional().map_or(Kind::Any, |values| Kind::map(of_schema(values, depth + 1)))
        }
        Type::String => Kind::Text,
        Type::Boolean => Kind::Bool,
        Type::Int32 | Type::Int64 => Kind::Int,
        _ => Kind::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};

    fn policy(expression: &str) -> Value {
        json!({"metadata": {"name": "p", "generation": 2}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["apps"],
                "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "variables": [{"name": "a", "expression": "1"}],
            "validations": [{"expression": expression}]}})
    }

    #[test]
    fn what_does_not_compile_is_refused() {
        let cluster = Few::default();
        let write = attributes(&cluster, (GROUP, "v1", "validatingadmissionpolicies"), "");
        let said = |expression: &str| {
            let checked = check(&write, &policy(expression));
            checked.err().map_or_else(String::new, |status| status.message)
        };
        assert_eq!(said("variables.a > 0"), "");
        for (expression, expected) in [
            ("object.x >", "Syntax error"),
            ("foo", "undeclared reference to 'foo'"),
            ("params.x", "undeclared reference to 'params'"),
            ("variables.b", "undefined field 'b'"),
            ("request.nothing == ''", "undefined field 'nothing'"),
            ("variables.a + 1", "must evaluate to bool"),
            (
                "variables.a == 'x'",
                "found no matching overload for '_==_' applied to '(int, string)'",
            ),
        ] {
            let said = said(expression);
            assert!(said.contains("spec.validations[0].expression: Invalid value"), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn what_cannot_be_what_its_place_wants_is_refused() {
        let cluster = Few::default();
        let said = |plural: &str, member: &str, item: Value| {
            let write = attributes(&cluster, (GROUP, "v1", plural), "");
            let mut policy = json!({"metadata": {"name": "p"}, "spec": {}});
            policy["spec"][member] = json!([item]);
            check(&write, &policy).err().map_or_else(String::new, |status| status.message)
        };
        let mutation = |field: &str, text: &str| {
            let mut mutation = json!({});
            mutation[field] = json!({"expression": text});
            said("mutatingadmissionpolicies", "mutations", mutation)
        };
        let annotation = |text: &str| {
            let item = json!({"key": "k", "valueExpression": text});
            said("validatingadmissionpolicies", "auditAnnotations", item)
        };
        for (said, expected) in [
            (mutation("applyConfiguration", "Object{metadata: Object.metadata{}}"), ""),
            (mutation("applyConfiguration", "'x'"), "must evaluate to Object"),
            (mutation("jsonPatch", "[JSONPatch{op: 'remove', path: '/x'}]"), ""),
            (mutation("jsonPatch", "Object{}"), "must evaluate to list(JSONPatch)"),
            (annotation("object.x == 1 ? 'one' : null"), ""),
            (annotation("1"), "must evaluate to one of [string null_type]"),
        ] {
            assert_eq!(said.is_empty(), expected.is_empty(), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn what_does_not_fit_is_in_the_status() {
        let cluster = Few::default();
        assert_eq!(
            status(&policy("object.spec.replicas > 1"), &cluster),
            json!({"observedGeneration": 2, "typeChecking": {}})
        );
        let warned = status(&policy("object.spec.replicas > '1'"), &cluster);
        let warning = &warned["typeChecking"]["expressionWarnings"][0];
        assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
        let text = warning["warning"].as_str().unwrap();
        assert!(text.starts_with("apps/v1, Kind=Deployment: ERROR: "), "{text}");
        assert!(text.contains("found no matching overload for '_>_' applied to '(int, string)'"));
        let warned = status(&policy("object.spec.nothing"), &cluster).to_string();
        assert!(warned.contains("undefined field 'nothing'"), "{warned}");
    }
}
