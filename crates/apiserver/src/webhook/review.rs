//! Asking another server about tokens and permissions (upstream's webhook token authenticator and
//! webhook authorizer), and remembering for a while what it said.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use store::Store;

use super::remote::{Remote, RemoteConfig};
use crate::authz::Attributes;
use crate::user::User;

/// Answers that are remembered; when there are more, all are forgotten.
const REMEMBERED_MAX: usize = 4096;

/// Who answers for tokens.
#[derive(Clone, Debug)]
pub struct TokenWebhookOptions {
    /// The server.
    pub remote: RemoteConfig,
    /// Version of TokenReview, `v1` or `v1beta1`.
    pub version: String,
    /// How long an answer counts.
    pub ttl: Duration,
}

/// Who answers for permissions.
#[derive(Clone, Debug)]
pub struct AuthorizationWebhookOptions {
    /// The server.
    pub remote: RemoteConfig,
    /// Version of SubjectAccessReview, `v1` or `v1beta1`.
    pub version: String,
    /// How long a permission counts.
    pub allowed_ttl: Duration,
    /// How long a refusal counts.
    pub refused_ttl: Duration,
}

/// What somebody said, and until when it counts.
struct Remembered<T>(Mutex<HashMap<Vec<u8>, (T, Instant)>>);

impl<T: Clone> Remembered<T> {
    fn new() -> Self {
        Remembered(Mutex::default())
    }

    fn get(&self, key: &[u8]) -> Option<T> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).filter(|(_, until)| *until > Instant::now()).map(|(said, _)| said.clone())
    }

    fn put(&self, key: Vec<u8>, said: T, ttl: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(key, (said, Instant::now() + ttl));
    }
}

/// Asks about tokens.
pub(crate) struct TokenWebhook {
    remote: Remote,
    version: String,
    ttl: Duration,
    known: Remembered<Option<(User, Vec<String>)>>,
}

impl TokenWebhook {
    /// Nobody has been asked yet.
    pub(crate) fn new(options: &TokenWebhookOptions, store: &Store) -> Result<Self, String> {
        Ok(TokenWebhook {
            remote: Remote::new(&options.remote, store)?,
            version: options.version.clone(),
            ttl: options.ttl,
            known: Remembered::new(),
        })
    }

    /// The user behind a token, and the audiences that it is meant for: none where the other
    /// server says nothing of them. `None` for a token that is none.
    pub(crate) async fn user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<(User, Vec<String>)>, String> {
        let key = digest(&SHA256, format!("{audiences:?}{token}").as_bytes()).as_ref().to_vec();
        if let Some(said) = self.known.get(&key) {
            return Ok(said);
        }
        let review = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "kind": "TokenReview", "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences},
        });
        let answer = self.remote.ask(&review).await?;
        let status = &answer["status"];
        let said = (status["authenticated"] == true).then(|| {
            let texts = |list: &Value| crate::registry::meta::strings(list);
            let user = &status["user"];
            let text = |field: &str| user[field].as_str().unwrap_or_default().to_owned();
            let extra = user["extra"].as_object().into_iter().flatten();
            let user = User {
                name: text("username"),
                uid: text("uid"),
                groups: texts(&user["groups"]),
                extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
            };
            (user, texts(&status["audiences"]))
        });
        self.known.put(key, said.clone(), self.ttl);
        Ok(said)
    }
}

/// What another server says of a permission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opinion {
    pub allowed: bool,
    pub reason: String,
}

/// Asks about permissions.
pub(crate) struct AuthorizationWebhook {
    remote: Remote,
    version: String,
    allowed_ttl: Duration,
    refused_ttl: Duration,
    known: Remembered<Opinion>,
}

impl AuthorizationWebhook {
    /// Nobody has been asked yet.
    pub(crate) fn new(
        options: &AuthorizationWebhookOptions,
        store: &Store,
    ) -> Result<Self, String> {
        Ok(AuthorizationWebhook {
            remote: Remote::new(&options.remote, store)?,
            version: options.version.clone(),
            allowed_ttl: options.allowed_ttl,
            refused_ttl: options.refused_ttl,
            known: Remembered::new(),
        })
    }

    /// Whether the other server allows it; who cannot be asked does not.
    pub(crate) async fn opinion(&self, attributes: &Attributes<'_>) -> Opinion {
        let spec = spec(attributes, self.version == "v1beta1");
        let key = spec.to_string().into_bytes();
        if let Some(said) = self.known.get(&key) {
            return said;
        }
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{}", self.version),
            "kind": "SubjectAccessReview", "metadata": {"creationTimestamp": null}, "spec": spec,
        });
        let answer = match self.remote.ask(&review).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error, "failed to make webhook authorizer request");
                return Opinion { allowed: false, reason: error };
            }
        };
        let status = &answer["status"];
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        let said = Opinion { allowed: status["allowed"] == true, reason };
        let ttl = if said.allowed { self.allowed_ttl } else { self.refused_ttl };
        self.known.put(key, said.clone(), ttl);
        said
    }
}

fn spec(attributes: &Attributes<'_>, old: bool) -> Value {
    let user = attributes.user;
    // The one field that v1 has another name for.
    let groups = if old { "group" } else { "groups" };
    let mut spec = json!({"user": user.name, groups: user.groups});
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if !attributes.is_resource {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
        return spec;
    }
    let fields = [
        ("namespace", attributes.namespace),
        ("verb", attributes.verb),
        ("group", attributes.group),
        ("resource", attributes.resource),
        ("subresource", attributes.subresource),
        ("name", attributes.name),
    ];
    let said = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let said = said.map(|(field, value)| (field.to_owned(), value.into()));
    spec["resourceAttributes"] = Value::Object(said.collect());
    spec
}
