//! ServiceAccount: every pod runs as one, and finds its token in a projected volume.

use std::time::Duration;

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};
use api::status::Status;
use serde_json::{Map, Value, json};
use store::{Key, Range, Store};

/// Store collection of accounts.
const ACCOUNTS: &str = "serviceaccounts";
/// The account that pods run as when they name none.
const DEFAULT: &str = "default";
/// How long a pod waits for it; upstream tries ten times, a fifth of a second apart.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(2);
/// Where the token is mounted, as client libraries expect it.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What a token volume's name begins with.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// How long a projected token lives: an hour and seven seconds, by which upstream's own
/// tokens are told from those a person asked for.
const TOKEN_SECONDS: u32 = 3607;
/// Mirror pods speak for files on a node; they have no account.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Waits for the account `default` of a new namespace, which its controller is about to make:
/// whoever makes a namespace and a pod in it need not look in between.
pub(super) async fn await_default(attributes: &Attributes<'_>, pod: &Value, store: &Store) {
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if !attributes.is(Operation::Create, "pods")
        || pod["metadata"]["annotations"][MIRROR].is_string()
        || !matches!(account, "" | DEFAULT)
    {
        return;
    }
    let key = Key::new(ACCOUNTS, attributes.namespace, DEFAULT);
    if store.get(&key).is_some() {
        return;
    }
    let range = Range { collection: ACCOUNTS, namespace: Some(attributes.namespace) };
    let arrival = async {
        // In this order nothing is missed.
        let Ok(mut watch) = store.watch(range, store.revision()) else { return };
        while store.get(&key).is_none() && matches!(watch.next().await, Some(Ok(_))) {}
    };
    // In vain: the pod is refused with the reason.
    let _ = tokio::time::timeout(DEFAULT_PATIENCE, arrival).await;
}

pub(super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !attributes.is(Operation::Create, "pods") {
        return Ok(());
    }
    if pod["metadata"]["annotations"][MIRROR].is_string() {
        return admit_mirror(attributes, pod);
    }
    let account = match pod["spec"]["serviceAccountName"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => DEFAULT.to_owned(),
    };
    let spec = meta::member(pod, "spec");
    spec.insert("serviceAccountName".to_owned(), account.clone().into());
    spec.insert("serviceAccount".to_owned(), account.clone().into());

    let namespace = attributes.namespace;
    let Some(object) = attributes.cluster.find(ACCOUNTS, namespace, &account) else {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
        );
        return Err(Status::forbidden(attributes.resource, meta::name(pod), &why));
    };
    let wanted = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or(object["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if wanted {
        mount_token(pod);
    }
    let none = pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty);
    if let (true, Some(secrets)) = (none, object["imagePullSecrets"].as_array()) {
        meta::member(pod, "spec").insert("imagePullSecrets".to_owned(), secrets.clone().into());
    }
    Ok(())
}

fn admit_mirror(attributes: &Attributes<'_>, pod: &Value) -> Outcome<()> {
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        let why = "a mirror pod may not reference service accounts";
        return Err(Status::forbidden(attributes.resource, meta::name(pod), why));
    }
    Ok(())
}

/// Mounts a token into every container that has nothing at the token's place yet.
fn mount_token(pod: &mut Value) {
    let existing = pod["spec"]["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let volume = existing
        .clone()
        .unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", base::names::random_suffix(5)));
    let mut used = false;
    let spec = meta::member(pod, "spec");
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            used |= mount(container, &volume);
        }
    }
    if used && existing.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if !volumes.is_array() {
            *volumes = json!([]);
        }
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&volume));
        }
    }
}

fn mount(container: &mut Map<String, Value>, volume: &str) -> bool {
    let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
    if !mounts.is_array() {
        *mounts = json!([]);
    }
    let Some(mounts) = mounts.as_array_mut() else { return false };
    if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
        return false;
    }
    mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};

    fn admitted(account: Value, spec: Value) -> Outcome<Value> {
        let cluster = Few::default().with("serviceaccounts", account);
        let mut pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
        create(admit, &cluster, ("", "v1", "pods"), &mut pod).map(|()| pod["spec"].take())
    }

    fn default() -> Value {
        json!({"metadata": {"name": "default", "namespace": "ns"}, "imagePullSecrets": [{"name": "reg"}]})
    }

    #[test]
    fn token_reaches_every_container_once() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "mine", "mountPath": MOUNT_PATH}]}],
                          "initContainers": [{"name": "i"}]});
        let spec = admitted(default(), spec).unwrap();
        assert_eq!(spec["serviceAccountName"], "default");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "reg"}]));
        let volume = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with(VOLUME_PREFIX));
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(spec["initContainers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
    }

    #[test]
    fn opting_out_and_missing_accounts() {
        let spec = json!({"automountServiceAccountToken": false, "containers": [{"name": "a"}]});
        assert!(admitted(default(), spec).unwrap()["volumes"].is_null());
        let refused =
            admitted(default(), json!({"serviceAccountName": "x", "containers": []})).unwrap_err();
        assert_eq!(
            refused.message,
            "pods \"p\" is forbidden: error looking up service account ns/x: serviceaccount \"x\" not found"
        );
    }
}
