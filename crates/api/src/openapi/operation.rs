//! Paths and operations of a resource, in a form that both OpenAPI versions are written from.

use crate::custom::document_name;
use crate::resource::{Resource, Text};
use crate::schema::Schema;
use serde_json::{Map, Value, json};

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

const PRODUCES: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LIST_PRODUCES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

const CUSTOM_PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];

/// A query or path parameter: name, type, what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const NAME: Parameter = ("name", "string", "name of the object");
const NAMESPACE: Parameter =
    ("namespace", "string", "object name and auth scope, such as for teams and projects");
const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. Valid values are: All",
);
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "Name of the actor or entity that is making these changes.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "How the server treats unknown or duplicate fields: Ignore, Warn or Strict.",
);
const FORCE: Parameter =
    ("force", "boolean", "Take fields that other managers own; for apply patches only.");
const GRACE: Parameter =
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted. Zero means at once.");
const PROPAGATION: Parameter = (
    "propagationPolicy",
    "string",
    "Whether and how dependents are deleted: Orphan, Background or Foreground.",
);
const LABELS: Parameter = ("labelSelector", "string", "Restricts the objects by their labels.");
const FIELDS: Parameter = ("fieldSelector", "string", "Restricts the objects by their fields.");
const LIMIT: Parameter = ("limit", "integer", "Largest number of objects in one answer.");
const CONTINUE: Parameter = ("continue", "string", "Token of the previous answer to go on from.");
const VERSION: Parameter =
    ("resourceVersion", "string", "Which resource versions the request may be served from.");
const MATCH: Parameter =
    ("resourceVersionMatch", "string", "How resourceVersion is applied to list calls.");
const TIMEOUT: Parameter = ("timeoutSeconds", "integer", "Limits the duration of the call.");
const WATCH: Parameter = ("watch", "boolean", "Stream changes instead of returning a list.");

const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const APPLY: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const LIST: &[Parameter] = &[CONTINUE, FIELDS, LABELS, LIMIT, VERSION, MATCH, TIMEOUT, WATCH];
const DELETE: &[Parameter] = &[DRY_RUN, GRACE, PROPAGATION];
const DELETE_ALL: &[Parameter] =
    &[CONTINUE, DRY_RUN, FIELDS, GRACE, LABELS, LIMIT, PROPAGATION, VERSION, MATCH, TIMEOUT];

/// What can be done at one path.
pub(super) struct PathItem {
    parameters: Vec<Parameter>,
    operations: Vec<Operation>,
}

struct Operation {
    method: &'static str,
    action: &'static str,
    id: String,
    tag: String,
    description: String,
    gvk: [String; 3],
    parameters: &'static [Parameter],
    /// Definition of what is sent, and in which media types.
    body: Option<(Text, &'static [&'static str])>,
    /// Definition of what is answered; without one it is text.
    answer: Option<Text>,
    produces: &'static [&'static str],
}

/// Who is spoken of while a resource's paths are made.
struct Subject<'a> {
    resource: &'a Resource,
    version: &'a str,
    /// `AppsV1`.
    camel: String,
    scope: &'static str,
}

