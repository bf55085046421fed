//! Having a container's image: pull policy, credentials, back-off, and upstream's events.

use std::time::{Duration, Instant};

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::Api;
use runtime::{ImageInfo, RegistryAuth};

use super::Shared;
use crate::pod::view::{Waiting, spec};

/// Back-off of failed pulls, upstream's.
const BACKOFF: base::Backoff =
    base::Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
/// How long the error itself is shown before the status says that we wait.
const SHOW_ERROR: SignedDuration = SignedDuration::from_secs(2);

/// A pull that failed.
#[derive(Clone, Debug)]
pub(crate) struct PullFailure {
    pub image: String,
    pub failures: u32,
    pub until: Timestamp,
    pub reason: &'static str,
    pub message: String,
}

/// Credentials from `kubernetes.io/dockerconfigjson` and `.dockercfg` Secrets for `image`, in the
/// order of `imagePullSecrets`.
pub fn credentials(secrets: &[Secret], image: &str) -> Vec<RegistryAuth> {
    let host = registry(image);
    let mut out = Vec::new();
    for secret in secrets {
        let data = |key: &str| secret.data.as_ref()?.get(key).map(|b| b.0.clone());
        let parse = |bytes: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&bytes).ok();
        let auths = data(".dockerconfigjson")
            .and_then(parse)
            .and_then(|v| v.get("auths").cloned())
            .or_else(|| data(".dockercfg").and_then(parse));
        let Some(auths) = auths else { continue };
        for (server, auth) in auths.as_object().into_iter().flatten() {
            let named = server.trim_start_matches("https://").trim_start_matches("http://");
            let named = named.split('/').next().unwrap_or_default();
            let hub =
                host == "docker.io" && matches!(named, "index.docker.io" | "registry-1.docker.io");
            if named == host || hub {
                out.extend(basic(auth));
            }
        }
    }
    out
}

fn basic(auth: &serde_json::Value) -> Option<RegistryAuth> {
    use base64::Engine;
    let text = |key: &str| auth.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(RegistryAuth::Basic { username, password });
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(RegistryAuth::Basic { username: username.to_owned(), password: password.to_owned() })
}

/// The registry that a reference names.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    container.image_pull_policy.as_deref().unwrap_or_else(|| {
        let last = image.rsplit('/').next().unwrap_or_default();
        let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
        if latest { "Always" } else { "IfNotPresent" }
    })
}

/// The image, pulled if need be; or why the container has to wait.
pub(super) async fn ensure(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
) -> Result<ImageInfo, Waiting> {
    let image = container.image.as_deref().unwrap_or_default();
    let name = &container.name;
    let present = shared.ctx.runtime.image_status(image).await;
    let present = present.map_err(|error| inspect_failed(shared, pod, name, image, &error))?;
    match (policy(container), present) {
        ("IfNotPresent" | "Never", Some(info)) => {
            let note = format!(
                "Container image {image:?} already present on machine and can be accessed by the pod"
            );
            shared.ctx.event(pod, Some(name), EventKind::Normal, "Pulled", &note);
            Ok(info)
        }
        ("Never", None) => {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            shared.ctx.event(pod, Some(name), EventKind::Warning, "ErrImageNeverPull", &message);
            let retry_at = Some(Timestamp::now() + SignedDuration::from_secs(10));
            Err(Waiting { reason: "ErrImageNeverPull".into(), message, retry_at })
        }
        (policy, _) => {
            if let Some(waiting) = backing_off(shared, pod, name, image) {
                return Err(waiting);
            }
            pull(shared, pod, container, policy).await
        }
    }
}

/// The waiting state of an image whose pull failed not long ago.
fn backing_off(shared: &Shared, pod: &Pod, name: &str, image: &str) -> Option<Waiting> {
    let failure = shared.state().pulls.get(name).cloned()?;
    if failure.image != image || failure.until <= Timestamp::now() {
        return None;
    }
    let note = format!("Back-off pulling image {image:?}");
    shared.ctx.event(pod, Some(name), EventKind::Normal, "BackOff", &note);
    shared.ctx.event(pod, Some(name), EventKind::Warning, "Failed", "Error: ImagePullBackOff");
    Some(Waiting {
        reason: "ImagePullBackOff".into(),
        message: format!("{note}: {}: {}", failure.reason, failure.message),
        retry_at: Some(failure.until),
    })
}

async fn pull(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    policy: &str,
) -> Result<ImageInfo, Waiting> {
    let (ctx, name) = (&shared.ctx, &container.name);
    let image = container.image.as_deref().unwrap_or_default();
    let asked = Instant::now();
    let lock = ctx.pull_lock(image);
    let _one_at_a_time = lock.lock().await;
    if policy == "IfNotPresent"
        && let Ok(Some(info)) = ctx.runtime.image_status(image).await
    {
        return Ok(info);
    }
    let begun = Instant::now();
    ctx.event(pod, Some(name), EventKind::Normal, "Pulling", &format!("Pulling image {image:?}"));
    let pulled = with_credentials(shared, pod, image).await;
    let info = match pulled {
        Ok(()) => ctx.runtime.image_status(image).await.ok().flatten(),
        Err(error) => return Err(pull_failed(shared, pod, name, image, &error)),
    };
    let Some(info) = info else {
        let error = runtime::Error::NotFound { kind: "image", id: image.to_owned() };
        return Err(pull_failed(shared, pod, name, image, &error));
    };
    shared.state().pulls.remove(name);
    let note = format!(
        "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
        seconds(begun.elapsed()),
        seconds(asked.elapsed()),
        info.size
    );
    ctx.event(pod, Some(name), EventKind::Normal, "Pulled", &note);
    Ok(info)
}

fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms < 1000 => format!("{ms}ms"),
        ms => format!("{}.{:03}s", ms / 1000, ms % 1000),
    }
}

/// Pulls with each fitting credential until one is accepted, without any if none fits.
async fn with_credentials(shared: &Shared, pod: &Pod, image: &str) -> runtime::Result<()> {
    let mut secrets = Vec::new();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(shared.ctx.client.clone(), namespace);
    for reference in spec(pod).image_pull_secrets.iter().flatten() {
        match api.get_opt(&reference.name).await {
            Ok(Some(secret)) => secrets.push(secret),
            Ok(None) => {
                let note = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                let ctx = &shared.ctx;
                ctx.event(pod, None, EventKind::Warning, "FailedToRetrieveImagePullSecret", &note);
            }
            Err(error) => {
                tracing::warn!(secret = reference.name, error = %base::chain(&error), "image pull secret")
            }
        }
    }
    let mut candidates = credentials(&secrets, image);
    if candidates.is_empty() {
        candidates.push(RegistryAuth::Anonymous);
    }
    let mut last = None;
    for auth in candidates {
        match shared.ctx.runtime.pull_image(image, auth, None).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(()), Err)
}

fn inspect_failed(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    image: &str,
    error: &runtime::Error,
) -> Waiting {
    let invalid = matches!(error, runtime::Error::Reference { .. });
    let (reason, message) = match invalid {
        true => (
            "InvalidImageName",
            format!("Failed to apply default image tag {image:?}: {}", base::chain(error)),
        ),
        false => (
            "ImageInspectError",
            format!("Failed to inspect image {image:?}: {}", base::chain(error)),
        ),
    };
    shared.ctx.event(pod, Some(name), EventKind::Warning, "InspectFailed", &message);
    shared.ctx.event(pod, Some(name), EventKind::Warning, "Failed", &format!("Error: {reason}"));
    let retry_at = Some(Timestamp::now() + SignedDuration::from_secs(if invalid { 60 } else { 5 }));
    Waiting { reason: reason.into(), message, retry_at }
}

fn pull_failed(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    image: &str,
    error: &runtime::Error,
) -> Waiting {
    let reason = match error {
        runtime::Error::Reference { .. } => "InvalidImageName",
        runtime::Error::Pull { unreachable: true, .. } => "RegistryUnavailable",
        _ => "ErrImagePull",
    };
    let message = base::chain(error).to_string();
    let ctx = &shared.ctx;
    let note = format!("Failed to pull image {image:?}: {message}");
    ctx.event(pod, Some(name), EventKind::Warning, "Failed", &note);
    // An unreachable registry is told as a failed pull too: the reason of old clusters' scripts.
    let shown = if reason == "RegistryUnavailable" { "ErrImagePull" } else { reason };
    ctx.event(pod, Some(name), EventKind::Warning, "Failed", &format!("Error: {shown}"));
    let now = Timestamp::now();
    let mut state = shared.state();
    let known = state.pulls.get(name).filter(|f| f.image == image).map_or(0, |f| f.failures);
    let failures = known + 1;
    let until = now + SignedDuration::try_from(BACKOFF.delay(failures)).unwrap_or_default();
    let failure = PullFailure {
        image: image.to_owned(),
        failures,
        until,
        reason: shown,
        message: message.clone(),
    };
    state.pulls.insert(name.to_owned(), failure);
    Waiting { reason: shown.into(), message, retry_at: Some(now + SHOW_ERROR) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credentials_by_registry() {
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"},
            "reg.example:5000": {"username": "a", "password": "b"}}});
        let secret: Secret = serde_json::from_value(json!({"stringData": {}})).unwrap_or_default();
        let bytes = k8s_openapi::ByteString(config.to_string().into_bytes());
        let secret =
            Secret { data: Some([(".dockerconfigjson".to_owned(), bytes)].into()), ..secret };
        let of = |image| credentials(std::slice::from_ref(&secret), image);
        let basic = |username: &str, password: &str| RegistryAuth::Basic {
            username: username.into(),
            password: password.into(),
        };
        assert_eq!(of("nginx"), [basic("u", "p")]);
        assert_eq!(of("reg.example:5000/x/y:1"), [basic("a", "b")]);
        assert_eq!(of("other.example/x"), []);
    }

    #[test]
    fn policy_from_the_tag() {
        for (image, want) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("r:5000/a", "Always"),
            ("a:1", "IfNotPresent"),
            ("a@sha256:0", "IfNotPresent"),
        ] {
            let container = Container { image: Some(image.into()), ..Container::default() };
            assert_eq!(policy(&container), want, "{image}");
        }
    }
}
