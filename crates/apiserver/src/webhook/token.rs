//! Asking another server about tokens (upstream's webhook token authenticator), and remembering
//! for a while what it said.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use store::Store;

use super::remembered::Remembered;
use super::remote::{PATIENCE, Remote, RemoteConfig};
use crate::user::User;

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
            known: Remembered::default(),
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
        let answer = self.remote.ask(&review, PATIENCE).await?;
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
