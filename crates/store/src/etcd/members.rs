//! Connections to an etcd's members: one at a time, and when it fails whichever answers first.
//!
//! The client's own balancing was turned down: it spreads requests over members, so that one
//! that hangs spoils every third request, and it gives no preference to the one on this board.
//! Going through the members one after the other was turned down too: while etcd elects a leader
//! all of them refuse, and each round then waits for the connection to the one that died.

use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, KvClient, TlsOptions};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use super::EtcdOptions;
use super::lead::Lead;
use super::options::ENDPOINTS_MAX;
use crate::DriverError;

/// How long one request may take. A member that is well answers in milliseconds, on a slow
/// card in a second; after an election of a leader the request is repeated anyway.
pub(super) const REQUEST_PATIENCE: Duration = Duration::from_secs(3);
/// How long making a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Pings on a silent connection; etcd closes connections that ping more often than each 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// How long a ping may remain unanswered.
const PING_PATIENCE: Duration = Duration::from_secs(3);
/// Largest message taken from etcd: a page of the largest values, or a burst of changes.
const MESSAGE_MAX_BYTES: usize = 512 << 20;
/// Pause before a request is repeated; with members that refuse at once it bounds the load.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// By how much each member is asked before those behind it, when one is sought: the nearest is to
/// be taken where it is well.
const HEAD_START: Duration = Duration::from_millis(200);

/// The members, and the one in use.
pub(super) struct Members {
    options: EtcdOptions,
    state: Mutex<State>,
    /// Held by whoever seeks a member; the others wait for what is found.
    seeking: tokio::sync::Mutex<()>,
    /// Counts the connections; whoever uses an older one should take the new one.
    generation: watch::Sender<u64>,
    lead: Lead,
}

#[derive(Default)]
struct State {
    /// Those of the options first, in their order.
    urls: Vec<String>,
    /// The member in use, if there is one.
    current: Option<Found>,
}

/// A member that answers.
#[derive(Clone)]
struct Found {
    url: String,
    client: Client,
}

/// A connection, and which one it is.
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) generation: u64,
}

impl Member {
    pub(super) fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub(super) fn watch(&self) -> etcd_client::WatchClient {
        self.client.watch_client().max_decoding_message_size(MESSAGE_MAX_BYTES)
    }
}

/// Why a request got no good answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Refused for good: another member would say the same.
    Refused(DriverError),
    /// Refused since the database is full. Deletions that write nothing beside are taken.
    Full(DriverError),
    /// The request is larger than this etcd takes.
    TooLarge,
    /// Not taken up: nothing has happened, and another member may take it.
    NotTaken(DriverError),
    /// No answer, or one that leaves open whether it was done.
    Open(DriverError),
}

impl Trouble {
    pub(super) fn into_error(self, name: &EtcdOptions) -> DriverError {
        match self {
            Self::Refused(error)
            | Self::Full(error)
            | Self::NotTaken(error)
            | Self::Open(error) => error,
            Self::TooLarge => remote(name, "write to", None, "the request is too large".into()),
        }
    }
}

