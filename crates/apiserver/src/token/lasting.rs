//! Tokens without an end, which stand in Secrets of the type
//! `kubernetes.io/service-account-token`: they count as long as the Secret has them.
//!
//! Upstream has a controller write them. Here the server does when the Secret is written, since it
//! alone has the key that signs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Store;

use super::{TokenError, Tokens};
use crate::objects;
use crate::user::User;

/// Who has made such a token; the cluster's issuer is for those with an end.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// The type of such Secrets.
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Where a cluster's authorities stand, in every namespace.
const AUTHORITIES: &str = "kube-root-ca.crt";

/// What such a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lasting {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret_name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

impl Lasting {
    /// The user behind a token, if the Secret still has it and the account is the same.
    pub fn user(&self, store: &Store, token: &str) -> Result<User, TokenError> {
        let secret = objects::object(store, "secrets", &self.namespace, &self.secret_name);
        let secret = secret.filter(|secret| secret["metadata"]["deletionTimestamp"].is_null());
        let held = secret.and_then(|secret| decoded(&secret["data"]["token"]));
        let account = objects::identity(store, "serviceaccounts", &self.namespace, &self.account);
        let same = |found: &objects::Identity| found.uid == self.uid && found.deleted.is_none();
        if held.as_deref() != Some(token.as_bytes()) || !account.as_ref().is_some_and(same) {
            return Err(TokenError::Unbound);
        }
        let mut user = User::service_account(&self.namespace, &self.account);
        user.uid.clone_from(&self.uid);
        Ok(user)
    }
}

fn decoded(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

/// The account whose token a Secret is to have.
fn account_of(secret: &Value) -> Option<&str> {
    (secret["type"] == TYPE).then(|| secret["metadata"]["annotations"][ACCOUNT].as_str()).flatten()
}

/// Whether a Secret has tokens of this account.
pub(crate) fn is_of(secret: &Value, account: &str) -> bool {
    account_of(secret) == Some(account)
}

impl Tokens {
    /// Completes a Secret that asks for an account's token. Nothing is done where there is no such
    /// account, or the Secret was made for one that is gone.
    pub(crate) fn complete(&self, secret: &mut Value) {
        let Some(name) = account_of(secret) else { return };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &secret["metadata"];
        let (name, namespace) = (name.to_owned(), text(&metadata["namespace"]));
        let known = text(&metadata["annotations"][ACCOUNT_UID]);
        let account = objects::identity(&self.store, "serviceaccounts", &namespace, &name);
        let Some(account) = account.filter(|account| account.deleted.is_none()) else { return };
        if !(known.is_empty() || known == account.uid) {
            return;
        }
        let claims = Lasting {
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            secret_name: text(&metadata["name"]),
            account: name,
            uid: account.uid.clone(),
            namespace: namespace.clone(),
        };
        secret["metadata"]["annotations"][ACCOUNT_UID] = account.uid.into();
        if !secret["data"].is_object() {
            secret["data"] = json!({});
        }
        let data = &mut secret["data"];
        data["namespace"] = STANDARD.encode(&namespace).into();
        let authorities = [namespace.as_str(), "kube-system"]
            .iter()
            .find_map(|place| objects::object(&self.store, "configmaps", place, AUTHORITIES));
        if let Some(pem) =
            authorities.and_then(|map| Some(map["data"]["ca.crt"].as_str()?.to_owned()))
        {
            data["ca.crt"] = STANDARD.encode(pem).into();
        }
        if decoded(&data["token"]).is_none_or(|token| token.is_empty()) {
            data["token"] = STANDARD.encode(self.sign(&claims)).into();
        }
    }
}
