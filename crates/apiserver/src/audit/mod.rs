//! The audit log: who did what, as the policy's first fitting rule wants it, in events of
//! audit.k8s.io/v1. Off without a policy; a request then costs nothing.
//!
//! A [`Trail`] goes with each request in its extensions and gathers what is learnt of it.

mod event;
mod log;
mod policy;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use api::status::Status;
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::Value;
use store::Store;

use crate::authz::{self, Attributes};
use crate::metrics::{MetricKind, MetricsPage};
use crate::registry::decode;
use crate::request::{Body, Request, RequestInfo, Response};
use crate::user::User;
use crate::{body, response};
use event::Draft;
pub use log::{EventServerOptions, LogOptions};
pub use policy::{Level, Policy, Stage};

/// Objects larger than this are left out of events, which then say so.
const OBJECT_BYTES_MAX: usize = 256 << 10;
/// Answers to failed requests are read up to this size for their `Status`.
const STATUS_BYTES_MAX: u64 = 64 << 10;

/// What is written, and where to.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// Which requests.
    pub policy: Arc<Policy>,
    /// The file.
    pub log: Option<LogOptions>,
    /// Another server that gets the events.
    pub server: Option<EventServerOptions>,
}

/// The audit log of a server.
pub(crate) struct Audit {
    policy: Arc<Policy>,
    logs: Vec<log::Log>,
    written: AtomicU64,
}

impl Audit {
    /// Opens the log.
    pub(crate) fn open(options: &AuditOptions, store: &Store) -> Result<Arc<Audit>, String> {
        let mut logs = Vec::new();
        if let Some(file) = &options.log {
            let log = log::Log::open(file.clone());
            let path = file.path.display();
            logs.push(log.map_err(|error| format!("opening the audit log {path}: {error}"))?);
        }
        if let Some(server) = &options.server {
            let log = log::Log::send(server, store);
            logs.push(log.map_err(|error| format!("sending audit events: {error}"))?);
        }
        let policy = Arc::clone(&options.policy);
        Ok(Arc::new(Audit { policy, logs, written: AtomicU64::new(0) }))
    }

    /// Begins to follow a request.
    pub(crate) fn begin(
        self: &Arc<Self>,
        info: &RequestInfo,
        request: &Request,
        id: &HeaderValue,
    ) -> Arc<Trail> {
        let draft = Draft::new(info, request, id.to_str().unwrap_or_default());
        Arc::new(Trail { audit: Arc::clone(self), draft: Mutex::new(draft) })
    }

    /// Upstream's counters.
    pub(crate) fn metrics(&self, page: &mut MetricsPage) {
        let name = "apiserver_audit_event_total";
        page.metric(name, MetricKind::Counter, "Audit events generated and sent to the log.");
        page.sample(name, &[], self.written.load(Ordering::Relaxed) as f64);
        let name = "apiserver_audit_error_total";
        page.metric(name, MetricKind::Counter, "Audit events that were lost.");
        page.sample(name, &[("plugin", "log")], self.lost() as f64);
    }

    fn lost(&self) -> u64 {
        self.logs.iter().map(|log| log.lost.load(Ordering::Relaxed)).sum()
    }

    /// Hands an event over to whoever wants it, without waiting.
    fn write_now(&self, line: &str) {
        self.logs.iter().for_each(|log| log.write_now(line.to_owned()));
    }

