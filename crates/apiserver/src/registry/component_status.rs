//! ComponentStatuses: what upstream's server finds out by asking its scheduler, its controller
//! manager and its etcd. The first two are parts of this process, which ends when one of them
//! does; the datastore says itself how it is.

use std::sync::Arc;

use serde_json::{Value, json};
use store::{Entry, Key, Labels};

use super::call::Target;
use super::codec;
use crate::server::Context;

const COLLECTION: &str = "componentstatuses";

/// The objects of the kind; `None` for any other kind.
pub(super) fn all(context: &Context, target: &Target) -> Option<Vec<Arc<Entry>>> {
    if target.resource.collection() != COLLECTION {
        return None;
    }
    let datastore = context.store.health().error;
    let parts = [("controller-manager", None), ("etcd-0", datastore), ("scheduler", None)];
    Some(parts.into_iter().map(|(name, wrong)| entry(name, wrong)).collect())
}

fn entry(name: &str, wrong: Option<String>) -> Arc<Entry> {
    let object = status(name, wrong);
    Arc::new(Entry {
        key: Key::new(COLLECTION, "", name),
        created: 0,
        revision: 0,
        value: codec::encode(&object).into(),
        labels: Labels::default(),
    })
}

fn status(name: &str, wrong: Option<String>) -> Value {
    let mut condition = json!({"type": "Healthy"});
    match wrong {
        None => {
            condition["status"] = "True".into();
            condition["message"] = "ok".into();
        }
        Some(error) => {
            condition["status"] = "False".into();
            condition["error"] = error.into();
        }
    }
    json!({"apiVersion": "v1", "kind": "ComponentStatus",
        "metadata": {"name": name, "creationTimestamp": null}, "conditions": [condition]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let say = |wrong| status("etcd-0", wrong)["conditions"][0].to_string();
        assert_eq!(say(None), r#"{"type":"Healthy","status":"True","message":"ok"}"#);
        assert_eq!(
            say(Some("gone".to_owned())),
            r#"{"type":"Healthy","status":"False","error":"gone"}"#
        );
    }
}
