//! Who a pod of a StatefulSet is: its ordinal, its name, and what follows from them.

use std::ops::Range;

use client::Pod;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{self, PersistentVolumeClaimVolumeSource, Volume};
use kube::ResourceExt;

use super::{REVISION, Revision, claims};
use crate::action::Action;
use crate::replicaset::pod_from_template;

/// Label with the pod's own name, by which a Service can choose one pod.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal.
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod, where its name is one that the set gives.
pub fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let digits = name.strip_prefix(set)?.strip_prefix('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The ordinals that should have a pod.
pub fn range(spec: &StatefulSetSpec) -> Range<i32> {
    let first = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    first..first.saturating_add(spec.replicas.unwrap_or(1))
}

/// The pod of this ordinal.
pub fn pod(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    ordinal: i32,
    revision: &Revision,
) -> v1::Pod {
    let mut pod = pod_from_template(set, &revision.template);
    let name = format!("{}-{ordinal}", set.name_any());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    label(&mut pod, &name, ordinal);
    pod.labels_mut().insert(REVISION.into(), revision.name.clone());
    let inner = pod.spec.get_or_insert_default();
    inner.hostname = Some(name);
    inner.subdomain = spec.service_name.clone().filter(|name| !name.is_empty());
    let own = claims::wanted(set, spec, ordinal).map(|(volume, claim)| Volume {
        name: volume,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.name_any(),
            read_only: None,
        }),
        ..Volume::default()
    });
    let mut volumes: Vec<Volume> = own.collect();
    for volume in inner.volumes.take().into_iter().flatten() {
        if !volumes.iter().any(|own| own.name == volume.name) {
            volumes.push(volume);
        }
    }
    inner.volumes = (!volumes.is_empty()).then_some(volumes);
    pod
}

/// Gives a pod back the labels that it had lost, or that it never had, being adopted.
pub fn restored(pod: &Pod, ordinal: i32) -> Option<Action> {
    let mut after = pod.clone();
    label(&mut after, &pod.name_any(), ordinal);
    Action::change(pod, &after, "")
}

fn label(pod: &mut impl ResourceExt, name: &str, ordinal: i32) {
    let labels = pod.labels_mut();
    labels.insert(POD_NAME.into(), name.into());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
}
