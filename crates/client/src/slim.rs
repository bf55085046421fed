//! What the shared caches do to an object before they keep it.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use k8s_openapi::api::core::v1::PodSpec;

use crate::{Object, Pod};

/// The specifications of the pods in the shared cache: there is one for the process.
static SPECS: LazyLock<Mutex<Specs>> = LazyLock::new(Mutex::default);

/// Takes out of an object what nobody looks at; a pod of the shared cache gets what others have.
pub(crate) fn slim<K: Object>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(pod) = (object as &mut dyn Any).downcast_mut::<Pod>() {
        SPECS.lock().unwrap_or_else(PoisonError::into_inner).share(pod);
    }
}

/// With fewer specifications nobody looks for those that are no longer in use.
const SPECS_FEW: usize = 64;

/// Specifications that pods have, by a hash of them.
#[derive(Default)]
struct Specs {
    known: HashMap<u64, Weak<PodSpec>>,
    /// How many there were in use at the last look.
    used: usize,
}

impl Specs {
    /// Has a pod share its specification with others that have the same.
    fn share(&mut self, pod: &mut Pod) {
        let Some(spec) = &mut pod.spec else { return };
        let hash = hash(spec);
        let known = self.known.get(&hash).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known == spec) {
            *spec = known;
            return;
        }
        self.known.insert(hash, Arc::downgrade(spec));
        if self.known.len() > SPECS_FEW + 2 * self.used {
            self.known.retain(|_, spec| spec.strong_count() > 0);
            self.used = self.known.len();
        }
    }
}

/// Of its JSON, since the type itself has none.
fn hash(spec: &PodSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(spec).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(specs: &mut Specs, image: &str, variable: &str) -> Arc<PodSpec> {
        let container =
            json!({"name": "a", "image": image, "env": [{"name": "E", "value": variable}]});
        let pod = json!({"spec": {"containers": [container]}});
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        specs.share(&mut pod);
        pod.spec.unwrap()
    }

    #[test]
    fn pods_of_one_template_share_their_specification() {
        let mut specs = Specs::default();
        let first = spec(&mut specs, "one", "1");
        assert!(Arc::ptr_eq(&first, &spec(&mut specs, "one", "2")));
        assert!(!Arc::ptr_eq(&first, &spec(&mut specs, "two", "1")));
        // However many others have come and gone.
        (0..10 * SPECS_FEW).for_each(|number| drop(spec(&mut specs, &number.to_string(), "")));
        assert!(Arc::ptr_eq(&first, &spec(&mut specs, "one", "")));
        assert!(specs.known.len() <= SPECS_FEW + 2);
        // What looks the same by its hash need not be the same.
        let other = hash(&spec(&mut specs, "other", ""));
        specs.known.insert(other, Arc::downgrade(&first));
        assert!(!Arc::ptr_eq(&first, &spec(&mut specs, "other", "")));
    }
}
