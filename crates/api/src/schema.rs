//! Structural schemas of the built-in kinds: field types and how lists and maps merge.
//!
//! One walk over these serves decoding checks, pruning, strategic merge patches and server-side
//! apply. The alternative, decoding into Rust types, refuses some legal objects and knows nothing
//! of merging. The data is generated (`cargo xtask generate`) and takes some hundred KiB once used.

use crate::resource::Resource;

mod check;
mod decode;
mod settle;
mod types;

pub use check::{Problem, decode_error, strict_error};
pub use decode::{decode, duplicate_field, order};
pub(crate) use types::{documents, documents_hash, is_definition, reachable};

pub(crate) use types::{Definition, Field, Merge, Node, Shape, Struct, Types};

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A string.
    String,
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// Any number.
    Number,
    /// A boolean.
    Boolean,
    /// Bytes, base64 in JSON.
    Bytes,
    /// An RFC 3339 time with seconds.
    Time,
    /// An RFC 3339 time with microseconds.
    MicroTime,
    /// `resource.Quantity`: a string, or a number when read.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// Any JSON value.
    Any,
    /// An object with known fields.
    Object,
    /// A list.
    List,
    /// An object whose keys are data.
    Map,
}

/// How lists of two writers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value. Holds for lists that say nothing.
    Atomic,
    /// A set of scalars.
    Set,
    /// Items are told apart by their key fields.
    Map,
}

/// A place in an object: its type, and how values there merge.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    types: &'a Types,
    /// What the field says; for a reference the target says the rest.
    node: &'a Node,
    target: &'a Node,
    definition: Option<&'a Definition>,
}

impl Schema<'static> {
    /// Schema of a built-in kind.
    pub fn of(group: &str, version: &str, kind: &str) -> Option<Self> {
        let types = types::builtin();
        Some(Schema::new(types, types.kind(group, version, kind)?))
    }

    /// Schema of a definition by its OpenAPI name, for instance
    /// `io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta`.
    pub fn of_definition(name: &str) -> Option<Self> {
        let types = types::builtin();
        Some(Schema::new(types, types.definition(name)?))
    }
}

impl<'a> Schema<'a> {
    /// Schema of a kind in one of its versions, built in or defined.
    pub fn of_resource(resource: &'a Resource, version: &str) -> Option<Self> {
        match &resource.custom {
            Some(custom) => custom.schema(version),
            None => Schema::of(&resource.group, version, &resource.kind),
        }
    }

    /// The first type of a table.
    pub(crate) fn root(types: &'a Types) -> Self {
        Self::new(types, &types.definitions[0])
    }

    /// Whether an object may have fields beside those that are named.
    pub fn is_open(&self) -> bool {
        self.structure().is_some_and(|structure| structure.open)
    }

    fn new(types: &'a Types, definition: &'a Definition) -> Self {
        Self {
            types,
            node: &definition.node,
            target: &definition.node,
            definition: Some(definition),
        }
    }

    fn below(&self, node: &'a Node) -> Self {
        match &node.shape {
            Shape::Ref(number) => {
                let definition = &self.types.definitions[*number as usize];
                Self { node, ..Self::new(self.types, definition) }
            }
            _ => Self { types: self.types, node, target: node, definition: None },
        }
    }

    /// What the value has to be.
    pub fn kind(&self) -> Type {
        match &self.target.shape {
            Shape::Scalar(kind) => *kind,
            Shape::List(_) => Type::List,
            Shape::Map(_) => Type::Map,
            Shape::Struct(_) => Type::Object,
            // A definition is never another name for a definition; the loader refuses it.
            Shape::Ref(_) => Type::Any,
        }
    }

