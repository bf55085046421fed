//! Making and unmaking the sandbox of a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use runtime::{SandboxConfig, SandboxFilter, SandboxId};

use super::Shared;
use crate::context::{Context, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};
use crate::pod::view::spec;
use crate::pod::{hosts, resources};
use crate::volumes;

/// Pause after a failed attempt, doubling.
const RETRY: base::Backoff =
    base::Backoff::new(std::time::Duration::from_secs(1), std::time::Duration::from_secs(60));

/// Annotation that keeps the grace period of the pod, for when its object is gone.
pub(crate) const NOTE_GRACE: &str = "coracle.dev/termination-grace-seconds";

/// Makes a sandbox and attaches it to the network.
pub(super) async fn create(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    attempt: u32,
    replaces: Option<String>,
) {
    if let Some(old) = replaces {
        let note = "Pod sandbox changed, it will be killed and re-created.";
        shared.ctx.event(&pod, None, EventKind::Normal, "SandboxChanged", note);
        unmake(&shared, &old).await;
    }
    let made = make(&shared, &pod, attempt).await;
    let mut state = shared.state();
    state.view.sandbox_busy = false;
    match made {
        Ok(()) => {
            state.sandbox_failures = 0;
            state.view.sandbox_retry_at = None;
        }
        Err(error) => {
            state.sandbox_failures += 1;
            let delay = RETRY.delay(state.sandbox_failures);
            let delay = SignedDuration::try_from(delay).unwrap_or_default();
            state.view.sandbox_retry_at = Some(Timestamp::now() + delay);
            drop(state);
            let note = format!("Failed to create pod sandbox: {error}");
            shared.ctx.event(&pod, None, EventKind::Warning, "FailedCreatePodSandBox", &note);
        }
    }
    shared.look_again();
}

async fn make(shared: &Shared, pod: &Pod, attempt: u32) -> Result<(), String> {
    let ctx = &shared.ctx;
    let handler = match &spec(pod).runtime_class_name {
        Some(class) => served(ctx, class).await?,
        None => String::new(),
    };
    same_users(pod, &handler)?;
    let config = config(shared, pod, attempt)?;
    forget_old(shared, attempt).await;
    let runtime = &ctx.runtime;
    let text = |error: runtime::Error| base::chain(&error).to_string();
    let id = runtime.run_sandbox(config).await.map_err(text)?;
    if spec(pod).host_network == Some(true) {
        return Ok(());
    }
    let attached = match runtime.sandbox_status(&id).await.map_err(text)?.netns {
        Some(netns) => ctx.network.attach(&id.0, &netns).await,
        None => Err("the sandbox has no network namespace".to_owned()),
    };
    if let Err(error) = attached {
        let _ = ctx.network.detach(&id.0).await;
        let _ = runtime.remove_sandbox(&id).await;
        return Err(format!("failed to set up network for sandbox {:?}: {error}", id.0));
    }
    Ok(())
}

/// Whether pods of a RuntimeClass can run here: one that wants to be kept from others by a virtual
/// machine, say, must not run without. Gives the handler.
async fn served(ctx: &Context, class: &str) -> Result<String, String> {
    let classes: Api<RuntimeClass> = Api::all(ctx.client.clone());
    let found = classes.get(class).await;
    let handler = found
        .map_err(|error| format!("looking up RuntimeClass {class:?}: {}", base::chain(&error)))?
        .handler;
    match ctx.config.runtime_handlers.contains(&handler) {
        true => Ok(handler),
        false => {
            Err(format!("failed to get sandbox runtime: no runtime for {handler:?} is configured"))
        }
    }
}

/// A pod that wants users of its own relies on it that its root is nobody outside.
fn same_users(pod: &Pod, handler: &str) -> Result<(), String> {
    match spec(pod).host_users {
        Some(false) => {
            Err(format!("RuntimeClass handler {handler:?} does not support user namespaces"))
        }
        _ => Ok(()),
    }
}

