//! What a plan is made from besides the object's key.

use std::fmt;

use jiff::Timestamp;

use crate::Config;
use crate::world::World;

/// Which object a controller is to look at. Cluster-scoped objects have no namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The key of `object`.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Key::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// What went wrong the last time the plan for this key was carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason given with the action, such as `FailedCreate`.
    pub reason: &'static str,
    /// The API server's answer.
    pub message: String,
}

/// Everything that a plan may look at.
pub struct Cx<'a> {
    /// The caches.
    pub world: &'a World,
    /// The time.
    pub now: Timestamp,
    /// The cluster's settings.
    pub config: &'a Config,
    /// The last failure for this key, until the same plan succeeds.
    pub failure: Option<&'a Failure>,
}