    /// OpenAPI name of the definition, for objects and named types.
    pub fn name(&self) -> Option<&'a str> {
        self.definition.map(|definition| definition.name.as_ref())
    }

    /// Schema of a field of an object.
    pub fn field(&self, name: &str) -> Option<Self> {
        Some(self.below(&self.structure()?.field(name)?.node))
    }

    /// All fields of an object, ordered by name.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let schema = *self;
        let fields = self.structure().map_or(&[][..], |s| &s.fields);
        fields.iter().map(move |field| (field.name.as_ref(), schema.below(&field.node)))
    }

    /// Names of the fields an object must have.
    pub fn required(&self) -> impl Iterator<Item = &'a str> {
        let fields = self.structure().map_or(&[][..], |s| &s.fields);
        fields.iter().filter(|field| field.required).map(|field| field.name.as_ref())
    }

    /// Schema of a list's items.
    pub fn items(&self) -> Option<Self> {
        match &self.target.shape {
            Shape::List(item) => Some(self.below(item)),
            _ => None,
        }
    }

    /// Schema of a map's values.
    pub fn additional(&self) -> Option<Self> {
        match &self.target.shape {
            Shape::Map(value) => Some(self.below(value)),
            _ => None,
        }
    }

    /// Schema of what lies under `name` in an object or a map.
    pub fn member(&self, name: &str) -> Option<Self> {
        self.field(name).or_else(|| self.additional())
    }

    /// How server-side apply merges this list.
    pub fn list_type(&self) -> ListType {
        match self.merge().and_then(|m| m.list_type.as_deref()) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        }
    }

    /// Fields that together tell the items of a list of type `map` apart.
    pub fn map_keys(&self) -> &'a [Box<str>] {
        self.merge().map_or(&[], |m| &m.keys)
    }

    /// Whether server-side apply takes this object or map as one value.
    pub fn is_atomic(&self) -> bool {
        self.merge().is_some_and(|m| m.atomic) || self.definition.is_some_and(|d| d.atomic)
    }

    /// Field by which a strategic merge patch tells the items of this list apart.
    pub fn patch_merge_key(&self) -> Option<&'a str> {
        self.merge()?.patch_key.as_deref()
    }

    /// Whether a strategic merge patch merges this list instead of replacing it.
    pub fn patch_merges(&self) -> bool {
        self.has_strategy("merge")
    }

    /// Whether a strategic merge patch replaces this object or list.
    pub fn patch_replaces(&self) -> bool {
        self.has_strategy("replace")
    }

    /// Whether a strategic merge patch may drop the fields that it does not list (`$retainKeys`).
    pub fn patch_retains_keys(&self) -> bool {
        self.has_strategy("retainKeys")
    }

    /// Value that stands for a missing one when the field is the key of a list's item.
    pub fn default_value(&self) -> Option<&'a str> {
        self.merge()?.default.as_deref()
    }

    fn has_strategy(&self, wanted: &str) -> bool {
        let strategies = self.merge().and_then(|m| m.patch_strategy.as_deref());
        strategies.is_some_and(|s| s.split(',').any(|strategy| strategy == wanted))
    }

    fn merge(&self) -> Option<&'a Merge> {
        self.node.merge.as_deref()
    }

    fn structure(&self) -> Option<&'a Struct> {
        match &self.target.shape {
            Shape::Struct(structure) => Some(structure),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::RESOURCES;

    fn at<'a>(mut schema: Schema<'a>, path: &str) -> Schema<'a> {
        for name in path.split('.').filter(|name| !name.is_empty()) {
            schema = match name {
                "[]" => schema.items().unwrap(),
                "{}" => schema.additional().unwrap(),
                name => schema.field(name).unwrap_or_else(|| panic!("no {name} in {path}")),
            };
        }
        schema
    }

    #[test]
    fn every_served_kind_has_a_schema() {
        for resource in RESOURCES.iter() {
            for version in &resource.versions {
                let schema = Schema::of(&resource.group, version, &resource.kind);
                let schema = schema.unwrap_or_else(|| panic!("{} {version}", resource.qualified()));
                assert!(
                    schema.field("metadata").is_some() || !resource.stored,
                    "{}",
                    resource.kind
                );
                if !resource.list_kind.is_empty() {
                    let list = Schema::of(&resource.group, version, &resource.list_kind).unwrap();
                    assert_eq!(at(list, "items.[]").name(), schema.name());
                }
            }
        }
        for (group, kind) in [
            ("policy", "Eviction"),
            ("autoscaling", "Scale"),
            ("authentication.k8s.io", "TokenRequest"),
            ("", "DeleteOptions"),
            ("apps", "DeleteOptions"),
        ] {
            assert!(Schema::of(group, "v1", kind).is_some(), "{group} {kind}");
        }
        assert!(Schema::of("apps", "v1beta1", "Deployment").is_none());
    }

    #[test]
    fn knows_types() {
        let pod = Schema::of("", "v1", "Pod").unwrap();
        for (path, expected) in [
            ("", Type::Object),
            ("metadata.labels", Type::Map),
            ("metadata.labels.{}", Type::String),
            ("metadata.creationTimestamp", Type::Time),
            ("metadata.managedFields.[].fieldsV1", Type::Any),
            ("spec.containers", Type::List),
            ("spec.containers.[].ports.[].containerPort", Type::Int32),
            ("spec.containers.[].livenessProbe.httpGet.port", Type::IntOrString),
            ("spec.containers.[].resources.limits.{}", Type::Quantity),
            ("spec.activeDeadlineSeconds", Type::Int64),
            ("spec.hostNetwork", Type::Boolean),
        ] {
            assert_eq!(at(pod, path).kind(), expected, "{path}");
        }
        assert_eq!(at(Schema::of("", "v1", "Secret").unwrap(), "data.{}").kind(), Type::Bytes);
        let lease = Schema::of("coordination.k8s.io", "v1", "Lease").unwrap();
        assert_eq!(at(lease, "spec.renewTime").kind(), Type::MicroTime);
    }

    #[test]
    fn knows_how_values_merge() {
        let pod = Schema::of("", "v1", "Pod").unwrap();
        let keys = |s: Schema<'_>| s.map_keys().join(",");
        let ports = at(pod, "spec.containers.[].ports");
        assert_eq!(
            (ports.list_type(), keys(ports)),
            (ListType::Map, "containerPort,protocol".into())
        );
        assert_eq!(ports.patch_merge_key(), Some("containerPort"));
        assert_eq!(at(ports, "[].protocol").default_value(), Some("TCP"));
        let finalizers = at(pod, "metadata.finalizers");
        assert_eq!(finalizers.list_type(), ListType::Set);
        assert!(finalizers.patch_merges());
        let volumes = at(pod, "spec.volumes");
        assert!(volumes.patch_merges() && volumes.patch_retains_keys());
        assert_eq!(at(pod, "spec.tolerations").list_type(), ListType::Atomic);
        assert!(at(pod, "spec.nodeSelector").is_atomic());
        assert!(!at(pod, "spec.securityContext").is_atomic());
        let deployment = Schema::of("apps", "v1", "Deployment").unwrap();
        assert!(at(deployment, "spec.selector").is_atomic());
        assert!(at(deployment, "spec.strategy").patch_retains_keys());
        let required: Vec<&str> = at(deployment, "spec").required().collect();
        assert_eq!(required, ["selector", "template"]);
    }

    /// The compact table against the official definitions that travel in the same file.
    #[test]
    fn agrees_with_the_official_definitions() {
        let mut fields = 0;
        documents(|name, text| {
            let definition: serde_json::Value = serde_json::from_str(text).unwrap();
            let schema = Schema::of_definition(name).unwrap();
            let properties = definition["properties"].as_object();
            for (field, official) in properties.into_iter().flatten() {
                let ours = schema.field(field).unwrap();
                let text = |key: &str| official[key].as_str();
                assert_eq!(ours.patch_merge_key(), text("x-kubernetes-patch-merge-key"));
                let list_type = match text("x-kubernetes-list-type") {
                    Some("map") => ListType::Map,
                    Some("set") => ListType::Set,
                    _ => ListType::Atomic,
                };
                assert_eq!(ours.list_type(), list_type, "{name} {field}");
                let keys: Vec<Box<str>> = official["x-kubernetes-list-map-keys"]
                    .as_array()
                    .map(|keys| keys.iter().filter_map(|k| k.as_str().map(Box::from)).collect())
                    .unwrap_or_default();
                assert_eq!(ours.map_keys(), keys);
                let strategy = text("x-kubernetes-patch-strategy").unwrap_or_default();
                assert_eq!(ours.patch_merges(), strategy.contains("merge"));
                fields += 1;
            }
        });
        assert!(fields > 2400, "{fields}");
    }
}
