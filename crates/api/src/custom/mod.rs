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
mod pattern;
mod rules;
mod structural;
mod value;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

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

/// The text of a definition as it is stored, shared with whoever stores it.
pub type Source = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A defined kind, all its versions. Schemas are read when an object of the kind is met: most
/// kinds of a cluster are never used, and a schema takes many times its text.
pub struct Custom {
    versions: Vec<Version>,
    /// `spec.conversion.webhook`, where objects are converted by one.
    pub conversion: Option<Value>,
    /// The definition's uid: another one of the same name defines other objects.
    pub uid: String,
    source: Source,
    /// What two definitions are compared by.
    fingerprint: [u64; 2],
}

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Custom").field("uid", &self.uid).finish_non_exhaustive()
    }
}

/// One version of a defined kind.
struct Version {
    name: String,
    columns: Vec<Column>,
    scale: Option<Scale>,
    made: OnceLock<Made>,
}

/// What a version's schema comes to.
struct Made {
    /// `openAPIV3Schema` without its descriptions, which are most of it.
    schema: Value,
    compiled: compile::Compiled,
    rules: Option<rules::Rules>,
}

impl Made {
    fn of(mut schema: Value) -> Self {
        structural::forget_words(&mut schema);
        let (compiled, rules) = (compile::Compiled::of(&schema), rules::Rules::of(&schema, true));
        Made { schema, compiled, rules }
    }
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
        self.uid == other.uid && self.fingerprint == other.fingerprint
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.uid, &self.fingerprint).hash(state);
    }
}

impl Custom {
    /// Reads a definition, whose text is `source`.
    pub fn read(definition: &Value, source: Source) -> Self {
        let spec = &definition["spec"];
        let webhook = spec["conversion"]["strategy"] == "Webhook";
        Custom {
            versions: list(&spec["versions"]).iter().map(Version::read).collect(),
            conversion: webhook.then(|| spec["conversion"]["webhook"].clone()),
            uid: definition["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            source,
            fingerprint: fingerprint(spec),
        }
    }

    fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    fn made(&self, name: &str) -> Option<&Made> {
        let version = self.version(name)?;
        Some(version.made.get_or_init(|| {
            let read = serde_json::from_slice::<Value>((*self.source).as_ref());
            let definition = read.unwrap_or_default();
            let versions = list(&definition["spec"]["versions"]).iter();
            let found = versions.clone().find(|version| version["name"] == name);
            Made::of(found.map_or(Value::Null, |v| v["schema"]["openAPIV3Schema"].clone()))
        }))
    }

    /// How values of a version merge.
    pub(crate) fn schema(&self, version: &str) -> Option<Schema<'_>> {
        self.made(version).map(|made| made.compiled.schema())
    }

    /// What a version's schema says, without its descriptions.
    pub fn described(&self, version: &str) -> Option<&Value> {
        self.made(version).map(|made| &made.schema)
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
        self.made(version).map_or_else(Vec::new, |made| structural::prune(&made.schema, object))
    }

    /// Fills in what the version's schema has a default for.
    pub fn default(&self, version: &str, object: &mut Value) {
        if let Some(made) = self.made(version) {
            structural::default(&made.schema, object);
        }
    }

    /// What is wrong with the values of an object. What `old` had already is not held against a
    /// change that leaves it as it is (KEP-4008).
    pub fn validate(&self, version: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Some(made) = self.made(version) else { return Vec::new() };
        let mut errors = value::validate(&made.schema, object, old);
        let Some(rules) = &made.rules else { return errors };
        // Rules may rely on types, on what is required, on enumerated values and on sizes.
        let blocks = |error: &FieldError| {
            use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
            matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
        };
        if errors.iter().any(blocks) {
            errors.push(FieldError::invalid(Path::default(), Value::Null, NOT_CHECKED));
        } else {
            errors.extend(judged(rules, object, old));
        }
        errors
    }

    /// What is wrong with a change that leaves all values of an object as they are: what rules
    /// about changes say, since nothing else is held against what stays.
    pub fn validate_kept(&self, version: &str, object: &Value) -> Vec<FieldError> {
        let rules = self.made(version).and_then(|made| made.rules.as_ref());
        rules.map_or_else(Vec::new, |rules| judged(rules, object, Some(object)))
    }
}

fn judged(rules: &rules::Rules, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut judge = rules::Judge::default();
    judge.check(rules, object, old, &Path::default());
    judge.errors
}

impl Version {
    fn read(version: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let scale = &version["subresources"]["scale"];
        Version {
            name: text(&version["name"]).unwrap_or_default(),
            columns: list(&version["additionalPrinterColumns"]).iter().map(Column::read).collect(),
            scale: scale.is_object().then(|| Scale {
                spec: text(&scale["specReplicasPath"]).unwrap_or_default(),
                status: text(&scale["statusReplicasPath"]).unwrap_or_default(),
                selector: text(&scale["labelSelectorPath"]).filter(|path| !path.is_empty()),
            }),
            made: OnceLock::new(),
        }
    }
}

/// The rows that a definition adds to the table of resources: none as long as its names are not
/// accepted or it is not established. Served versions are rows of their own that share a
/// collection, the preferred one first. `source` is the definition's text; what `before` has read
/// of the same specification is kept.
pub fn resources(
    definition: &Value,
    source: Source,
    before: Option<&Arc<Custom>>,
) -> Vec<Resource> {
    if !holds(definition, "Established") {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<Text> {
        list(value).iter().map(|one| Text::from(text(one))).collect()
    };
    let read = Arc::new(Custom::read(definition, source));
    let custom = before.filter(|before| **before == read).map_or(read, Arc::clone);
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

/// Two sums over a text that are different where the texts are, for all that happens by accident.
fn fingerprint(spec: &Value) -> [u64; 2] {
    let text = spec.to_string();
    [0_u64, 1].map(|salt| {
        let mut hasher = std::hash::DefaultHasher::new();
        (salt, &text).hash(&mut hasher);
        hasher.finish()
    })
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
