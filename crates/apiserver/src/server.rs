//! The API server as a value: what it is made of, and its two doors (in-process, TLS).

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;

use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::aggregation::Aggregator;
use crate::audit::Audit;
use crate::authn::{JwtAuthenticator, Oidc};
use crate::authz::{Authorizer, Authorizers};
use crate::cached::Cached;
use crate::config::Config;
use crate::definitions::Defined;
use crate::flow::Flow;
use crate::health::{self, Health};
use crate::metrics::Metrics;
use crate::outside::Outside;
use crate::registry::Registry;
use crate::request::{Body, BoxError, Response};
use crate::token::Tokens;
use crate::user::User;
use crate::webhook::Webhooks;
use crate::webhook::token::TokenWebhook;
use crate::{body, response};

/// What is read of an answer to a write of the server's own.
const OWN_ANSWER_BYTES_MAX: usize = 64 << 10;

/// What every part of the server shares.
pub(crate) struct Context {
    /// The objects.
    pub store: Store,
    /// What the binary said.
    pub config: Config,
    /// Roles and bindings, for whoever must ask what a user may do.
    pub authorizer: Authorizer,
    /// Kinds that are defined.
    pub definitions: Cached<Defined>,
    /// API servers behind this one.
    pub aggregator: Aggregator,
    /// Users whom other issuers vouch for.
    pub oidc: RwLock<Arc<Oidc>>,
    /// What is written down of requests.
    pub audit: Option<Arc<Audit>>,
    /// Service-account tokens.
    pub tokens: Tokens,
    /// Clients of webhooks.
    pub webhooks: Webhooks,
    /// Who is asked about tokens that nothing else here knows.
    pub token_webhook: Option<TokenWebhook>,
    /// Counters of `/metrics`.
    pub metrics: Metrics,
    /// Cancelled when the server stops: watches end, no new work is begun.
    pub stopping: CancellationToken,
}

/// The Kubernetes API over a store.
pub struct ApiServer {
    pub(crate) context: Arc<Context>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) health: Health,
    /// Who waits when more is asked than can be worked on.
    pub(crate) flow: Arc<Flow>,
    /// Whether the objects that every cluster has are there.
    pub(crate) bootstrapped: Arc<AtomicBool>,
    /// Answers what is no part of the Kubernetes API.
    pub(crate) outside: RwLock<Vec<Arc<dyn Outside>>>,
}

/// Why an API server cannot be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// A service-account key is not what it should be.
    #[error("reading the service-account key: {0}")]
    ServiceAccountKey(String),
    /// An issuer of tokens cannot be believed as it is configured.
    #[error("setting up authentication: {0}")]
    Issuers(String),
    /// A server that is to be asked about tokens, permissions or images cannot be.
    #[error("setting up another server that is asked: {0}")]
    Webhook(String),
    /// The audit log cannot be written.
    #[error("{0}")]
    Audit(String),
}

impl ApiServer {
    /// Makes the server. It has no tasks of its own until it is asked to
    /// [`bootstrap`](Self::bootstrap) or to [`serve`](Self::serve).
    pub fn new(store: Store, config: Config) -> Result<Arc<ApiServer>, NewError> {
        let stopping = CancellationToken::new();
        let context = Arc::new(Context {
            authorizer: Authorizer::new(&store, &config.access.authorizers)
                .map_err(NewError::Webhook)?,
            definitions: Defined::cached(&store),
            oidc: RwLock::new(Arc::new(Oidc::new(&config.access.jwt).map_err(NewError::Issuers)?)),
            audit: match &config.access.audit {
                Some(options) => Some(Audit::open(options, &store).map_err(NewError::Audit)?),
                None => None,
            },
            aggregator: Aggregator::new(&store, config.access.front_proxy.clone()),
            tokens: Tokens::new(store.clone(), &config.service_account, &config.access)
                .map_err(NewError::ServiceAccountKey)?,
            webhooks: Webhooks::new(store.clone()),
            token_webhook: match &config.access.token_webhook {
                Some(options) => {
                    Some(TokenWebhook::new(options, &store).map_err(NewError::Webhook)?)
                }
                None => None,
            },
            metrics: Metrics::default(),
            config,
            stopping,
            store,
        });
        let registry = Registry::new(Arc::clone(&context)).map_err(NewError::Webhook)?;
        let flow = Flow::new(&context.store, &context.config.limits);
        let health = Health::default();
        add_own_checks(&health, &context);
        let bootstrapped = Arc::new(AtomicBool::new(false));
        let live = health::STARTED.map(|name| (name, true));
        for (name, live) in live.into_iter().chain([(health::SYNCED, false)]) {
            let done = Arc::clone(&bootstrapped);
            health.add(name, live, move || {
                let done = done.load(Ordering::Acquire);
                if done { Ok(()) } else { Err("not finished".to_owned()) }
            });
        }
        let outside = RwLock::default();
        Ok(Arc::new(ApiServer { context, registry, health, flow, bootstrapped, outside }))
    }

