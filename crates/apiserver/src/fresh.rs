//! Where other servers write to the same datastore, this server's memory may be behind. What is
//! refused for what it holds, or claimed from it, is looked at again behind the store's barrier;
//! what the datastore itself decides (compare and swap) needs no such care.

use std::error::Error;
use std::sync::PoisonError;

use api::status::Status;
use store::{BarrierError, DriverError};

use crate::authz::{Attributes, Decision};
use crate::bootstrap_token;
use crate::server::Context;
use crate::token::TokenError;
use crate::user::{AUTHENTICATED, User};

/// What a client is told to wait when the datastore cannot be reached.
const RETRY_AFTER_SECONDS: u32 = 1;

impl Context {
    /// Returns when a read shows everything that anybody was told is done.
    pub(crate) async fn fresh(&self) -> Result<(), Status> {
        self.store.barrier().await.map(drop).map_err(|error| match &error {
            BarrierError::Closed => Status::unavailable("the server is shutting down"),
            BarrierError::Late { .. } => Status::timeout(&error.to_string()),
            BarrierError::Datastore(cause) => unreachable_datastore(cause, &error),
        })
    }

    /// The same where it makes a difference; says whether it does. A failure is left to
    /// whatever needs the datastore next.
    pub(crate) async fn refreshed(&self) -> bool {
        self.store.is_shared() && self.store.barrier().await.is_ok()
    }

    /// The user behind a bearer token meant for one of these audiences, and for which.
    pub(crate) async fn token_user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        if let Some(user) = self.config.access.static_tokens.user(token) {
            return self.meant(user.clone(), audiences);
        }
        let issuers = self.oidc.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(user) = issuers.user(token).await {
            return self.meant(user?, audiences);
        }
        let known = match self.known_token_user(token, audiences) {
            Err(TokenError::Unbound | TokenError::Bootstrap(_)) if self.refreshed().await => {
                self.known_token_user(token, audiences)
            }
            result => result,
        };
        let (Err(error), Some(webhook)) = (&known, &self.token_webhook) else { return known };
        tracing::debug!(%error, "asking another server about a token");
        match webhook.user(token, audiences).await {
            Ok(Some((user, said))) => self.confirmed(user, &said, audiences),
            Ok(None) => known,
            Err(why) => Err(TokenError::Webhook(why)),
        }
    }

    /// A user whom another server knows; of the audiences it may have said which it is meant for.
    fn confirmed(
        &self,
        mut user: User,
        said: &[String],
        audiences: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        if !user.in_group(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        if said.is_empty() {
            return self.meant(user, audiences);
        }
        let meant: Vec<String> =
            audiences.iter().filter(|audience| said.contains(audience)).cloned().collect();
        if meant.is_empty() {
            return Err(TokenError::Audience(said.to_vec(), audiences.to_vec()));
        }
        Ok((user, meant))
    }

    /// Whether the request may proceed, by all authorizers.
    pub(crate) async fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        self.authorizer.decide(attributes, self).await
    }

    fn known_token_user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), TokenError> {
        let Some(parts) = bootstrap_token::parts(token) else {
            return self.tokens.review(token, audiences);
        };
        let user = bootstrap_token::user(&self.store, parts, jiff::Timestamp::now())?;
        self.meant(user, audiences)
    }

    /// A token that names no audience is meant for this server's own.
    fn meant(&self, user: User, audiences: &[String]) -> Result<(User, Vec<String>), TokenError> {
        let own = self.tokens.audiences();
        let meant: Vec<String> =
            audiences.iter().filter(|audience| own.contains(audience)).cloned().collect();
        if meant.is_empty() {
            return Err(TokenError::Audience(own.to_vec(), audiences.to_vec()));
        }
        Ok((user, meant))
    }
}

/// 503 where the datastore is elsewhere and cannot be asked, else 500.
pub(crate) fn unreachable_datastore(cause: &DriverError, error: &(dyn Error + 'static)) -> Status {
    match cause {
        DriverError::Remote { .. } => {
            let why = format!("the datastore cannot be reached: {}", base::chain(error));
            Status::unavailable(why).with_retry_after(RETRY_AFTER_SECONDS)
        }
        _ => Status::internal_error(&base::chain(error).to_string()),
    }
}
