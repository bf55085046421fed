//! Secrets with tokens of an account go with the account.

use serde_json::Value;
use store::{Expect, Page, Range};

use super::Registry;
use super::call::Target;
use crate::token::lasting::is_of;

impl Registry {
    /// Gives a Secret the token that it asks for.
    pub(super) fn complete_token(&self, target: &Target, object: &mut Value) {
        if target.resource.collection() == "secrets" {
            self.context.tokens.complete(object);
        }
    }

    /// Takes the Secrets of an account that is gone. Where that fails nothing is lost: their tokens
    /// do not count without the account.
    pub(super) async fn end_tokens(&self, target: &Target) {
        if target.resource.collection() != "serviceaccounts" {
            return;
        }
        let range = Range { collection: "secrets", namespace: Some(&target.namespace) };
        let Ok(page) = self.store().list(range, Page::default()) else { return };
        for entry in &page.entries {
            let secret: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
            if is_of(&secret, &target.name) {
                let _ = self.store().delete(&entry.key, Expect::Revision(entry.revision)).await;
            }
        }
    }
}
