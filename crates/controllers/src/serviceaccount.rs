//! What every namespace has: the service account `default` and the cluster's CA.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher;

use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};

const DEFAULT_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// A service account `default` in each namespace.
pub const SERVICE_ACCOUNT: Controller = Controller {
    name: "service-account-controller",
    watches: |watches| {
        watches.own::<Namespace>();
        let accounts = watches
            .select::<ServiceAccount>(watcher::Config::default().fields("metadata.name=default"));
        watches
            .map_from(accounts, |_, account| namespace_of(account.metadata.namespace.as_deref()));
    },
    reconcile: Reconcile::Plan(plan_account),
};

/// The ConfigMap `kube-root-ca.crt` in each namespace.
pub const ROOT_CA_PUBLISHER: Controller = Controller {
    name: "root-ca-certificate-publisher",
    watches: watch_root_ca,
    reconcile: Reconcile::Plan(plan_root_ca),
};

fn watch_root_ca(watches: &mut Watches) {
    watches.own::<Namespace>();
    let selector = watcher::Config::default().fields("metadata.name=kube-root-ca.crt");
    let maps = watches.select::<ConfigMap>(selector);
    watches.map_from(maps, |_, map| namespace_of(map.metadata.namespace.as_deref()));
}

fn namespace_of(namespace: Option<&str>) -> Vec<Key> {
    namespace.map(|namespace| Key::new("", namespace)).into_iter().collect()
}

fn is_alive(cx: &Cx, name: &str) -> bool {
    cx.world.get::<Namespace>("", name).is_some_and(|namespace| {
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
    })
}

fn plan_account(cx: &Cx, key: &Key) -> Plan {
    let present = cx.world.get::<ServiceAccount>(&key.name, DEFAULT_ACCOUNT).is_some();
    if present || !is_alive(cx, &key.name) {
        return Plan::default();
    }
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(DEFAULT_ACCOUNT.into()),
            namespace: Some(key.name.clone()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    vec![Action::create(&account, None)].into()
}

fn plan_root_ca(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    if cx.config.root_ca_pem.is_empty() || !is_alive(cx, &key.name) {
        return plan;
    }
    let data = BTreeMap::from([(ROOT_CA_FILE.to_owned(), cx.config.root_ca_pem.clone())]);
    match cx.world.get::<ConfigMap>(&key.name, ROOT_CA) {
        Some(present) => {
            let wanted =
                ConfigMap { data: Some(data), binary_data: None, ..present.as_ref().clone() };
            plan.push(Action::change(present.as_ref(), &wanted, ""));
        }
        None => {
            let note = (DESCRIPTION.to_owned(), ROOT_CA_DESCRIPTION.to_owned());
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(ROOT_CA.into()),
                    namespace: Some(key.name.clone()),
                    annotations: Some(BTreeMap::from([note])),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            };
            plan.push([Action::create(&map, None)]);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::check;

    #[test]
    fn every_living_namespace_gets_both() {
        let alive = "kind: Namespace\nmetadata: {name: shop}";
        check(&SERVICE_ACCOUNT, "shop", alive, "create ServiceAccount shop/default");
        check(&ROOT_CA_PUBLISHER, "shop", alive, "create ConfigMap shop/kube-root-ca.crt");
        let dying = "kind: Namespace\nmetadata: {name: shop}\nstatus: {phase: Terminating}";
        check(&SERVICE_ACCOUNT, "shop", dying, "");
        check(&ROOT_CA_PUBLISHER, "shop", dying, "");
    }

    #[test]
    fn a_changed_certificate_is_put_right() {
        let yaml = "
kind: Namespace
metadata: {name: shop}
---
kind: ConfigMap
metadata: {name: kube-root-ca.crt, namespace: shop}
data: {ca.crt: OLD}
";
        let expected = r#"patch ConfigMap shop/kube-root-ca.crt {"data":{"ca.crt":"PEM"}}"#;
        check(&ROOT_CA_PUBLISHER, "shop", yaml, expected);
    }
}
