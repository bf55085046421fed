//! The desk at which a server lets other boards in: what it answers at `/cacerts` and
//! below `/v1-coracle/`, on the port of the API.
//!
//! A caller is known by its client certificate or by a token. Whatever it sends is small, few
//! are answered at once, and a refusal takes a moment, so that nobody can try tokens quickly.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use apiserver::{ApiServer, Body, Caller, Outside, Request, Response, User};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use kube::Client;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::Store;
use tokio::sync::{Semaphore, watch};

use super::checks::{self, Role};
use super::passwords::Proof;
use super::protocol::{AUTHORITIES, CHANGE, Handover, Hello, JOIN, Refusal, SERVER, Welcome};
use super::token::Credential;
use super::{Secrets, bootstrap_tokens, certify, changes, passwords, servers};
use crate::{etcd, upgrade};

/// Callers answered at once; more wait.
const CALLERS_MAX: usize = 32;
/// The largest body, in bytes: a certificate request is below 2 KiB.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A body that has not come by then is not waited for.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a refusal takes.
const REFUSAL_DELAY: Duration = Duration::from_millis(300);

/// The desk of one server.
pub struct Desk {
    /// The server behind it, which holds the desk.
    api: Weak<ApiServer>,
    /// Acts as the server itself.
    client: Client,
    store: Store,
    secrets: watch::Receiver<Arc<Secrets>>,
    own_name: String,
    /// This server's etcd, where it has one.
    etcd: Option<etcd::Place>,
    callers: Semaphore,
}

impl Desk {
    /// Opens the desk of the server on the board `own_name`. `client` acts as the server itself.
    pub fn open(
        api: &Arc<ApiServer>,
        client: Client,
        store: Store,
        secrets: watch::Receiver<Arc<Secrets>>,
        own_name: &str,
        etcd: Option<etcd::Place>,
    ) {
        api.add_outside(Arc::new(Desk {
            api: Arc::downgrade(api),
            client,
            store,
            secrets,
            own_name: own_name.to_owned(),
            etcd,
            callers: Semaphore::new(CALLERS_MAX),
        }));
    }