fn config(shared: &Shared, pod: &Pod, attempt: u32) -> Result<SandboxConfig, String> {
    let (ctx, meta, spec) = (&shared.ctx, &pod.metadata, spec(pod));
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (name, namespace) = (text(&meta.name), text(&meta.namespace));
    let host_network = spec.host_network == Some(true);
    let sysctls = spec.security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    Ok(SandboxConfig {
        labels: BTreeMap::from([
            (LABEL_POD_NAME.to_owned(), name.clone()),
            (LABEL_POD_NAMESPACE.to_owned(), namespace.clone()),
            (LABEL_POD_UID.to_owned(), shared.uid.clone()),
        ]),
        annotations: BTreeMap::from([(NOTE_GRACE.to_owned(), grace.to_string())]),
        name,
        namespace,
        uid: shared.uid.clone(),
        attempt,
        hostname: match host_network {
            true => String::new(),
            false => hosts::kernel_name(pod, &ctx.config.cluster_domain)?,
        },
        host_network,
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        shared_pid: spec.share_process_namespace == Some(true),
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|sysctl| (api::sysctl::normalized(&sysctl.name), sysctl.value.clone()))
            .collect(),
        cgroup: resources::cgroup(pod),
        resources: resources::pod(pod),
        log_directory: ctx.log_dir(pod),
        shm_bytes: 0,
    })
}

/// Removes sandboxes that are older than the one before: the last one's containers still tell
/// restart counts and former ends.
async fn forget_old(shared: &Shared, attempt: u32) {
    for sandbox in all(shared).await {
        if sandbox.config.attempt + 1 < attempt
            && let Err(error) = shared.ctx.runtime.remove_sandbox(&sandbox.id).await
        {
            tracing::debug!(sandbox = %sandbox.id, %error, "old sandbox not removed");
        }
    }
}

async fn all(shared: &Shared) -> Vec<runtime::SandboxInfo> {
    let labels = BTreeMap::from([(LABEL_POD_UID.to_owned(), shared.uid.clone())]);
    let filter = SandboxFilter { labels, ..SandboxFilter::default() };
    shared.ctx.runtime.list_sandboxes(filter).await.unwrap_or_default()
}

/// Takes the sandbox off the network and stops it.
async fn unmake(shared: &Shared, id: &str) {
    if let Err(error) = shared.ctx.network.detach(id).await {
        tracing::warn!(sandbox = id, error, "not detached from the network");
    }
    if let Err(error) = shared.ctx.runtime.stop_sandbox(&SandboxId(id.to_owned())).await {
        tracing::warn!(sandbox = id, error = %base::chain(&error), "sandbox not stopped");
    }
}

/// Stops the sandbox of a pod that ends.
pub(super) async fn stop(shared: Arc<Shared>, id: String) {
    unmake(&shared, &id).await;
    shared.state().view.sandbox_busy = false;
    shared.look_again();
}

/// Removes all traces of a pod that is gone: sandboxes, logs, folders.
pub(super) async fn remove_all(shared: &Shared, pod: &Pod) {
    for sandbox in all(shared).await {
        let _ = shared.ctx.network.detach(&sandbox.id.0).await;
        if let Err(error) = shared.ctx.runtime.remove_sandbox(&sandbox.id).await {
            tracing::warn!(sandbox = %sandbox.id, error = %base::chain(&error), "sandbox not removed");
        }
    }
    let logs = shared.ctx.log_dir(pod);
    if let Err(error) = volumes::remove(&logs) {
        tracing::warn!(path = %logs.display(), %error, "logs not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn users_of_its_own_are_refused() {
        let told = |spec: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            same_users(&pod, "crun")
        };
        assert_eq!(told(json!({"containers": []})), Ok(()));
        assert_eq!(told(json!({"containers": [], "hostUsers": true})), Ok(()));
        assert_eq!(
            told(json!({"containers": [], "hostUsers": false})).unwrap_err(),
            "RuntimeClass handler \"crun\" does not support user namespaces"
        );
    }
}