    fn line(&self, draft: &Draft, stage: Stage) -> Option<String> {
        let decision = draft.decision.as_ref()?;
        if !decision.writes(stage) {
            return None;
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        Some(format!("{}\n", draft.event(decision, stage, Timestamp::now())))
    }
}

/// What is known of one request.
pub(crate) struct Trail {
    audit: Arc<Audit>,
    draft: Mutex<Draft>,
}

/// The trail of a request, where there is an audit log.
pub(crate) fn trail(request: &Request) -> Option<Arc<Trail>> {
    request.extensions().get::<Arc<Trail>>().cloned()
}

impl Trail {
    fn with<T>(&self, work: impl FnOnce(&mut Draft) -> T) -> T {
        work(&mut self.draft.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who asks, before impersonation.
    pub(crate) fn user(&self, user: &User) {
        self.with(|draft| draft.user = user.clone());
    }

    /// As whom is asked.
    pub(crate) fn impersonated(&self, user: &User) {
        self.with(|draft| draft.impersonated = Some(user.clone()));
    }

    /// The request has come in and its user is known: the policy decides.
    pub(crate) async fn received(&self, user: &User) {
        let line = self.with(|draft| {
            let decision = self.audit.policy.decide(&Attributes::of(user, &draft.info));
            draft.decision = Some(decision);
            self.audit.line(draft, Stage::RequestReceived)
        });
        self.write(line).await;
    }

    /// What the authorizers said.
    pub(crate) fn authorized(&self, decision: &authz::Decision) {
        let word = if decision.allowed { "allow" } else { "forbid" };
        self.with(|draft| {
            draft.annotate("authorization.k8s.io/decision", word);
            draft.annotate("authorization.k8s.io/reason", &decision.reason);
        });
    }

    /// Reads what a request carries, where it is to be written or names the object, and gives
    /// the request back whole.
    pub(crate) async fn carried(&self, request: Request, limit: usize) -> Result<Request, Status> {
        let wanted = self.with(|draft| {
            let level = draft.decision.as_ref().map_or(Level::None, |decision| decision.level);
            let names = level == Level::Metadata && draft.info.verb == "create";
            draft.info.is_resource && (level >= Level::Request || names)
        });
        if !wanted {
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        let bytes = body::whole(body, limit).await?;
        let kind =
            parts.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let object = object(kind.unwrap_or_default(), &bytes);
        self.with(|draft| draft.carries(object));
        Ok(Request::from_parts(parts, response::full(bytes)))
    }

    /// The request is answered: what is to be written of it is written, now or when a long
    /// answer ends.
    pub(crate) async fn answered(
        self: Arc<Self>,
        annotations: Vec<(String, String)>,
        answer: Response,
    ) -> Response {
        let (level, long) = self.with(|draft| {
            if draft.decision.is_none() {
                // Nobody was let in.
                let user = draft.user.clone();
                draft.decision =
                    Some(self.audit.policy.decide(&Attributes::of(&user, &draft.info)));
            }
            for (key, value) in &annotations {
                draft.annotate(key, value);
            }
            draft.code = answer.status().as_u16();
            let level = draft.decision.as_ref().map_or(Level::None, |decision| decision.level);
            (level, draft.info.is_long_running())
        });
        if level == Level::None {
            return answer;
        }
        if long && answer.status().is_success() {
            let line = self.with(|draft| self.audit.line(draft, Stage::ResponseStarted));
            self.write(line).await;
            return answer.map(|inner| Ending { inner, trail: Some(self) }.boxed_unsync());
        }
        let answer = self.read(answer, level).await;
        let line = self.with(|draft| self.audit.line(draft, Stage::ResponseComplete));
        self.write(line).await;
        answer
    }

    /// Takes the object out of an answer, or its `Status`.
    async fn read(&self, answer: Response, level: Level) -> Response {
        let failed = !answer.status().is_success();
        let Some(size) = http_body::Body::size_hint(answer.body()).exact() else { return answer };
        let whole = level == Level::RequestResponse && self.with(|draft| draft.info.is_resource);
        let status = failed && size <= STATUS_BYTES_MAX;
        if !whole && !status {
            return answer;
        }
        let (parts, body) = answer.into_parts();
        // The body is at hand already.
        let bytes = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        let kind =
            parts.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let object = object(kind.unwrap_or_default(), &bytes);
        self.with(|draft| draft.answers(object, whole));
        Response::from_parts(parts, response::full(bytes))
    }

    async fn write(&self, line: Option<String>) {
        if let Some(line) = line {
            for log in &self.audit.logs {
                log.write(line.clone()).await;
            }
        }
    }
}

/// An object in a body; `Err` for one that is too large to be written.
fn object(kind: &str, bytes: &Bytes) -> Result<Value, ()> {
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(());
    }
    let plain = kind.split(';').next().unwrap_or_default().trim();
    let plain = if plain.ends_with("+json") { "application/json" } else { plain };
    Ok(decode::parse(plain, bytes).unwrap_or_default())
}

/// A long answer's body, whose end is written down.
struct Ending {
    inner: Body,
    trail: Option<Arc<Trail>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = crate::request::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::pin::Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(trail) = self.trail.take() else { return };
        let line = trail.with(|draft| trail.audit.line(draft, Stage::ResponseComplete));
        if let Some(line) = line {
            trail.audit.write_now(&line);
        }
    }
}