/// Adds the paths of one version of a resource below `root` (`/apis/apps/v1`).
pub(super) fn paths(
    resource: &Resource,
    version: &str,
    root: &str,
    items: &mut Vec<(String, PathItem)>,
) {
    let subject = Subject {
        resource,
        version,
        camel: format!("{}{}", camel_group(&resource.group), capital(version)),
        scope: if resource.namespaced { "Namespaced" } else { "" },
    };
    let plural = &resource.plural;
    let mut base = vec![PRETTY];
    let mut collection = format!("{root}/{plural}");
    if resource.namespaced {
        if resource.allows("list") {
            let list = vec![subject.operation("list", "ForAllNamespaces", None)];
            items.push((collection, PathItem { parameters: base.clone(), operations: list }));
        }
        collection = format!("{root}/namespaces/{{namespace}}/{plural}");
        base.insert(0, NAMESPACE);
    }
    let mut item =
        |path: String, parameters: Vec<Parameter>, verbs: &[&str], sub: Option<usize>| {
            let operations: Vec<Operation> =
                verbs.iter().map(|verb| subject.operation(verb, "", sub)).collect();
            if !operations.is_empty() {
                items.push((path, PathItem { parameters, operations }));
            }
        };
    let among = |wanted: &[&'static str], served: &[&str]| -> Vec<&'static str> {
        wanted.iter().copied().filter(|verb| served.contains(verb)).collect()
    };
    let on_collection = among(&["list", "create", "deletecollection"], resource.verbs);
    item(collection.clone(), base.clone(), &on_collection, None);
    base.insert(0, NAME);
    let object = format!("{collection}/{{name}}");
    let on_object = ["get", "update", "patch", "delete"];
    item(object.clone(), base.clone(), &among(&on_object, resource.verbs), None);
    for (i, sub) in resource.subresources.iter().enumerate() {
        let verbs = among(&["get", "create", "update", "patch", "delete"], sub.verbs);
        item(format!("{object}/{}", sub.name), base.clone(), &verbs, Some(i));
    }
}

impl Subject<'_> {
    fn operation(&self, verb: &str, suffix: &str, sub: Option<usize>) -> Operation {
        let resource = self.resource;
        let sub = sub.and_then(|i| resource.subresources.get(i));
        let (group, version, kind) = match sub {
            None => (&*resource.group, self.version, &*resource.kind),
            Some(sub) => (
                sub.group.as_deref().unwrap_or(&resource.group),
                sub.version.as_deref().unwrap_or(self.version),
                &*sub.kind,
            ),
        };
        let definition = |kind: &str| -> Option<Text> {
            if resource.custom.is_some() && group == resource.group {
                return Some(document_name(group, version, kind).into());
            }
            Schema::of(group, version, kind).and_then(|s| s.name()).map(Text::from)
        };
        let own = definition(kind);
        let connects = kind.ends_with("Options");
        let (method, action, says, parameters): (_, _, _, &[Parameter]) = match verb {
            "list" => ("get", "list", "list", LIST),
            "create" => ("post", "post", "create", WRITE),
            "deletecollection" => ("delete", "deletecollection", "delete", DELETE_ALL),
            "update" => ("put", "put", "replace", WRITE),
            "patch" => ("patch", "patch", "patch", APPLY),
            "delete" => ("delete", "delete", "delete", DELETE),
            _ => ("get", "get", "read", &[]),
        };
        let body = match verb {
            _ if connects => None,
            "create" | "update" => own.clone().map(|name| (name, &["*/*"][..])),
            "patch" if resource.custom.is_some() => Some((PATCH.into(), CUSTOM_PATCHES)),
            "patch" => Some((PATCH.into(), PATCHES)),
            "delete" | "deletecollection" => Some((DELETE_OPTIONS.into(), &["*/*"][..])),
            _ => None,
        };
        let answer = match verb {
            _ if connects || sub.is_some_and(|s| s.name == "log") => None,
            "list" => definition(&resource.list_kind),
            "delete" | "deletecollection" => Some(STATUS.into()),
            _ => own,
        };
        let plural_kind = match verb {
            "deletecollection" => format!("Collection{}{}", self.scope, resource.kind),
            _ if suffix.is_empty() => format!("{}{}", self.scope, resource.kind),
            _ => resource.kind.to_string(),
        };
        let sub_name = sub.map_or_else(String::new, |sub| capital(&sub.name));
        let (says, action) = match (connects, method) {
            (false, _) => (says.to_owned(), action),
            (true, method) => (format!("connect{}", capital(method)), "connect"),
        };
        Operation {
            method,
            action,
            id: format!("{says}{}{plural_kind}{sub_name}{suffix}", self.camel),
            tag: tag(&resource.group, self.version),
            description: describe(verb, sub.map(|s| s.name.as_ref()), &resource.kind),
            gvk: [group, version, kind].map(str::to_owned),
            parameters: if connects { &[] } else { parameters },
            body,
            produces: match (verb, &answer) {
                _ if resource.custom.is_some() => &PRODUCES[..2],
                ("list", _) => LIST_PRODUCES,
                (_, None) => &["*/*"],
                _ => PRODUCES,
            },
            answer,
        }
    }
}

impl PathItem {
    /// Definitions that the operations name.
    pub(super) fn definitions(&self) -> impl Iterator<Item = &str> {
        self.operations
            .iter()
            .flat_map(|o| o.body.iter().map(|(name, _)| name).chain(&o.answer))
            .map(|name| name.as_ref())
    }

