//! What a controller wants done, as data: it can be printed and compared before anything
//! is touched. The driver (`crate::driver`) carries it out.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Map, Value};

/// Any built-in kind that controllers read or write.
pub trait Kind:
    kube::Resource<DynamicType = ()>
    + k8s_openapi::Resource
    + serde::Serialize
    + serde::de::DeserializeOwned
    + Clone
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: kube::Resource<DynamicType = ()>
        + k8s_openapi::Resource
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// Where an object lives in the API. A cluster-scoped object has an empty namespace; one
/// that is yet to be named by `generateName` has an empty name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// As in the object's `apiVersion`: `v1`, `apps/v1`.
    pub api_version: String,
    /// The kind, as in `kind`.
    pub kind: String,
    /// The resource's plural name, as in the URL.
    pub plural: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
}

impl Target {
    /// The place of `object`.
    pub fn of<K: Kind>(object: &K) -> Self {
        let meta = object.meta();
        Target::named::<K>(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// The place of the object of kind `K` with this name.
    pub fn named<K: Kind>(namespace: &str, name: &str) -> Self {
        Target {
            api_version: K::API_VERSION.to_owned(),
            kind: K::KIND.to_owned(),
            plural: K::URL_PATH_SEGMENT.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The collection's path below the API server's root.
    pub fn path(&self) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        match self.namespace.as_str() {
            "" => format!("{root}/{}/{}", self.api_version, self.plural),
            ns => format!("{root}/{}/namespaces/{ns}/{}", self.api_version, self.plural),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            ns => write!(f, "{} {ns}/{}", self.kind, self.name),
        }
    }
}

/// An event about an object, as `kubectl describe` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What it is about.
    pub regarding: ObjectReference,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// Upstream's reason in CamelCase.
    pub reason: &'static str,
    /// Upstream's wording.
    pub note: String,
}

/// What to say when an action has gone well or badly. The object's name (well) or the API
/// server's answer (badly) follows the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Announce {
    /// The object the event is about.
    pub regarding: ObjectReference,
    /// Reason and text on success; none: silent.
    pub done: Option<(&'static str, &'static str)>,
    /// Reason and text on failure.
    pub failed: (&'static str, Cow<'static, str>),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create `body`. Neighbouring creations go out together, in batches that double in
    /// size, so that a quota or a broken webhook is not hammered.
    Create {
        /// Where; the name is empty with `generateName`.
        target: Target,
        /// The whole object.
        body: Box<Value>,
        /// Events to record.
        announce: Option<Announce>,
    },
    /// JSON merge patch; carries `metadata.resourceVersion`, so a stale view is refused.
    Patch {
        /// Which object.
        target: Target,
        /// Empty, or `status`, `scale`, `finalize`.
        subresource: &'static str,
        /// RFC 7396 patch.
        patch: Box<Value>,
    },
    /// Delete the object with this UID, no other of the same name.
    Delete {
        /// Which object.
        target: Target,
        /// Precondition.
        uid: String,
        /// `Foreground`, `Background`, `Orphan`; none: the server's default.
        propagation: Option<&'static str>,
        /// Seconds; none: the object's own.
        grace_seconds: Option<u32>,
        /// Events to record.
        announce: Option<Announce>,
    },
    /// Record an event.
    Event(Notice),
}

impl Action {
    /// Creation of `object`.
    pub fn create<K: Kind>(object: &K, announce: Option<Announce>) -> Action {
        let mut body = to_value(object);
        if let Some(map) = body.as_object_mut() {
            map.entry("apiVersion").or_insert_with(|| K::API_VERSION.into());
            map.entry("kind").or_insert_with(|| K::KIND.into());
        }
        Action::Create { target: Target::of(object), body: Box::new(body), announce }
    }

    /// The patch that turns `before` into `after`, or none where they are equal.
    pub fn change<K: Kind>(before: &K, after: &K, subresource: &'static str) -> Option<Action> {
        let mut patch = merge_diff(&to_value(before), &to_value(after))?;
        let version = before.meta().resource_version.clone();
        patch
            .as_object_mut()?
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()?
            .insert("resourceVersion".into(), version.into());
        Some(Action::Patch { target: Target::of(before), subresource, patch: Box::new(patch) })
    }

    /// Deletion of `object`.
    pub fn delete<K: Kind>(object: &K, announce: Option<Announce>) -> Action {
        Action::Delete {
            target: Target::of(object),
            uid: object.meta().uid.clone().unwrap_or_default(),
            propagation: Some("Background"),
            grace_seconds: None,
            announce,
        }
    }

    /// An event about `object`.
    pub fn event<K: Kind>(object: &K, warning: bool, reason: &'static str, note: String) -> Action {
        Action::Event(Notice { regarding: reference(object), warning, reason, note })
    }
}

/// A reference to `object`, as events and endpoints carry it.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        resource_version: object.meta().resource_version.clone(),
        field_path: None,
    }
}

/// What is to be done now, and when to look again though nothing has changed by then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The next known deadline.
    pub again: Option<jiff::Timestamp>,
}

impl Plan {
    /// Adds an action, where there is one.
    pub fn push(&mut self, action: impl IntoIterator<Item = Action>) {
        self.actions.extend(action);
    }

    /// Asks for another look at `when`; the earliest wish counts.
    pub fn look_again(&mut self, when: jiff::Timestamp) {
        self.again = Some(self.again.map_or(when, |known| known.min(when)));
    }
}

impl From<Vec<Action>> for Plan {
    fn from(actions: Vec<Action>) -> Self {
        Plan { actions, again: None }
    }
}

/// The RFC 7396 patch from `before` to `after`; none where nothing differs.
pub fn merge_diff(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for (name, value) in new {
        let changed = match old.get(name) {
            Some(previous) => merge_diff(previous, value),
            None => Some(value.clone()),
        };
        if let Some(changed) = changed {
            patch.insert(name.clone(), changed);
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn to_value<K: serde::Serialize>(object: &K) -> Value {
    // Kubernetes types have string keys and no failing serializers.
    serde_json::to_value(object).unwrap_or_default()
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Create { target, body, .. } => {
                write!(f, "create {target}")?;
                if let Some(prefix) = body["metadata"]["generateName"].as_str() {
                    write!(f, "{prefix}*")?;
                }
                Ok(())
            }
            Action::Patch { target, subresource, patch } => {
                let mut patch = patch.as_ref().clone();
                if let Some(meta) = patch["metadata"].as_object_mut() {
                    meta.remove("resourceVersion");
                    if meta.is_empty()
                        && let Some(map) = patch.as_object_mut()
                    {
                        map.remove("metadata");
                    }
                }
                let slash = if subresource.is_empty() { "" } else { "/" };
                write!(f, "patch {target}{slash}{subresource} {patch}")
            }
            Action::Delete { target, .. } => write!(f, "delete {target}"),
            Action::Event(notice) => {
                let class = if notice.warning { "Warning" } else { "Normal" };
                write!(f, "event {class} {}: {}", notice.reason, notice.note)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_diff_is_minimal() {
        let before = json!({"a": 1, "b": {"c": [1], "d": 2}, "gone": true});
        let after = json!({"a": 1, "b": {"c": [1, 2], "d": 2}});
        assert_eq!(merge_diff(&before, &after), Some(json!({"b": {"c": [1, 2]}, "gone": null})));
        assert_eq!(merge_diff(&after, &after), None);
    }
}