    async fn serve(&self, request: Request, caller: Caller) -> Response {
        if (request.method(), request.uri().path()) == (&Method::GET, AUTHORITIES) {
            return text(self.secrets().server_ca.bundle());
        }
        let _place = self.callers.acquire().await;
        let answer = match (request.method(), request.uri().path()) {
            (&Method::POST, JOIN) => self.join(request, caller).await.and_then(|a| json(&a)),
            (&Method::POST, SERVER) => self.server(request).await.and_then(|a| json(&a)),
            (&Method::POST, CHANGE) => self.change(request, caller).await.and_then(|a| json(&a)),
            (_, path) => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("there is nothing at {path}"),
                "use the same release of Coracle on all boards",
            )),
        };
        match answer {
            Ok(answer) => answer,
            Err(refusal) => {
                tracing::info!(code = %refusal.code, error = refusal.error, "a board was refused");
                tokio::time::sleep(REFUSAL_DELAY).await;
                let mut answer = json(&refusal).unwrap_or_else(|_| text(String::new()));
                *answer.status_mut() = refusal.code;
                answer
            }
        }
    }

    fn secrets(&self) -> Arc<Secrets> {
        self.secrets.borrow().clone()
    }

    /// Lets a node in, or back in.
    async fn join(&self, request: Request, caller: Caller) -> Result<Welcome, Refusal> {
        let by_token = self.role(credential(request.headers())).await;
        let known = caller.user.map(|user| user.name);
        if known.is_none() {
            // What a stranger has to say is not waited for.
            by_token.clone()?;
        }
        let hello: Hello = body(request).await?;
        let proof = match known == Some(format!("system:node:{}", hello.name)) {
            true => Proof::Itself,
            false => by_token.map(|_| Proof::Token)?,
        };
        checks::name(&hello)?;
        checks::clock(&hello, Timestamp::now())?;
        checks::agent_version(&hello, upgrade::current())?;
        passwords::claim(&self.client, &hello.name, &hello.password, proof).await?;
        let certificate = match &hello.request {
            Some(request) => {
                let api = self.api.upgrade().ok_or_else(stopping)?;
                let node = client::in_process(api.in_process(User::node(&hello.name)));
                Some(certify::client_certificate(&node, &hello.name, request).await?)
            }
            None => None,
        };
        let secrets = self.secrets();
        Ok(Welcome {
            settings: secrets.settings.clone(),
            server_ca: secrets.server_ca.bundle(),
            client_ca: secrets.client_ca.bundle(),
            servers: servers::list(&self.client).await.map_err(|e| Refusal::internal(&e))?,
            certificate,
        })
    }

    /// Hands the cluster's secrets to a further server.
    async fn server(&self, request: Request) -> Result<Handover, Refusal> {
        checks::must_be_server(self.role(credential(request.headers())).await?)?;
        let hello: Hello = body(request).await?;
        checks::name(&hello)?;
        checks::clock(&hello, Timestamp::now())?;
        checks::server_version(&hello, upgrade::current(), &self.own_name)?;
        let members = self.members().await;
        let dead = |(seen, _): &(etcd::Seen, _)| seen.member.name == hello.name && !seen.alive;
        if members.iter().any(dead) {
            // The server token opens everything, and the server of that name is no more: this is
            // its board, set up anew.
            passwords::release(&self.client, &hello.name).await?;
        }
        passwords::claim(&self.client, &hello.name, &hello.password, Proof::Itself).await?;
        let alive = members.into_iter().filter(|(seen, _)| seen.alive);
        Ok(Handover {
            secrets: Secrets::clone(&self.secrets()),
            etcd: alive.filter_map(|(seen, _)| seen.member.client_url).collect(),
        })
    }

    /// The members of the cluster's etcd, and how they are.
    async fn members(&self) -> Vec<(etcd::Seen, Option<etcd::Status>)> {
        let Some(place) = &self.etcd else { return Vec::new() };
        let members = async { place.local().await?.members().await };
        let members = members.await.unwrap_or_else(|_| etcd::remembered(&place.data_dir));
        etcd::look(members, &place.tls).await
    }

    /// Changes tokens or authorities for an administrator.
    async fn change(
        &self,
        request: Request,
        caller: Caller,
    ) -> Result<super::protocol::Changed, Refusal> {
        let is_admin = caller.user.is_some_and(|user| user.in_group("system:masters"));
        if !is_admin {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "only an administrator may change the cluster's keys",
                "run the command on a server, as root",
            ));
        }
        let change = body(request).await?;
        let (secrets, etcd) = (self.secrets(), self.etcd.as_ref());
        changes::make(&self.store, &self.client, etcd, &secrets, change).await
    }

    async fn role(&self, credential: Option<Credential>) -> Result<Role, Refusal> {
        match credential {
            None => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "this cluster knows neither a token nor a certificate of yours",
                "give a token with --token; a server keeps them in server/token and \
                 server/agent-token",
            )),
            Some(Credential::Bootstrap { id, secret }) => {
                bootstrap_tokens::check(&self.client, &id, &secret).await.map(|()| Role::Node)
            }
            Some(credential) => checks::role(&credential, &self.secrets()),
        }
    }
}

impl Outside for Desk {
    fn takes(&self, path: &str) -> bool {
        [AUTHORITIES, JOIN, SERVER, CHANGE].contains(&path)
    }

    fn answer(
        self: Arc<Self>,
        request: Request,
        caller: Caller,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        Box::pin(async move { self.serve(request, caller).await })
    }
}

fn stopping() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "this server is stopping", "try another one")
}

/// The token in a request's headers: `Basic` for those of the cluster, `Bearer` for a bootstrap
/// token.
fn credential(headers: &HeaderMap) -> Option<Credential> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        let (id, secret) = super::token::bootstrap(rest.trim())?;
        return Some(Credential::Bootstrap { id, secret });
    }
    let decoded = BASE64.decode(rest.trim()).ok()?;
    match std::str::from_utf8(&decoded).ok()?.split_once(':')? {
        ("server", secret) => Some(Credential::Server(secret.to_owned())),
        ("node", secret) => Some(Credential::Node(secret.to_owned())),
        ("", secret) => Some(Credential::Bare(secret.to_owned())),
        _ => None,
    }
}

async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let bad = |what: String| {
        Refusal::new(StatusCode::BAD_REQUEST, what, "use the same release of Coracle on all boards")
    };
    let limited = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().boxed();
    let bytes = tokio::time::timeout(BODY_TIMEOUT, limited)
        .await
        .map_err(|_| bad("the request did not come whole".to_owned()))?
        .map_err(|error| bad(format!("the request was not read: {error}")))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("the request is no good: {error}")))
}

fn json(value: &impl Serialize) -> Result<Response, Refusal> {
    let bytes = serde_json::to_vec(value).map_err(|error| Refusal::internal(&error))?;
    let mut answer = Response::new(full(bytes));
    let kind = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(answer)
}

fn text(text: String) -> Response {
    Response::new(full(text))
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