    /// The item as OpenAPI v2.
    pub(super) fn to_v2(&self) -> Value {
        let place = |(name, kind, text): &Parameter, within: &str| {
            let mut parameter = json!({"name": name, "in": within, "description": text,
                "type": kind, "uniqueItems": true});
            if within == "path" {
                parameter["required"] = json!(true);
            }
            parameter
        };
        self.to_json(place, |operation, json| {
            if let Some((name, consumes)) = &operation.body {
                let required = operation.method != "delete";
                let mut body = json!({"name": "body", "in": "body", "schema": v2_ref(name)});
                if required {
                    body["required"] = json!(true);
                }
                if let Some(parameters) = json["parameters"].as_array_mut() {
                    parameters.insert(0, body);
                }
                json["consumes"] = json!(consumes);
            }
            json["produces"] = json!(operation.produces);
            let schema =
                operation.answer.as_deref().map_or_else(|| json!({"type": "string"}), v2_ref);
            json["responses"] = responses(&json!({"description": "OK", "schema": schema}));
        })
    }

    /// The item as OpenAPI v3.
    pub(super) fn to_v3(&self) -> Value {
        let place = |(name, kind, text): &Parameter, within: &str| {
            let mut parameter = json!({"name": name, "in": within, "description": text,
                "schema": {"type": kind, "uniqueItems": true}});
            if within == "path" {
                parameter["required"] = json!(true);
            }
            parameter
        };
        self.to_json(place, |operation, json| {
            let content = |types: &[&str], schema: Value| -> Value {
                types.iter().map(|t| (t.to_string(), json!({"schema": schema}))).collect()
            };
            if let Some((name, consumes)) = &operation.body {
                json["requestBody"] = json!({"content": content(consumes, v3_ref(name))});
            }
            let schema =
                operation.answer.as_deref().map_or_else(|| json!({"type": "string"}), v3_ref);
            let content = content(operation.produces, schema);
            json["responses"] = responses(&json!({"description": "OK", "content": content}));
        })
    }

    fn to_json(
        &self,
        parameter: impl Fn(&Parameter, &str) -> Value,
        finish: impl Fn(&Operation, &mut Value),
    ) -> Value {
        let mut item = Map::new();
        for operation in &self.operations {
            let parameters: Vec<Value> =
                operation.parameters.iter().map(|p| parameter(p, "query")).collect();
            let [group, version, kind] = &operation.gvk;
            let mut json = json!({
                "description": operation.description,
                "operationId": operation.id,
                "tags": [operation.tag],
                "parameters": parameters,
                "x-kubernetes-action": operation.action,
                "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            });
            finish(operation, &mut json);
            item.insert(operation.method.to_owned(), json);
        }
        let within = |p: &Parameter| if *p == PRETTY { "query" } else { "path" };
        let common: Vec<Value> = self.parameters.iter().map(|p| parameter(p, within(p))).collect();
        item.insert("parameters".to_owned(), Value::Array(common));
        Value::Object(item)
    }
}

fn responses(ok: &Value) -> Value {
    json!({"200": ok, "401": {"description": "Unauthorized"}})
}

fn v2_ref(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

fn v3_ref(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn describe(verb: &str, sub: Option<&str>, kind: &str) -> String {
    match (verb, sub) {
        ("list", _) => format!("list or watch objects of kind {kind}"),
        ("deletecollection", _) => format!("delete collection of {kind}"),
        ("create" | "delete", None) => format!("{verb} a {kind}"),
        ("get", None) => format!("read the specified {kind}"),
        ("update", None) => format!("replace the specified {kind}"),
        ("patch", None) => format!("partially update the specified {kind}"),
        (verb, Some(sub)) => format!("{verb} {sub} of the specified {kind}"),
        (verb, None) => format!("{verb} the specified {kind}"),
    }
}

/// `rbac.authorization.k8s.io` becomes `RbacAuthorization`, the core group `Core`.
fn camel_group(group: &str) -> String {
    match group.strip_suffix(".k8s.io").unwrap_or(group) {
        "" => "Core".to_owned(),
        group => group.split('.').map(capital).collect(),
    }
}

fn tag(group: &str, version: &str) -> String {
    let camel = camel_group(group);
    let mut letters = camel.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    format!("{}_{version}", first.into_iter().chain(letters).collect::<String>())
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
