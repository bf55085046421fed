//! ImagePolicyWebhook: another server says whether a pod's images may run (ImageReview).

use std::path::Path;
use std::time::Duration;

use api::status::Status;
use serde_json::{Map, Value, json};
use store::Store;

use super::super::{Attributes, Operation};
use crate::notes;
use crate::registry::{Outcome, meta};
use crate::webhook::remembered::Remembered;
use crate::webhook::remote::{PATIENCE, Remote, RemoteConfig};

/// Annotations of a pod that the other server sees are those of such a domain.
const DOMAIN: &str = ".image-policy.k8s.io/";
const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";
const ALLOW_TTL: Duration = Duration::from_secs(5 * 60);
const DENY_TTL: Duration = Duration::from_secs(30);
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5 * 60);
const TTL_MAX: Duration = Duration::from_secs(30 * 60);

/// Who is asked, and how long an answer counts.
#[derive(Clone, Debug)]
pub(in super::super) struct ImagePolicyOptions {
    remote: RemoteConfig,
    allow_ttl: Duration,
    deny_ttl: Duration,
    /// Before the server is asked again that could not answer.
    retry_backoff: Duration,
    /// Whether images may run that the server cannot be asked about.
    default_allow: bool,
}

impl ImagePolicyOptions {
    /// Reads the plugin's configuration; `read` gives the text of a file that it names.
    pub fn read(
        config: &Value,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        let config = &config["imagePolicy"];
        let path = config["kubeConfigFile"].as_str().unwrap_or_default();
        if path.is_empty() {
            return Err("imagePolicy.kubeConfigFile: Required value".to_owned());
        }
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        let beside =
            |name: &str| read(&folder.join(name).to_string_lossy()).map(String::into_bytes);
        let remote = RemoteConfig::parse(&read(path)?, beside)
            .map_err(|why| format!("imagePolicy.kubeConfigFile: {path}: {why}"))?;
        Ok(ImagePolicyOptions {
            remote,
            allow_ttl: ttl(&config["allowTTL"], ALLOW_TTL)?,
            deny_ttl: ttl(&config["denyTTL"], DENY_TTL)?,
            retry_backoff: backoff(&config["retryBackoff"])?,
            default_allow: config["defaultAllow"] == true,
        })
    }
}

/// A time in seconds; -1 for none, 0 for the default.
fn ttl(value: &Value, default: Duration) -> Result<Duration, String> {
    let seconds = value.as_i64().unwrap_or_default();
    match u64::try_from(seconds).map(Duration::from_secs) {
        Ok(Duration::ZERO) => Ok(default),
        Ok(ttl) if ttl <= TTL_MAX => Ok(ttl),
        Err(_) if seconds == -1 => Ok(Duration::ZERO),
        _ => Err(format!("valid value is between 1s and 30m0s, got {seconds}s")),
    }
}

/// A pause in milliseconds; -1 for none, 0 for the default.
fn backoff(value: &Value) -> Result<Duration, String> {
    let millis = value.as_i64().unwrap_or_default();
    match u64::try_from(millis).map(Duration::from_millis) {
        Ok(Duration::ZERO) => Ok(BACKOFF),
        Ok(pause) if pause <= BACKOFF_MAX => Ok(pause),
        Err(_) if millis == -1 => Ok(Duration::ZERO),
        _ => Err(format!("valid value is between 1ms and 5m0s, got {millis}ms")),
    }
}

/// Asks about images.
pub(in super::super) struct ImagePolicy {
    options: ImagePolicyOptions,
    remote: Remote,
    /// Why images were refused, or that they were not, by what was asked.
    known: Remembered<Result<(), String>>,
}

impl ImagePolicy {
    /// Nobody has been asked yet.
    pub fn new(options: &ImagePolicyOptions, store: &Store) -> Result<Self, String> {
        let remote = Remote::new(&options.remote, store)?.with_pause(options.retry_backoff);
        Ok(ImagePolicy { options: options.clone(), remote, known: Remembered::default() })
    }

