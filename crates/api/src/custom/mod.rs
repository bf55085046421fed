//! Kinds that a CustomResourceDefinition defines: what their schema makes of an object (pruned,
//! defaulted, judged), their columns, their scale. All of it is read from the definition as it is
//! stored; nothing is generated, so that a definition counts from the next request on.
//! Source: k8s.io/apiextensions-apiserver.

mod acceptance;
mod column;
mod compile;
pub mod definition;
mod document;
mod format;
mod path;
mod rules;
mod structural;
mod value;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use crate::resource::{Resource, Subresource, Text, VIEW_VERBS, qualified};
use crate::schema::Schema;
use crate::status::{FieldError, FieldErrorKind, Path};

pub use acceptance::{set_condition, status};
pub use column::Column;
pub use document::documents;
pub(crate) use document::name as document_name;
pub use path::{get, set};

const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// A defined kind, all its versions.
#[derive(Debug)]
pub struct Custom {
    versions: Vec<Version>,
    /// `spec.conversion.webhook`, where objects are converted by one.
    pub conversion: Option<Value>,
    /// The definition's uid: another one of the same name defines other objects.
    pub uid: String,
    /// What two definitions are compared by.
    spec: String,
}

/// One version of a defined kind.
#[derive(Debug)]
struct Version {
    name: String,
    /// `openAPIV3Schema` without its descriptions, which are most of it.
    schema: Value,
    compiled: compile::Compiled,
    rules: Option<rules::Rules>,
    columns: Vec<Column>,
    scale: Option<Scale>,
}

/// Where a kind has its replicas: paths in JSONPath of dots, such as `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// What is wished for.
    pub spec: String,
    /// What there is.
    pub status: String,
    /// The selector as text, if the kind has one.
    pub selector: Option<String>,
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid && self.spec == other.spec
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.uid, &self.spec).hash(state);
    }
}

impl Custom {
    /// Reads a definition.
    pub fn read(definition: &Value) -> Self {
        let spec = &definition["spec"];
        let webhook = spec["conversion"]["strategy"] == "Webhook";
        Custom {
            versions: list(&spec["versions"]).iter().map(Version::read).collect(),
            conversion: webhook.then(|| spec["conversion"]["webhook"].clone()),
            uid: definition["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            spec: spec.to_string(),
        }
    }

    fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// How values of a version merge.
    pub(crate) fn schema(&self, version: &str) -> Option<Schema<'_>> {
        self.version(version).map(|version| version.compiled.schema())
    }

    /// Columns of a table beside the name; none: the age.
    pub fn columns(&self, version: &str) -> &[Column] {
        self.version(version).map_or(&[], |version| &version.columns)
    }

    /// Where the replicas are, if the version can be scaled.
    pub fn scale(&self, version: &str) -> Option<&Scale> {
        self.version(version)?.scale.as_ref()
    }

    /// Drops the fields that the version's schema does not know, and names them.
    pub fn prune(&self, version: &str, object: &mut Value) -> Vec<String> {
        self.version(version).map_or_else(Vec::new, |v| structural::prune(&v.schema, object))
    }

    /// Fills in what the version's schema has a default for.
    pub fn default(&self, version: &str, object: &mut Value) {
        if let Some(version) = self.version(version) {
            structural::default(&version.schema, object);
        }
    }

    /// What is wrong with the values of an object. What `old` had already is not held against a
    /// change that leaves it as it is (KEP-4008).
    pub fn validate(&self, version: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Some(version) = self.version(version) else { return Vec::new() };
        let mut errors = value::validate(&version.schema, object, old);
        let Some(rules) = &version.rules else { return errors };
        // Rules may rely on types, on what is required, and on sizes.
        let blocks = |error: &FieldError| {
            use FieldErrorKind::{Required, TooLong, TooMany, TypeInvalid};
            matches!(error.kind, Required | TooLong | TooMany | TypeInvalid)
        };
        if errors.iter().any(blocks) {
            errors.push(FieldError::invalid(Path::default(), Value::Null, NOT_CHECKED));
        } else {
            rules.check(object, old, &Path::default(), &mut errors);
        }
        errors
    }
}

impl Version {
    fn read(version: &Value) -> Self {
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        structural::forget_words(&mut schema);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let scale = &version["subresources"]["scale"];
        Version {
            name: text(&version["name"]).unwrap_or_default(),
            compiled: compile::Compiled::of(&schema),
            rules: rules::Rules::of(&schema, true),
            columns: list(&version["additionalPrinterColumns"]).iter().map(Column::read).collect(),
            scale: scale.is_object().then(|| Scale {
                spec: text(&scale["specReplicasPath"]).unwrap_or_default(),
                status: text(&scale["statusReplicasPath"]).unwrap_or_default(),
                selector: text(&scale["labelSelectorPath"]).filter(|path| !path.is_empty()),
            }),
            schema,
        }
    }
}

/// The rows that a definition adds to the table of resources: none as long as its names are not
/// accepted or it is not established. Served versions are rows of their own that share a
/// collection, the preferred one first.
pub fn resources(definition: &Value) -> Vec<Resource> {
    if !holds(definition, "Established") {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<Text> {
        list(value).iter().map(|one| Text::from(text(one))).collect()
    };
    let custom = Arc::new(Custom::read(definition));
    let versions = list(&spec["versions"]);
    let storage = versions.iter().find(|version| version["storage"] == true);
    let storage = text(storage.map_or(&Value::Null, |version| &version["name"]));
    let mut served: Vec<&Value> = versions.iter().filter(|v| v["served"] == true).collect();
    served.sort_by_key(|version| definition::priority(version["name"].as_str().unwrap_or("")));
    let row = |version: &&Value| {
        let fields = list(&version["selectableFields"]).iter().map(|field| &field["jsonPath"]);
        Resource {
            storage_version: storage.clone().into(),
            list_kind: text(&names["listKind"]).into(),
            singular: text(&names["singular"]).into(),
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            namespaced: spec["scope"] == "Namespaced",
            subresources: subresources(&version["subresources"], &text(&names["kind"])),
            selectable_fields: fields
                .map(|path| text(path).trim_start_matches('.').to_owned().into())
                .collect(),
            custom: Some(Arc::clone(&custom)),
            ..Resource::new(
                text(&spec["group"]),
                text(&version["name"]),
                text(&names["kind"]),
                text(&names["plural"]),
            )
        }
    };
    served.iter().map(row).collect()
}

fn subresources(given: &Value, kind: &str) -> Vec<Subresource> {
    let view = |name: &'static str, group: Option<&'static str>, kind: Text| Subresource {
        name: name.into(),
        group: group.map(Text::from),
        version: group.map(|_| "v1".into()),
        kind,
        verbs: VIEW_VERBS,
    };
    let mut all = Vec::new();
    if given["scale"].is_object() {
        all.push(view("scale", Some("autoscaling"), "Scale".into()));
    }
    if given["status"].is_object() {
        all.push(view("status", None, kind.to_owned().into()));
    }
    all
}

/// Whether a definition's condition is true.
pub fn holds(definition: &Value, condition: &str) -> bool {
    let conditions = list(&definition["status"]["conditions"]);
    conditions.iter().any(|one| one["type"] == condition && one["status"] == "True")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `plural.group`.
pub fn name(definition: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spec = &definition["spec"];
    qualified(&text(&spec["names"]["plural"]).into(), &text(&spec["group"])).into_owned()
}
