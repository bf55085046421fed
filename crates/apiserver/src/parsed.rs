//! Stored objects that nearly every write is held against (its namespace, the account of a pod):
//! parsed once for each revision, not once for each write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use store::{Entry, Key, Revision};

/// Most objects that are kept; one more, and all are forgotten.
const OBJECTS_MAX: usize = 128;
/// Larger ones are parsed each time.
const OBJECT_MAX_BYTES: usize = 8 << 10;

/// What was parsed lately.
#[derive(Default)]
pub(crate) struct Parsed(Mutex<HashMap<Key, (Revision, Arc<Value>)>>);

impl Parsed {
    /// The object; `None` where its bytes are no JSON.
    pub(crate) fn get(&self, entry: &Entry) -> Option<Arc<Value>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, value)) = known.get(&entry.key).filter(|(at, _)| *at == entry.revision) {
            return Some(Arc::clone(value));
        }
        let value: Arc<Value> = Arc::new(serde_json::from_slice(&entry.value).ok()?);
        if entry.value.len() <= OBJECT_MAX_BYTES {
            if known.len() >= OBJECTS_MAX {
                known.clear();
            }
            known.insert(entry.key.clone(), (entry.revision, Arc::clone(&value)));
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Labels;

    fn entry(name: &str, revision: Revision, text: &str) -> Entry {
        let (key, labels) = (Key::new("namespaces", "", name), Labels::default());
        Entry { key, created: 1, revision, value: text.to_owned().into(), labels }
    }

    #[test]
    fn an_object_is_parsed_once_for_each_revision() {
        let parsed = Parsed::default();
        let first = parsed.get(&entry("a", 1, r#"{"v":1}"#)).unwrap();
        assert!(Arc::ptr_eq(&first, &parsed.get(&entry("a", 1, "not read")).unwrap()));
        assert_eq!(parsed.get(&entry("a", 2, r#"{"v":2}"#)).unwrap()["v"], 2);
        assert_eq!(parsed.get(&entry("b", 1, "broken")), None);
        let large = format!("\"{}\"", "x".repeat(OBJECT_MAX_BYTES));
        assert!(parsed.get(&entry("l", 1, &large)).is_some());
        for number in 0..=OBJECTS_MAX {
            parsed.get(&entry(&number.to_string(), 1, "1"));
        }
        assert!(parsed.0.lock().unwrap().len() <= OBJECTS_MAX);
    }
}