    /// Lets a pod pass whose images may run, or says why not.
    pub async fn check(&self, attributes: &Attributes<'_>, pod: &Value) -> Outcome<()> {
        let Some(spec) = asked(attributes, pod) else { return Ok(()) };
        let forbidden = |why: String| Status::forbidden(attributes.resource, meta::name(pod), &why);
        let key = spec.to_string().into_bytes();
        if let Some(said) = self.known.get(&key) {
            return said.map_err(forbidden);
        }
        let review = json!({
            "apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "metadata": {"creationTimestamp": null}, "spec": spec,
        });
        let answer = match self.remote.ask(&review, PATIENCE).await {
            Ok(answer) => answer,
            Err(why) if self.options.default_allow => {
                tracing::warn!(why, "images are let pass unseen");
                notes::annotate(format!("{AUDIT_PREFIX}failed-open"), "true");
                return Ok(());
            }
            Err(why) => return Err(forbidden(why)),
        };
        let status = &answer["status"];
        for (key, value) in status["auditAnnotations"].as_object().into_iter().flatten() {
            notes::annotate(format!("{AUDIT_PREFIX}{key}"), value.as_str().unwrap_or_default());
        }
        let said = match status["reason"].as_str().unwrap_or_default() {
            _ if status["allowed"] == true => Ok(()),
            "" => Err("one or more images rejected by webhook backend".to_owned()),
            why => Err(format!("image policy webhook backend denied one or more images: {why}")),
        };
        let ttl = if said.is_ok() { self.options.allow_ttl } else { self.options.deny_ttl };
        self.known.put(key, said.clone(), ttl);
        said.map_err(forbidden)
    }
}

/// What is asked of a write; `None` where it is about no images.
fn asked(attributes: &Attributes<'_>, pod: &Value) -> Option<Value> {
    let written = matches!(attributes.operation, Operation::Create | Operation::Update);
    let lists: &[&str] = match attributes.subresource {
        "" => &["containers", "initContainers"],
        "ephemeralcontainers" => &["ephemeralContainers"],
        _ => return None,
    };
    if !written || attributes.resource.collection() != "pods" {
        return None;
    }
    let all = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    let images: Vec<Value> =
        all.map(|one| json!({"image": one["image"].as_str().unwrap_or_default()})).collect();
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    let annotations: Map<String, Value> = annotations
        .filter(|(key, _)| key.contains(DOMAIN))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut spec = json!({"containers": images, "namespace": attributes.namespace});
    if !annotations.is_empty() {
        spec["annotations"] = Value::Object(annotations);
    }
    Some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};

    #[test]
    fn it_is_asked_about_images_and_sees_its_own_annotations() {
        let cluster = Few::default();
        let mut write = attributes(&cluster, ("", "v1", "pods"), "x");
        let pod = json!({"metadata": {"annotations": {"a": "b", "my.image-policy.k8s.io/ticket": "1"}},
            "spec": {"containers": [{"image": "i"}], "initContainers": [{"image": "j"}],
                "ephemeralContainers": [{"image": "k"}]}});
        assert_eq!(
            asked(&write, &pod).unwrap(),
            json!({"containers": [{"image": "i"}, {"image": "j"}], "namespace": "x",
                "annotations": {"my.image-policy.k8s.io/ticket": "1"}})
        );
        write.subresource = "ephemeralcontainers";
        assert_eq!(asked(&write, &pod).unwrap()["containers"], json!([{"image": "k"}]));
        write.subresource = "status";
        assert_eq!(asked(&write, &pod), None);
    }

    #[test]
    fn times_are_seconds_within_bounds() {
        let read = |seconds: i64| ttl(&json!(seconds), ALLOW_TTL).map(|ttl| ttl.as_secs());
        assert_eq!((read(0), read(-1), read(30)), (Ok(300), Ok(0), Ok(30)));
        assert_eq!(read(1801).unwrap_err(), "valid value is between 1s and 30m0s, got 1801s");
        let read = |millis: i64| backoff(&json!(millis)).map(|pause| pause.as_millis());
        assert_eq!((read(0), read(-1), read(1)), (Ok(500), Ok(0), Ok(1)));
        assert_eq!(read(-2).unwrap_err(), "valid value is between 1ms and 5m0s, got -2ms");
        let config = json!({"imagePolicy": {"kubeConfigFile": "k/config"}});
        let missing = ImagePolicyOptions::read(&config, |path| Err(format!("no {path}")));
        assert_eq!(missing.unwrap_err(), "no k/config");
    }
}
