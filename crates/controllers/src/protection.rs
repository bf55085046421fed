//! Volumes and claims that are to go stay while they are used: admission gives them a finalizer,
//! which is taken off here.

use client::Pod;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Resource, ResourceExt};

use crate::action::{Action, Kind, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};
use crate::pods;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Claims that no pod uses any more may go.
pub const CLAIM_PROTECTION: Controller = Controller {
    name: "persistentvolumeclaim-protection-controller",
    watches: |watches| {
        watches.own::<PersistentVolumeClaim>();
        watches.map::<Pod>(|_, pod| {
            let namespace = pod.namespace().unwrap_or_default();
            claims(pod).map(|claim| Key::new(namespace.clone(), &claim)).collect()
        });
    },
    reconcile: Reconcile::Plan(plan_claim),
};

/// Volumes that are bound to no claim may go.
pub const VOLUME_PROTECTION: Controller = Controller {
    name: "persistentvolume-protection-controller",
    watches: |watches: &mut Watches| watches.own::<PersistentVolume>(),
    reconcile: Reconcile::Plan(plan_volume),
};

/// The claims that a pod mounts, its ephemeral volumes' among them.
fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.into_iter().flatten().filter_map(|volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        let own =
            || volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name));
        named.or_else(own)
    })
}

fn plan_claim(cx: &Cx, key: &Key) -> Plan {
    let claim = cx.world.get::<PersistentVolumeClaim>(&key.namespace, &key.name);
    let Some(claim) = claim.filter(|claim| claim.meta().deletion_timestamp.is_some()) else {
        return Plan::default();
    };
    // A pod that was never put on a node uses nothing.
    let uses = |pod: &Pod| {
        let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        placed && !pods::is_terminal(pod) && claims(pod).any(|name| name == key.name)
    };
    let pods = cx.world.list::<Pod>(&key.namespace);
    if pods.iter().any(|pod| uses(pod)) {
        Plan::default()
    } else {
        let_go(&*claim, CLAIM_FINALIZER)
    }
}

fn plan_volume(cx: &Cx, key: &Key) -> Plan {
    let volume = cx.world.get::<PersistentVolume>("", &key.name);
    let Some(volume) = volume.filter(|volume| volume.meta().deletion_timestamp.is_some()) else {
        return Plan::default();
    };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Bound") { Plan::default() } else { let_go(&*volume, VOLUME_FINALIZER) }
}

fn let_go<K: Kind>(object: &K, finalizer: &str) -> Plan {
    let mut after = object.clone();
    after.finalizers_mut().retain(|own| own != finalizer);
    let mut plan = Plan::default();
    plan.push(Action::change(object, &after, ""));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::check;

    #[test]
    fn a_claim_stays_while_a_pod_uses_it() {
        let yaml = |phase: &str| {
            format!(
                "
kind: PersistentVolumeClaim
metadata: {{name: c, deletionTimestamp: '2026-01-01T11:59:00Z', finalizers: [kubernetes.io/pvc-protection]}}
---
kind: Pod
metadata: {{name: p}}
spec: {{nodeName: n1, containers: [], volumes: [{{name: v, persistentVolumeClaim: {{claimName: c}}}}]}}
status: {{phase: {phase}}}
"
            )
        };
        check(&CLAIM_PROTECTION, "default/c", &yaml("Running"), "");
        check(
            &CLAIM_PROTECTION,
            "default/c",
            &yaml("Succeeded"),
            r#"patch PersistentVolumeClaim default/c {"metadata":{"finalizers":[]}}"#,
        );
    }
}
