//! `metadata.managedFields`: who owns which fields.

use super::Manager;
use super::set::Set;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most managers that are told apart by name for writes that are no apply; as upstream.
const UPDATE_MANAGERS_MAX: usize = 10;
/// Manager to which the fields of the oldest are counted beyond that.
const ANCIENT: &str = "ancient-changes";
/// Manager of what an object had before somebody applied to it first.
pub(super) const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// An entry of `managedFields`.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    /// `metav1.Time` in text; such times compare as texts.
    pub(super) time: Option<String>,
    pub(super) set: Set,
}

impl Owner {
    /// The entry that a write makes.
    pub(super) fn new(manager: &Manager<'_>, operation: Operation, set: Set) -> Self {
        Self {
            manager: if manager.name.is_empty() { "unknown" } else { manager.name }.to_owned(),
            operation,
            api_version: manager.api_version.to_owned(),
            subresource: manager.subresource.to_owned(),
            time: Some(manager.time.to_owned()),
            set,
        }
    }

    /// Whether two entries are one manager's: an applier stays the same in another version.
    pub(super) fn is(&self, other: &Owner) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager as messages name it.
    pub(super) fn title(&self) -> String {
        let mut title = crate::status::go_quote(&self.manager);
        if !self.subresource.is_empty() {
            title.push_str(" with subresource ");
            title.push_str(&crate::status::go_quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            title.push_str(&format!(" using {}", self.api_version));
        }
        title
    }

    fn parse(entry: &Value) -> Option<Self> {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let operation = match entry["operation"].as_str()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() || entry["fieldsType"] != "FieldsV1" {
            return None;
        }
        let fields = &entry["fieldsV1"];
        let set = if fields.is_null() { Set::default() } else { Set::parse(fields)? };
        let time = entry["time"].as_str().map(str::to_owned);
        let (manager, subresource) = (text("manager"), text("subresource"));
        Some(Self { manager, operation, api_version, subresource, time, set })
    }

    fn into_value(self) -> Value {
        let mut entry = Map::with_capacity(7);
        let mut put = |name: &str, value: Value| entry.insert(name.to_owned(), value);
        put("manager", self.manager.into());
        put("operation", format!("{:?}", self.operation).into());
        put("apiVersion", self.api_version.into());
        if let Some(time) = self.time {
            put("time", time.into());
        }
        put("fieldsType", "FieldsV1".into());
        put("fieldsV1", self.set.into_value());
        if !self.subresource.is_empty() {
            put("subresource", self.subresource.into());
        }
        Value::Object(entry)
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners(pub(super) Vec<Owner>);

impl Owners {
    /// Reads `managedFields`; `None` where an entry is broken. Nothing at all is no owners.
    pub(super) fn parse(list: &Value) -> Option<Self> {
        let mut owners = Self::default();
        for entry in list.as_array().into_iter().flatten() {
            let owner = Owner::parse(entry)?;
            owners.0.retain(|other| !other.is(&owner));
            owners.0.push(owner);
        }
        Some(owners)
    }

    /// Whether a writer asks for all owners to be forgotten: one entry, and it is empty.
    pub(super) fn is_reset(list: &Value) -> bool {
        *list == json!([{}])
    }

    /// Adds fields to a manager, which is made where it is missing.
    pub(super) fn add(&mut self, owner: Owner) {
        match self.0.iter_mut().find(|other| other.is(&owner)) {
            Some(found) => {
                found.set.add(owner.set);
                found.time = owner.time;
            }
            None => self.0.push(owner),
        }
    }

    /// Forgets managers that own nothing.
    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|owner| !owner.set.is_empty());
    }

    /// Counts the fields of the oldest updaters to one manager a version, where there are too many.
    pub(super) fn cap(&mut self) {
        let is_update = |owner: &Owner| owner.operation == Operation::Update;
        let mut count = self.0.iter().filter(|owner| is_update(owner)).count();
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        let (mut updaters, mut kept): (Vec<_>, Vec<_>) = self.0.drain(..).partition(is_update);
        updaters.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
        // By version: the one that may become the bucket, for a bucket of one gains nothing.
        let mut buckets: BTreeMap<String, Owner> = BTreeMap::new();
        for owner in updaters {
            if count <= UPDATE_MANAGERS_MAX {
                kept.push(owner);
                continue;
            }
            match buckets.get_mut(&owner.api_version) {
                Some(bucket) => {
                    ANCIENT.clone_into(&mut bucket.manager);
                    bucket.subresource.clear();
                    bucket.set.add(owner.set);
                    bucket.time = owner.time;
                    count -= 1;
                }
                None => {
                    buckets.insert(owner.api_version.clone(), owner);
                }
            }
        }
        self.0 = kept;
        for bucket in buckets.into_values() {
            self.add(bucket);
        }
    }

    /// Writes `managedFields`, in upstream's order.
    pub(super) fn into_value(self) -> Value {
        let mut owners = self.0;
        owners.sort_by(|a, b| {
            (a.operation, &a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(
                b.operation,
                &b.time,
                &b.manager,
                &b.api_version,
                &b.subresource,
            ))
        });
        Value::Array(owners.into_iter().map(Owner::into_value).collect())
    }
}