    /// Adds a check to `/readyz` and `/healthz`. An error says what is not ready; it is
    /// logged, not shown.
    pub fn add_check(
        &self,
        name: &str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.health.add(name, false, check);
    }

    /// Hands the requests that it takes to somebody else, who also decides who may make them.
    pub fn add_outside(&self, outside: Arc<dyn Outside>) {
        self.outside.write().unwrap_or_else(PoisonError::into_inner).push(outside);
    }

    /// The user behind a bearer token, for handlers that authenticate by themselves.
    pub async fn token_user(&self, token: &str) -> Option<User> {
        let context = &self.context;
        let user = context.token_user(token, context.tokens.audiences()).await;
        user.ok().map(|(user, _)| user)
    }

    /// Signs service-account tokens with another key (PKCS #8 in PEM) from now on, and accepts
    /// those of further public keys (SPKI in PEM).
    pub fn set_service_account_keys(
        &self,
        signing_pem: &str,
        public_pem: &[String],
    ) -> Result<(), NewError> {
        let set = self.context.tokens.set_keys(signing_pem, public_pem);
        set.map_err(NewError::ServiceAccountKey)
    }

    /// Another chain of authorizers from now on. What cannot be used changes nothing.
    pub fn set_authorizers(&self, authorizers: &Authorizers) -> Result<(), NewError> {
        let context = &self.context;
        context.authorizer.set(&context.store, authorizers).map_err(NewError::Webhook)
    }

    /// Other issuers of tokens are believed from now on. What cannot be used changes nothing.
    pub fn set_issuers(&self, issuers: &[JwtAuthenticator]) -> Result<(), NewError> {
        let made = Arc::new(Oidc::new(issuers).map_err(NewError::Issuers)?);
        *self.context.oidc.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    /// A write of the server's own, through its own door. An error is the answer's text.
    pub(crate) async fn write_own(
        self: &Arc<Self>,
        method: Method,
        path: &str,
        object: &Value,
    ) -> Result<(), String> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(response::full(object.to_string()))
            .map_err(|error| error.to_string())?;
        let answer = Arc::clone(self).answer(request, Some(User::apiserver())).await;
        if answer.status().is_success() {
            return Ok(());
        }
        let text = body::whole(answer.into_body(), OWN_ANSWER_BYTES_MAX).await;
        Err(text.map_or_else(
            |status| status.message,
            |text| String::from_utf8_lossy(&text).trim().to_owned(),
        ))
    }

    /// The server as a tower service for callers in this process, as this user:
    /// authentication is skipped, everything behind it is not.
    pub fn in_process(self: &Arc<Self>, user: User) -> InProcess {
        InProcess { server: Arc::clone(self), user: Some(user) }
    }

    /// The server as a tower service that authenticates each request by its headers.
    pub fn service(self: &Arc<Self>) -> InProcess {
        InProcess { server: Arc::clone(self), user: None }
    }
}

fn add_own_checks(health: &Health, context: &Arc<Context>) {
    health.add("ping", true, || Ok(()));
    health.add("log", true, || Ok(()));
    let store = context.store.clone();
    // Failures and commits at the last failure seen: writes work again once a commit follows.
    let seen = std::sync::Mutex::new((0, 0));
    health.add("etcd", true, move || {
        let stats = store.stats();
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stats.failures > seen.0 {
            *seen = (stats.failures, stats.commits);
        }
        if seen.0 > 0 && stats.commits == seen.1 {
            return Err("the last write could not be made durable".to_owned());
        }
        Ok(())
    });
    let stopping = context.stopping.clone();
    health.add("shutdown", false, move || {
        if stopping.is_cancelled() { Err("process is shutting down".to_owned()) } else { Ok(()) }
    });
}

/// A tower service over the server; see [`ApiServer::in_process`].
#[derive(Clone)]
pub struct InProcess {
    server: Arc<ApiServer>,
    user: Option<User>,
}

impl<B> tower::Service<http::Request<B>> for InProcess
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let server = Arc::clone(&self.server);
        let user = self.user.clone();
        let request = request.map(|body| -> Body { body.map_err(Into::into).boxed_unsync() });
        Box::pin(async move { Ok(server.answer(request, user).await) })
    }
}
