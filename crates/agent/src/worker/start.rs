//! Getting a container to run: volumes, image, configuration, start, `postStart`.

use std::sync::Arc;
use std::time::Duration;

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use runtime::{ContainerId, SandboxId};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::containers::{self, Wish};
use super::{Shared, image, resize};
use crate::lifecycle;
use crate::pod::fields::Place;
use crate::pod::view::{Volumes, Waiting, container as by_name, spec};
use crate::volumes::{MountError, PodVolumes};

/// Pause after volumes could not be made, doubling.
const MOUNT_RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(500), Duration::from_secs(120));
/// Pause after a container could not be configured or made, doubling.
const CREATE_RETRY: base::Backoff =
    base::Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
/// A container whose `postStart` failed is killed with this grace.
const HOOK_FAILED_GRACE: Duration = Duration::from_secs(2);

impl Shared {
    /// The pod's addresses, the node's with the host's network.
    pub(crate) fn ips(&self) -> Vec<std::net::IpAddr> {
        if spec(&self.pod()).host_network == Some(true) {
            return self.ctx.config.node_ips.clone();
        }
        self.state().view.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default()
    }
}

fn later(now: Timestamp, backoff: base::Backoff, failures: u32) -> Timestamp {
    now + SignedDuration::try_from(backoff.delay(failures)).unwrap_or_default()
}

/// Volumes of a pod, unless it is to end first: what they need of the API may take long where the pod is
/// gone from it already.
async fn unless(
    ending: &CancellationToken,
    volumes: &Mutex<PodVolumes>,
    pod: &Pod,
    place: &Place,
) -> Option<Result<Option<Timestamp>, MountError>> {
    ending.run_until_cancelled(async { volumes.lock().await.prepare(pod, place).await }).await
}

/// Makes the volumes, or brings them up to date when they are there already.
pub(super) async fn prepare_volumes(shared: Arc<Shared>, first: bool) {
    let pod = shared.pod();
    let place = shared.ctx.place(shared.ips());
    let result = unless(&shared.ending, &shared.volumes, &pod, &place).await;
    let mut state = shared.state();
    match result {
        None if first => state.view.volumes = Volumes::Todo,
        None => {}
        Some(Ok(renew_at)) => {
            state.renew_at = renew_at;
            state.mount_failures = 0;
            if first {
                state.view.volumes = Volumes::Ready;
            }
        }
        Some(Err(error)) => {
            state.mount_failures += 1;
            let retry = later(Timestamp::now(), MOUNT_RETRY, state.mount_failures);
            if first {
                state.view.volumes = Volumes::Failed(retry);
            } else {
                state.renew_at = Some(retry);
            }
            drop(state);
            shared.ctx.event(&pod, None, EventKind::Warning, "FailedMount", &error.to_string());
        }
    }
    shared.look_again();
}

/// Starts a container; what goes wrong is noted in its slot.
pub(super) async fn start(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    name: String,
    attempt: u32,
    delay_s: u32,
) {
    let outcome = match container(&pod, &name) {
        Some(container) => run(&shared, &pod, &container, attempt, delay_s).await,
        None => Ok(()),
    };
    let mut state = shared.state();
    let failures = match &outcome {
        Ok(()) => 0,
        Err(_) => state.config_failures + 1,
    };
    state.config_failures = failures;
    let slot = state.view.slots.entry(name).or_default();
    slot.busy = false;
    slot.waiting = outcome.err().map(|waiting| Waiting {
        retry_at: waiting.retry_at.or(Some(later(Timestamp::now(), CREATE_RETRY, failures))),
        ..waiting
    });
    drop(state);
    shared.look_again();
}

/// A container of the pod by name; an ephemeral one has the same fields where it matters.
fn container(pod: &Pod, name: &str) -> Option<Container> {
    let ephemeral = || spec(pod).ephemeral_containers.iter().flatten().find(|c| c.name == name);
    by_name(pod, name).cloned().or_else(|| ephemeral().map(plain))
}

fn plain(from: &EphemeralContainer) -> Container {
    Container {
        name: from.name.clone(),
        image: from.image.clone(),
        image_pull_policy: from.image_pull_policy.clone(),
        command: from.command.clone(),
        args: from.args.clone(),
        working_dir: from.working_dir.clone(),
        env: from.env.clone(),
        env_from: from.env_from.clone(),
        volume_mounts: from.volume_mounts.clone(),
        security_context: from.security_context.clone(),
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        termination_message_path: from.termination_message_path.clone(),
        termination_message_policy: from.termination_message_policy.clone(),
        ..Container::default()
    }
}

