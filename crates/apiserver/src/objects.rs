//! Reading stored objects without the registry: for authentication, authorization, proxies.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use store::{Key, Store};

/// Who an object is.
#[derive(Debug)]
pub(crate) struct Identity {
    /// `metadata.uid`.
    pub uid: String,
    /// When its deletion takes or took effect, seconds since 1970.
    pub deleted: Option<i64>,
}

fn bytes(store: &Store, collection: &str, namespace: &str, name: &str) -> Option<Bytes> {
    let key = Key { collection: collection.into(), namespace: namespace.into(), name: name.into() };
    store.get(&key).map(|entry| entry.value.clone())
}

/// A whole object. A value that is no JSON counts as absent.
pub(crate) fn object(
    store: &Store,
    collection: &str,
    namespace: &str,
    name: &str,
) -> Option<Value> {
    serde_json::from_slice(&bytes(store, collection, namespace, name)?).ok()
}

/// An object's uid and deletion time; the rest is skipped over, not built.
pub(crate) fn identity(
    store: &Store,
    collection: &str,
    namespace: &str,
    name: &str,
) -> Option<Identity> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        uid: String,
        deletion_timestamp: Option<Timestamp>,
    }
    let object: Object =
        serde_json::from_slice(&bytes(store, collection, namespace, name)?).ok()?;
    Some(Identity {
        uid: object.metadata.uid,
        deleted: object.metadata.deletion_timestamp.map(Timestamp::as_second),
    })
}
