//! Admission: what a write meets between authorization and validation. A chain of small
//! functions over one [`Attributes`], in upstream's order; each looks at what it cares for and
//! lets the rest pass. Quotas, limit ranges, policies and webhooks join the same chain.

mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod tolerations;

use api::resource::Resource;
use serde_json::Value;

use crate::config::Tolerations;
use crate::registry::Outcome;
use crate::user::User;

/// What is about to happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It changes; patches are updates.
    Update,
    /// It goes.
    Delete,
}

/// Read access to the cluster's state, as the admission functions need it.
pub trait Cluster: Send + Sync {
    /// The object as stored, `None` where there is none.
    fn find(&self, collection: &str, namespace: &str, name: &str) -> Option<Value>;
    /// All objects of a collection.
    fn all(&self, collection: &str) -> Vec<Value>;
    /// How long pods stay on a node that is lost when they say nothing.
    fn tolerations(&self) -> Tolerations;
}

/// A write and its surroundings.
pub struct Attributes<'a> {
    /// What happens.
    pub operation: Operation,
    /// To which kind.
    pub resource: &'a Resource,
    /// Through which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty for cluster scope.
    pub namespace: &'a str,
    /// Name; empty where it is generated later.
    pub name: &'a str,
    /// On whose behalf.
    pub user: &'a User,
    /// The state that is replaced.
    pub old: Option<&'a Value>,
    /// The rest of the cluster.
    pub cluster: &'a dyn Cluster,
}

impl Attributes<'_> {
    fn is(&self, operation: Operation, collection: &str) -> bool {
        self.operation == operation
            && self.subresource.is_empty()
            && self.resource.collection() == collection
    }
}

type Admit = fn(&Attributes<'_>, &mut Value) -> Outcome<()>;

/// The chain for writes that carry an object.
const CHAIN: [Admit; 6] = [
    namespace_lifecycle::admit,
    service_account::admit,
    node_restriction::admit,
    tolerations::admit,
    priority::admit_pod,
    priority::admit_class,
];

/// Lets a create or an update pass, completes its object, or says why not.
pub fn admit(attributes: &Attributes<'_>, object: &mut Value) -> Outcome<()> {
    CHAIN.iter().try_for_each(|step| step(attributes, object))
}

/// Lets a deletion pass or says why not.
pub fn admit_delete(attributes: &Attributes<'_>) -> Outcome<()> {
    namespace_lifecycle::admit_delete(attributes)?;
    node_restriction::admit_delete(attributes)
}

/// Lets the eviction of a pod pass or says why not.
pub fn admit_eviction(user: &User, resource: &Resource, pod: &Value) -> Outcome<()> {
    node_restriction::admit_eviction(user, resource, pod)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::collections::BTreeMap;

    /// A cluster of a few objects, keyed by collection, namespace and name.
    #[derive(Default)]
    pub struct Few(pub BTreeMap<(String, String, String), Value>);

    impl Few {
        pub fn with(mut self, collection: &str, object: Value) -> Self {
            let field =
                |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            self.0.insert((collection.to_owned(), field("namespace"), field("name")), object);
            self
        }
    }

    impl Cluster for Few {
        fn find(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
            self.0.get(&(collection.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
        }

        fn all(&self, collection: &str) -> Vec<Value> {
            self.0
                .iter()
                .filter(|(key, _)| key.0 == collection)
                .map(|(_, value)| value.clone())
                .collect()
        }

        fn tolerations(&self) -> Tolerations {
            Tolerations::default()
        }
    }

    /// Runs one step on a create.
    pub fn create(
        step: Admit,
        cluster: &Few,
        collection: (&str, &str, &str),
        object: &mut Value,
    ) -> Outcome<()> {
        let resource = api::resource::find(collection.0, collection.1, collection.2).unwrap();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let attributes = Attributes {
            operation: Operation::Create,
            resource,
            subresource: "",
            namespace: &namespace,
            name: &name,
            user: &User::admin(),
            old: None,
            cluster,
        };
        step(&attributes, object)
    }
}