async fn run(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    delay_s: u32,
) -> Result<(), Waiting> {
    let made = async {
        let image = image::ensure(shared, pod, container).await?;
        let wish = Wish { pod, container, attempt, delay_s, image: &image };
        containers::config(shared, &wish).await.map_err(|message| {
            failed(shared, pod, container, "CreateContainerConfigError", message)
        })
    };
    let config = tokio::select! {
        made = made => made?,
        () = shared.ending.cancelled() => return Ok(()),
    };
    let Some(sandbox) = shared.state().view.ready_sandbox().map(|s| SandboxId(s.id.clone())) else {
        return Ok(());
    };
    let (ctx, name) = (&shared.ctx, container.name.as_str());
    remove_old(shared, name, attempt).await;
    resize::make_room(shared, pod, &sandbox).await;
    let id = ctx.runtime.create_container(&sandbox, config).await.map_err(|error| {
        let message = base::chain(&error).to_string();
        failed(shared, pod, container, "CreateContainerError", message)
    })?;
    ctx.event(pod, Some(name), EventKind::Normal, "Created", "Container created");
    if let Err(error) = ctx.runtime.start_container(&id).await {
        let message = base::chain(&error).to_string();
        // The container has ended with StartError: from here on it is a crash like any other.
        return Err(Waiting {
            retry_at: Some(Timestamp::now()),
            ..failed(shared, pod, container, "RunContainerError", message)
        });
    }
    ctx.event(pod, Some(name), EventKind::Normal, "Started", "Container started");
    shared.look_again();
    post_start(shared, pod, container, &id).await;
    Ok(())
}

/// Notes a failure as upstream does: an event with the message, and the reason to wait.
fn failed(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    reason: &str,
    message: String,
) -> Waiting {
    let note = format!("Error: {message}");
    shared.ctx.event(pod, Some(&container.name), EventKind::Warning, "Failed", &note);
    Waiting { reason: reason.to_owned(), message, retry_at: None }
}

/// Removes all ended runs of a container but the newest: `logs --previous` needs one.
async fn remove_old(shared: &Shared, name: &str, attempt: u32) {
    let labels = std::collections::BTreeMap::from([
        (crate::context::LABEL_POD_UID.to_owned(), shared.uid.clone()),
        (crate::context::LABEL_CONTAINER_NAME.to_owned(), name.to_owned()),
    ]);
    let filter = runtime::ContainerFilter { labels, ..Default::default() };
    for old in shared.ctx.runtime.list_containers(filter).await.unwrap_or_default() {
        if old.attempt + 1 >= attempt {
            continue;
        }
        let log = shared.ctx.runtime.container_status(&old.id).await.ok().and_then(|s| s.log_path);
        match shared.ctx.runtime.remove_container(&old.id).await {
            Ok(()) => crate::logs::rotate::remove_all(log.as_deref()),
            Err(error) => tracing::debug!(container = %old.id, %error, "old container not removed"),
        }
    }
}

/// Runs the `postStart` hook; if it fails the container is killed.
async fn post_start(shared: &Shared, pod: &Pod, container: &Container, id: &ContainerId) {
    let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
        return;
    };
    let ip = shared.ips().first().copied();
    let result = tokio::select! {
        result = lifecycle::run(&shared.ctx, container, id, hook, ip) => result,
        () = shared.ending.cancelled() => return,
    };
    let Err(error) = result else { return };
    let (ctx, name) = (&shared.ctx, container.name.as_str());
    let note = format!("PostStartHook failed: {error}");
    ctx.event(pod, Some(name), EventKind::Warning, "FailedPostStartHook", &note);
    ctx.event(pod, Some(name), EventKind::Normal, "Killing", "FailedPostStartHook");
    if let Err(error) = ctx.runtime.stop_container(id, HOOK_FAILED_GRACE).await {
        tracing::warn!(container = %id, error = %base::chain(&error), "not stopped");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;
    use std::pin::pin;

    use futures::FutureExt;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::objects::Objects;

    #[tokio::test]
    async fn a_pod_that_goes_waits_for_no_answer() {
        let silent = tower::service_fn(|_: http::Request<Body>| {
            pending::<Result<http::Response<Body>, Infallible>>()
        });
        let client = kube::Client::new(silent, "default");
        let nowhere = std::path::PathBuf::from("/nonexistent");
        let objects = Objects::new(client.clone());
        let volumes = PodVolumes::new(client, objects, Arc::default(), nowhere.clone(), nowhere);
        let volumes = Mutex::new(volumes);
        let volume = json!({"name": "v", "configMap": {"name": "m"}});
        let pod = json!({"metadata": {"namespace": "n"}, "spec": {"containers": [], "volumes": [volume]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let place = Place { host_ips: vec![], pod_ips: vec![], allocatable: Default::default() };
        let ending = CancellationToken::new();
        let mut made = pin!(unless(&ending, &volumes, &pod, &place));
        assert!((&mut made).now_or_never().is_none(), "the API has yet to say what is in it");
        ending.cancel();
        assert!(made.await.is_none());
    }
}
