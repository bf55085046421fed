//! What the controllers know of the cluster: one shared cache a kind, read without I/O.
//! A plan reads nothing else, so a test can hand it a world made of a few YAML documents.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::action::Kind;

/// Read-only caches by kind.
#[derive(Default)]
pub struct World {
    stores: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl World {
    /// Makes kind `K` readable.
    pub fn insert<K: Kind>(&mut self, store: Store<K>) {
        self.stores.insert(TypeId::of::<K>(), Box::new(store));
    }

    fn store<K: Kind>(&self) -> Option<&Store<K>> {
        self.stores.get(&TypeId::of::<K>())?.downcast_ref()
    }

    /// One object; the namespace is empty for cluster-scoped kinds.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = ObjectRef::new(name);
        self.store::<K>()?.get(&if namespace.is_empty() { key } else { key.within(namespace) })
    }

    /// All objects of the kind in `namespace` (empty: in all), ordered by namespace and name.
    pub fn list<K: Kind>(&self, namespace: &str) -> Vec<Arc<K>> {
        let Some(store) = self.store::<K>() else { return Vec::new() };
        let mut all = store.state();
        all.retain(|object| {
            namespace.is_empty() || object.meta().namespace.as_deref() == Some(namespace)
        });
        all.sort_by(|a, b| {
            (&a.meta().namespace, &a.meta().name).cmp(&(&b.meta().namespace, &b.meta().name))
        });
        all
    }
}
