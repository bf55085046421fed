//! The pods of a Job: made, numbered, let go.

use client::Pod;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{self, EnvVar, EnvVarSource, ObjectFieldSelector};
use kube::ResourceExt;

use super::per_index::Failures;
use super::{CONTROLLER_UID, JOB_NAME, TRACKING, is_tracked};
use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::owner;
use crate::replicaset::{pod_created, pod_from_template};

/// Label and annotation with the completion index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// What the API server keeps of a name that it completes.
const GENERATED_NAME_MAX: usize = 58;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Labels by the names of before 1.27, still set.
const OLD_JOB_NAME: &str = "job-name";
const OLD_CONTROLLER_UID: &str = "controller-uid";

/// The pod's completion index.
pub fn index(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// When the last of the pod's containers ended.
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses
        .iter()
        .filter_map(|c| Some(c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
        .max()
}

/// A pod of the Job; `failures` are those of its index, where they are counted.
pub fn create(job: &Job, spec: &JobSpec, index: Option<i32>, failures: Option<Failures>) -> Action {
    let mut pod = pod_from_template(job, &spec.template);
    pod.finalizers_mut().push(TRACKING.into());
    let (name, uid) = (job.name_any(), job.uid().unwrap_or_default());
    // The API server puts these into the template; a Job from before it did has them not.
    for (label, value) in [
        (JOB_NAME, &name),
        (OLD_JOB_NAME, &name),
        (CONTROLLER_UID, &uid),
        (OLD_CONTROLLER_UID, &uid),
    ] {
        pod.labels_mut().entry(label.into()).or_insert_with(|| value.clone());
    }
    if let Some(index) = index {
        number(&mut pod, &name, index);
    }
    if let Some(failures) = failures {
        failures.note(&mut pod);
    }
    Action::create(&pod, Some(pod_created(job)))
}

fn number(pod: &mut v1::Pod, job: &str, index: i32) {
    let tail = format!("-{index}-");
    let head = job.get(..GENERATED_NAME_MAX - tail.len()).unwrap_or(job);
    pod.metadata.generate_name = Some(format!("{head}{tail}"));
    pod.annotations_mut().insert(INDEX.into(), index.to_string());
    pod.labels_mut().insert(INDEX.into(), index.to_string());
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname.get_or_insert_with(|| format!("{job}-{index}"));
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let variables = container.env.get_or_insert_default();
        if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
            continue;
        }
        variables.push(EnvVar {
            name: INDEX_VARIABLE.into(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: format!("metadata.labels['{INDEX}']"),
                    api_version: None,
                }),
                ..EnvVarSource::default()
            }),
        });
    }
}

/// Takes the finalizer off a pod that has it.
pub fn release(pod: &Pod) -> Option<Action> {
    let mut free = pod.clone();
    owner::drop_finalizer(&mut free, TRACKING);
    Action::change(pod, &free, "")
}

/// Pods of a Job that is gone must not wait for being counted, nor those that are no Job's.
pub fn free_orphans(cx: &Cx, key: &Key) -> Plan {
    let all = cx.world.list::<Pod>(&key.namespace);
    let of_job = |pod: &Pod| match owner::controller_of(pod) {
        Some(controller) => controller.kind == "Job" && controller.name == key.name,
        None => pod.labels().get(JOB_NAME).map_or("", String::as_str) == key.name,
    };
    let free = all.iter().filter(|pod| is_tracked(pod) && of_job(pod)).filter_map(|p| release(p));
    free.collect::<Vec<_>>().into()
}
