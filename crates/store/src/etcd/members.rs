//! Connections to an etcd's members: one at a time, the next one when it fails.
//!
//! The client's own balancing was turned down: it spreads requests over members, so that one
//! that hangs spoils every third request, and it gives no preference to the one on this board.

use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, KvClient, TlsOptions};
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

/// The members, and the one in use.
pub(super) struct Members {
    options: EtcdOptions,
    state: Mutex<State>,
    /// Counts the connections; whoever uses an older one should take the new one.
    generation: watch::Sender<u64>,
    lead: Lead,
}

#[derive(Default)]
struct State {
    /// Those of the options first, in their order.
    urls: Vec<String>,
    at: usize,
    client: Option<Client>,
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
        let state = State { urls: options.endpoints.clone(), ..State::default() };
        let generation = watch::Sender::new(0);
        Self { options, state: Mutex::new(state), generation, lead: Lead::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member in use; its connection is made with the first request.
    pub(super) async fn current(&self) -> Result<Member, DriverError> {
        let (known, url, generation) = {
            let state = self.state();
            let url = state.urls.get(state.at).cloned().unwrap_or_default();
            (state.client.clone(), url, *self.generation.borrow())
        };
        if let Some(client) = known {
            return Ok(Member { client, generation });
        }
        let client = self.connect(&url).await?;
        let mut state = self.state();
        if *self.generation.borrow() == generation {
            state.client = Some(client.clone());
        }
        Ok(Member { client, generation })
    }

    async fn connect(&self, url: &str) -> Result<Client, DriverError> {
        let options = self.connect_options(url)?;
        let client = Client::connect([url], Some(options)).await;
        client.map_err(|e| self.error("connect to", &e))
    }

    /// Takes members to fall back on, behind those of the options.
    pub(super) fn fall_back_on(&self, others: Vec<String>) {
        let mut urls = self.options.endpoints.clone();
        for url in others {
            if urls.len() < ENDPOINTS_MAX && !urls.contains(&url) {
                urls.push(url);
            }
        }
        let mut state = self.state();
        // The connection in use stays, wherever its member stands now.
        let current = state.urls.get(state.at);
        let at = urls.iter().position(|url| Some(url) == current);
        state.at = at.unwrap_or(state.at).min(urls.len().saturating_sub(1));
        state.urls = urls;
    }

    /// Goes back to the first member, the nearest, if another is in use and it is well.
    pub(super) async fn prefer_first(&self) -> Result<(), DriverError> {
        let Some(first) = self.options.endpoints.first().filter(|_| self.state().at != 0) else {
            return Ok(());
        };
        let client = self.connect(first).await?;
        let probe = client.kv_client();
        let probed = async move { { probe }.get("\0", None).await };
        match tokio::time::timeout(REQUEST_PATIENCE, probed).await {
            Ok(Ok(_)) => {
                let mut state = self.state();
                (state.at, state.client) = (0, Some(client));
                self.generation.send_modify(|g| *g += 1);
                Ok(())
            }
            Ok(Err(error)) => Err(self.error("go back to", &error)),
            // It stays away.
            Err(_) => Ok(()),
        }
    }

    /// Says that a member did not do well: the next one is taken, unless somebody has said so.
    pub(super) fn failed(&self, generation: u64) {
        let mut state = self.state();
        if *self.generation.borrow() != generation {
            return;
        }
        state.at = (state.at + 1) % state.urls.len().max(1);
        state.client = None;
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
                if matches!(trouble, Trouble::NotTaken(_) | Trouble::Open(_)) {
                    self.failed(generation);
                }
                Err(trouble)
            }
            Err(_) => {
                // Without a leader no other member does better, and the next may be the dead one.
                if !self.lead.was_told() {
                    self.failed(generation);
                }
                let reason = format!("no answer within {} s", REQUEST_PATIENCE.as_secs());
                Err(Trouble::Open(remote(&self.options, doing, Some(UNREACHABLE), reason)))
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