impl Members {
    pub(super) fn new(options: EtcdOptions) -> Self {
        let state = State { urls: options.endpoints.clone(), current: None };
        Self {
            options,
            state: Mutex::new(state),
            seeking: tokio::sync::Mutex::default(),
            generation: watch::Sender::new(0),
            lead: Lead::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member in use, or whichever answers first: within [`REQUEST_PATIENCE`].
    pub(super) async fn current(&self) -> Result<Member, DriverError> {
        let reason = Mutex::new(None);
        let seeking = async {
            if let Some(member) = self.in_use() {
                return Ok(member);
            }
            let _turn = self.seeking.lock().await;
            if let Some(member) = self.in_use() {
                return Ok(member);
            }
            let found = self.seek(&reason).await?;
            let mut state = self.state();
            state.current = Some(found.clone());
            Ok(Member { client: found.client, generation: *self.generation.borrow() })
        };
        match tokio::time::timeout(REQUEST_PATIENCE, seeking).await {
            Ok(found) => found,
            Err(_) => {
                let reason = reason.into_inner().unwrap_or_else(PoisonError::into_inner);
                let unknown = || no_answer(&self.options, "connect to");
                Err(reason.unwrap_or_else(unknown))
            }
        }
    }

    fn in_use(&self) -> Option<Member> {
        let state = self.state();
        let client = state.current.as_ref()?.client.clone();
        Some(Member { client, generation: *self.generation.borrow() })
    }

    /// Asks all members over and over until one answers; `reason` is why the last one did not.
    async fn seek(&self, reason: &Mutex<Option<DriverError>>) -> Result<Found, DriverError> {
        let urls = self.state().urls.clone();
        let mut asking = FuturesUnordered::new();
        for (url, start) in urls.into_iter().zip(0..) {
            let options = self.connect_options(&url)?;
            asking.push(async move {
                tokio::time::sleep(start * HEAD_START).await;
                loop {
                    match self.probe(&url, options.clone()).await {
                        Ok(client) => return Found { url, client },
                        Err(error) => {
                            *reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        }
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            });
        }
        match asking.next().await {
            Some(found) => Ok(found),
            None => Err(no_answer(&self.options, "connect to")),
        }
    }

    /// A new connection to a member that has answered what only a member with a leader can.
    async fn probe(&self, url: &str, options: ConnectOptions) -> Result<Client, DriverError> {
        let connecting = Client::connect([url], Some(options)).await;
        let client = connecting.map_err(|e| self.error("connect to", &e))?;
        let probed = async { client.kv_client().get("\0", None).await };
        match tokio::time::timeout(REQUEST_PATIENCE, probed).await {
            Ok(Ok(_)) => Ok(client),
            Ok(Err(error)) => match self.judge("connect to", &error) {
                // It is there; what it refuses is told to whoever asks for it.
                Trouble::Refused(_) => Ok(client),
                trouble => Err(trouble.into_error(&self.options)),
            },
            Err(_) => Err(no_answer(&self.options, "connect to")),
        }
    }

    /// Takes members to fall back on, behind those of the options.
    pub(super) fn fall_back_on(&self, others: Vec<String>) {
        let mut urls = self.options.endpoints.clone();
        for url in others {
            if urls.len() < ENDPOINTS_MAX && !urls.contains(&url) {
                urls.push(url);
            }
        }
        // The connection in use stays, wherever its member stands now.
        self.state().urls = urls;
    }

    /// Goes back to the first member, the nearest, if another is in use and it is well.
    pub(super) async fn prefer_first(&self) -> Result<(), DriverError> {
        let Some(first) = self.options.endpoints.first() else { return Ok(()) };
        if self.state().current.as_ref().is_none_or(|current| current.url == *first) {
            return Ok(());
        }
        let client = self.probe(first, self.connect_options(first)?).await?;
        let mut state = self.state();
        state.current = Some(Found { url: first.clone(), client });
        self.generation.send_modify(|g| *g += 1);
        Ok(())
    }

    /// Says that a member did not do well: another one is sought, unless somebody has said so.
    pub(super) fn failed(&self, generation: u64) {
        let mut state = self.state();
        if *self.generation.borrow() != generation {
            return;
        }
        state.current = None;
        self.generation.send_modify(|g| *g += 1);
    }

    /// Waits until another member than that is in use.
    pub(super) async fn moved_on(&self, generation: u64) {
        // The sender lives as long as this.
        let _ = self.generation.subscribe().wait_for(|&now| now != generation).await;
    }

    fn connect_options(&self, url: &str) -> Result<ConnectOptions, DriverError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_PATIENCE)
            .with_keep_alive(PING_INTERVAL, PING_PATIENCE)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        if !url.starts_with("https://") {
            return Ok(options);
        }
        let files = &self.options.files;
        let mut tls = TlsOptions::new();
        if let Some(path) = &files.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
        }
        if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(options.with_tls(tls))
    }

    /// One request to the member in use, within [`REQUEST_PATIENCE`].
    pub(super) async fn request<T, F: Future<Output = Result<T, Error>>>(
        &self,
        doing: &'static str,
        request: impl FnOnce(Member) -> F,
    ) -> Result<T, Trouble> {
        let member = self.current().await.map_err(Trouble::NotTaken)?;
        let generation = member.generation;
        let client = member.client.clone();
        let answered = tokio::select! {
            answered = tokio::time::timeout(REQUEST_PATIENCE, request(member)) => answered,
            () = self.lead.moves(&client) => {
                // The member is well, the request is lost.
                let reason = "etcd's leader changed meanwhile".to_owned();
                return Err(Trouble::Open(remote(&self.options, doing, None, reason)));
            }
        };
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let trouble = self.judge(doing, &error);
                let unwell = matches!(trouble, Trouble::NotTaken(_) | Trouble::Open(_));
                if unwell && !words(&error).contains(LEADER_CHANGED) {
                    self.failed(generation);
                }
                Err(trouble)
            }
            Err(_) => {
                self.failed(generation);
                Err(Trouble::Open(no_answer(&self.options, doing)))
            }
        }
    }

    /// A request that may be repeated at will, until it is answered or time is up.
    pub(super) async fn repeat<T, F: Future<Output = Result<T, Error>>>(
        &self,
        doing: &'static str,
        until: Instant,
        request: impl Fn(Member) -> F,
    ) -> Result<T, DriverError> {
        let mut told = false;
        loop {
            match self.request(doing, &request).await {
                Ok(answer) => return Ok(answer),
                Err(trouble @ (Trouble::Refused(_) | Trouble::Full(_) | Trouble::TooLarge)) => {
                    return Err(trouble.into_error(&self.options));
                }
                Err(trouble) if Instant::now() + RETRY_PAUSE >= until => {
                    return Err(trouble.into_error(&self.options));
                }
                Err(trouble) => {
                    if !std::mem::replace(&mut told, true) {
                        let error = trouble.into_error(&self.options);
                        tracing::info!(error = base::chain(&error), "trying again");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// What an answer that is none means.
    fn judge(&self, doing: &'static str, error: &Error) -> Trouble {
        let Error::GRpcStatus(status) = error else {
            return Trouble::Open(self.error(doing, error));
        };
        let message = status.message();
        let say = |hint| remote(&self.options, doing, hint, words(error));
        match i32::from(status.code()) {
            _ if message.contains("request is too large") => Trouble::TooLarge,
            _ if message.contains("database space exceeded") => {
                Trouble::Full(DriverError::Refused {
                    doing,
                    datastore: self.options.to_string(),
                    hint: Some(FULL),
                    source: format!("its database is full ({})", words(error)).into(),
                })
            }
            _ if message.contains("no leader") => Trouble::NotTaken(say(Some(NO_LEADER))),
            _ if message.contains("too many requests") => Trouble::NotTaken(say(None)),
            PERMISSION_DENIED | UNAUTHENTICATED => Trouble::Refused(say(Some(
                "check the certificate that etcd is to let in (--datastore-certfile)",
            ))),
            INVALID_ARGUMENT | OUT_OF_RANGE => Trouble::Refused(say(None)),
            _ => Trouble::Open(say(Some(UNREACHABLE))),
        }
    }

    pub(super) fn error(&self, doing: &'static str, error: &Error) -> DriverError {
        remote(&self.options, doing, Some(UNREACHABLE), words(error))
    }
}

/// gRPC's codes, as far as they decide something.
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const OUT_OF_RANGE: i32 = 11;
const UNAUTHENTICATED: i32 = 16;

/// What a member says of a request that was on its way to the former leader. It has a new one.
const LEADER_CHANGED: &str = "leader changed";
const UNREACHABLE: &str = "check that etcd runs there, that this board reaches it, and that the \
     certificates fit (--datastore-cafile, --datastore-certfile)";
const FULL: &str = "delete what is not needed; an etcd of your own has to be compacted, defragmented \
     and rid of its NOSPACE alarm, or given a larger --quota-backend-bytes";
const NO_LEADER: &str = "more than half of etcd's members must run and reach each other";

/// An error of an etcd.
pub(super) fn remote(
    options: &EtcdOptions,
    doing: &'static str,
    hint: Option<&'static str>,
    reason: String,
) -> DriverError {
    DriverError::Remote { doing, datastore: options.to_string(), hint, source: reason.into() }
}

fn no_answer(options: &EtcdOptions, doing: &'static str) -> DriverError {
    let reason = format!("no answer within {} s", REQUEST_PATIENCE.as_secs());
    remote(options, doing, Some(UNREACHABLE), reason)
}

/// An error in words, with its causes, which gRPC's own text leaves out.
fn words(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => match std::error::Error::source(status) {
            Some(cause) => format!("{}: {}", status.message(), base::chain(cause)),
            None => status.message().to_owned(),
        },
        Error::TransportError(error) => base::chain(error).to_string(),
        other => other.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DriverError> {
    std::fs::read(path).map_err(|source| DriverError::Io {
        doing: "read",
        path: path.into(),
        source,
    })
}
