//! Bootstrap tokens: Secrets in `kube-system` in upstream's form, so that `kubeadm token list`
//! and cluster-api read them too.

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};

use super::checks::same;
use super::protocol::Refusal;
use super::token::random_bytes;
use crate::failure::{Failure, Outcome};

/// Where the Secrets are.
pub const NAMESPACE: &str = "kube-system";
/// The type of the Secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// In front of the id.
const PREFIX: &str = "bootstrap-token-";
const AUTHENTICATION: &str = "usage-bootstrap-authentication";

/// What a token is good for, upstream's words.
pub const USAGES: [&str; 2] = ["authentication", "signing"];
/// The groups that a token's user is in, unless told otherwise.
pub const DEFAULT_GROUP: &str = "system:bootstrappers:coracle:default-node-token";

/// A bootstrap token as its Secret has it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BootstrapToken {
    /// The public part.
    pub id: String,
    /// The secret part.
    pub secret: String,
    /// What people said it is for.
    pub description: String,
    /// When it ends; never, where absent.
    pub expires: Option<Timestamp>,
    /// What it is good for.
    pub usages: Vec<String>,
    /// The groups of its user.
    pub groups: Vec<String>,
}
base::hides!(BootstrapToken, id, description, expires, usages, groups);

impl BootstrapToken {
    /// A token that nobody can guess.
    pub fn new(life: Option<SignedDuration>, now: Timestamp) -> Outcome<Self> {
        let expires = life.map(|life| now.checked_add(life)).transpose().map_err(|_| {
            Failure::new("the token would live too long").hint("choose a smaller --ttl")
        })?;
        Ok(BootstrapToken {
            id: letters::<6>()?,
            secret: letters::<16>()?,
            expires,
            usages: USAGES.map(str::to_owned).to_vec(),
            groups: vec![DEFAULT_GROUP.to_owned()],
            ..BootstrapToken::default()
        })
    }

    /// The Secret that holds it.
    pub fn to_secret(&self) -> Secret {
        let mut data = BTreeMap::from([
            ("token-id".to_owned(), self.id.clone()),
            ("token-secret".to_owned(), self.secret.clone()),
        ]);
        if !self.description.is_empty() {
            data.insert("description".to_owned(), self.description.clone());
        }
        if let Some(expires) = self.expires {
            data.insert("expiration".to_owned(), format!("{expires:.0}"));
        }
        if !self.groups.is_empty() {
            data.insert("auth-extra-groups".to_owned(), self.groups.join(","));
        }
        for usage in &self.usages {
            data.insert(format!("usage-bootstrap-{usage}"), "true".to_owned());
        }
        let data = data.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes())));
        Secret {
            metadata: ObjectMeta { name: Some(secret_name(&self.id)), ..ObjectMeta::default() },
            type_: Some(TYPE.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    /// Reads a Secret; `None` where it holds no bootstrap token.
    pub fn of_secret(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref().filter(|_| secret.type_.as_deref() == Some(TYPE))?;
        let text =
            |key: &str| data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        let id = text("token-id")?;
        if secret.metadata.name.as_deref() != Some(&secret_name(&id)) {
            return None;
        }
        let list = |text: String| text.split(',').map(str::to_owned).collect();
        let is_for =
            |usage: &&str| text(&format!("usage-bootstrap-{usage}")).as_deref() == Some("true");
        Some(BootstrapToken {
            secret: text("token-secret")?,
            description: text("description").unwrap_or_default(),
            // What cannot be read has ended: a token must not live on by a mistake.
            expires: text("expiration").map(|at| at.parse().unwrap_or(Timestamp::UNIX_EPOCH)),
            usages: USAGES.iter().filter(|usage| is_for(usage)).map(|u| (*u).to_owned()).collect(),
            groups: text("auth-extra-groups").map(list).unwrap_or_default(),
            id,
        })
    }
}

/// The Secret of a token.
pub fn secret_name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Refuses a token that is unknown, wrong, over, or not meant for joining.
pub async fn check(client: &Client, id: &str, secret: &str) -> Result<(), Refusal> {
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let present = api.get_opt(&secret_name(id)).await.map_err(|e| Refusal::internal(&e))?;
    verdict(id, secret, present.as_ref(), Timestamp::now())
}

fn verdict(id: &str, secret: &str, found: Option<&Secret>, now: Timestamp) -> Result<(), Refusal> {
    let refused = |what: String| {
        let hint = "make a new one on a server: `coracle token create`";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, what, hint))
    };
    let token = found.and_then(BootstrapToken::of_secret);
    let Some(token) = token.filter(|token| same(secret, &token.secret)) else {
        return refused(format!(
            "the bootstrap token {id} is not one of this cluster's (expired ones are removed)"
        ));
    };
    match token.expires {
        Some(end) if end <= now => {
            return refused(format!("the bootstrap token {id} has expired at {end:.0}"));
        }
        _ => {}
    }
    if !token.usages.iter().any(|usage| AUTHENTICATION.ends_with(usage.as_str())) {
        return refused(format!("the bootstrap token {id} is not meant for joining"));
    }
    Ok(())
}

/// Random lower-case letters and digits.
fn letters<const LENGTH: usize>() -> Outcome<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bytes = random_bytes::<LENGTH>()?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let life = SignedDuration::from_hours(24);
        let token = BootstrapToken::new(Some(life), now).expect("a token");
        let secret = token.to_secret();
        assert_eq!(BootstrapToken::of_secret(&secret), Some(token.clone()));
        let text = format!("{}.{}", token.id, token.secret);
        assert!(super::super::token::bootstrap(&text).is_some(), "{text}");
    }

    #[test]
    fn tokens_are_refused_with_the_reason() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a time");
        let life = SignedDuration::from_hours(1);
        let mut token = BootstrapToken::new(Some(life), now).expect("a token");
        let (id, secret) = (token.id.clone(), token.secret.clone());
        let check = |token: &BootstrapToken, secret: &str, now| {
            verdict(&id, secret, Some(&token.to_secret()), now).err().map(|r| r.error)
        };
        assert_eq!(check(&token, &secret, now), None);
        for (error, text) in [
            (check(&token, "0000000000000000", now), "not one of this cluster's"),
            (check(&token, &secret, now + life), "has expired at 2026-11-21T13:00:00Z"),
            (verdict(&id, &secret, None, now).err().map(|r| r.error), "expired ones are removed"),
        ] {
            assert!(error.as_ref().is_some_and(|error| error.contains(text)), "{error:?}");
        }
        token.usages = vec!["signing".into()];
        let error = check(&token, &secret, now).expect("refused");
        assert!(error.contains("not meant for joining"), "{error}");
    }
}
