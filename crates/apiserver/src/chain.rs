//! What every request passes before it meets its handler: panic guard, identity, limits,
//! permission, deadline; and what every answer gets on its way out.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use api::status::Status;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::audit;
use crate::authn::{self, Claim};
use crate::authz::{Attributes, Decision};
use crate::compress;
use crate::notes;
use crate::outside::{self, Outside};
use crate::registry::negotiate;
use crate::request::{Request, RequestInfo, Response, query_value};
use crate::response;
use crate::server::ApiServer;
use crate::user::User;

static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A client's own audit id longer than this is replaced.
const AUDIT_ID_CHARS_MAX: usize = 64;

impl ApiServer {
    /// Answers a request; `fixed` is the identity of an in-process caller.
    pub(crate) async fn answer(
        self: Arc<Self>,
        mut request: Request,
        fixed: Option<User>,
    ) -> Response {
        let remote = fixed.is_none();
        if let Some(outside) = self.outside_of(request.uri().path()) {
            return outside::answer(outside, request).await;
        }
        let info = match RequestInfo::parse(request.method(), request.uri()) {
            Ok(info) => info,
            Err(message) => return response::status(&Status::bad_request(message)),
        };
        let log = self.context.audit.as_ref();
        let audit = (remote || log.is_some()).then(|| audit_id(request.headers()));
        let trail = log.zip(audit.as_ref()).map(|(log, id)| log.begin(&info, &request, id));
        if let Some(trail) = &trail {
            request.extensions_mut().insert(Arc::clone(trail));
        }
        let wanted = negotiate::notation(request.headers());
        let query = request.uri().query().unwrap_or_default();
        let pretty = negotiate::is_pretty(request.headers(), query);
        let head = request.method() == Method::HEAD;
        let gzip = remote && compress::accepted(request.headers());
        let started = Instant::now();
        let work = Arc::clone(&self).guarded(info.clone(), request, fixed);
        let (mut response, noted) = notes::collect(work).await;
        response::add_warnings(&mut response, notes::fitting(noted.warnings));
        if let Some(trail) = trail {
            response = trail.answered(noted.annotations, response).await;
        }
        // After the audit log, which reads JSON.
        response = response::settled(wanted, pretty, response).await;
        self.context.metrics.request(&info, response.status().as_u16(), started.elapsed());
        let headers = response.headers_mut();
        if !headers.contains_key(header::CACHE_CONTROL) {
            let value = HeaderValue::from_static("no-cache, private");
            headers.insert(header::CACHE_CONTROL, value);
        }
        if let Some(audit) = audit {
            headers.insert(AUDIT_ID.clone(), audit);
        }
        if gzip {
            response = compress::gzip(response).await;
        }
        // HTTP/2 sends whatever body there is.
        if head { response::head(response) } else { response }
    }

    fn outside_of(&self, path: &str) -> Option<Arc<dyn Outside>> {
        let all = self.outside.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|outside| outside.takes(path)).cloned()
    }

    /// Turns a panic of a handler into an answer: one bad request must not end the server.
    async fn guarded(
        self: Arc<Self>,
        info: RequestInfo,
        request: Request,
        fixed: Option<User>,
    ) -> Response {
        let path = info.path.clone();
        // Boxed: the compiler then need not look through the whole chain for `Send`.
        let work = self.admitted(info, request, fixed).boxed();
        let work = AssertUnwindSafe(work).catch_unwind();
        work.await.unwrap_or_else(|_| {
            tracing::error!(%path, "a handler panicked");
            response::status(&Status::internal_error(
                "This request caused apiserver to panic. Look in the logs for details.",
            ))
        })
    }

    async fn admitted(
        self: Arc<Self>,
        info: RequestInfo,
        mut request: Request,
        fixed: Option<User>,
    ) -> Response {
        let remote = fixed.is_none();
        let user = match self.identify(&mut request, fixed).await {
            Ok(user) => user,
            Err(status) => return response::status(&status),
        };
        let trail = audit::trail(&request);
        if let Some(trail) = &trail {
            trail.received(&user).await;
        }
        let long = info.is_long_running();
        // A watch takes a seat until it has begun; other long requests take none.
        let place = if remote && (!long || info.verb == "watch") {
            let work = self.flow.work(&info, &request);
            match self.flow.enter(&info, &user, work).await {
                Ok(place) => Some(place),
                Err(refusal) => return *refusal,
            }
        } else {
            None
        };
        let mut answer = self.worked_on(info, user, request).await;
        if let Some(place) = &place {
            place.mark(&mut answer);
        }
        answer
    }

    /// Permission, limits, and the handler.
    async fn worked_on(
        self: Arc<Self>,
        info: RequestInfo,
        user: User,
        mut request: Request,
    ) -> Response {
        let trail = audit::trail(&request);
        let long = info.is_long_running();
        let attributes = Attributes::of(&user, &info);
        let decision = self.decided(&attributes).await;
        if let Some(trail) = &trail {
            trail.authorized(&decision);
        }
        if !decision.allowed && !decision.error.is_empty() {
            let path = api::status::go_quote(&info.path);
            let text = format!("Internal Server Error: {path}: {}\n", decision.error);
            return response::text(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        if !decision.allowed {
            return response::status(&attributes.forbidden(&decision.reason));
        }
        if long {
            return self.route(info, user, request).await;
        }
        if let Err(status) = self.body_fits(request.headers()) {
            return response::status(&status);
        }
        if let Some(trail) = &trail {
            let limit = self.context.config.limits.body_bytes;
            request = match trail.carried(request, limit).await {
                Ok(request) => request,
                Err(status) => return response::status(&status),
            };
        }
        let deadline = match self.deadline(request.uri().query().unwrap_or("")) {
            Ok(deadline) => deadline,
            Err(status) => return response::status(&status),
        };
        tokio::time::timeout(deadline, self.route(info, user, request)).await.unwrap_or_else(|_| {
            let why = "request did not complete within the allotted timeout";
            response::status(&Status::timeout(why))
        })
    }

    /// Authentication, then impersonation.
    async fn identify(&self, request: &mut Request, fixed: Option<User>) -> Result<User, Status> {
        let user = match fixed {
            Some(user) => user,
            None => authn::authenticate(request, &self.context)
                .await
                .ok_or_else(Status::unauthorized)?,
        };
        let trail = audit::trail(request);
        if let Some(trail) = &trail {
            trail.user(&user);
        }
        let asked = authn::impersonated(request.headers())
            .map_err(|message| Status::internal_error(&message))?;
        let Some((other, claims)) = asked else { return Ok(user) };
        for claim in &claims {
            self.permitted(&impersonation(&user, claim)).await?;
        }
        authn::strip_impersonation(request.headers_mut());
        if let Some(trail) = &trail {
            trail.impersonated(&other);
        }
        tracing::debug!(user = user.name, impersonates = other.name, "impersonation");
        Ok(other)
    }

    async fn permitted(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.decided(attributes).await;
        if decision.allowed { Ok(()) } else { Err(attributes.forbidden(&decision.reason)) }
    }

    /// A refusal is looked at again: the binding may have been made at another server.
    async fn decided(&self, attributes: &Attributes<'_>) -> Decision {
        self.context.decide(attributes).await
    }

    /// Refuses a body that says of itself that it is too large; one that does not say so is
    /// cut off where it is read.
    fn body_fits(&self, headers: &HeaderMap) -> Result<(), Status> {
        let limit = self.context.config.limits.body_bytes;
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        match length.and_then(|length| length.parse::<usize>().ok()) {
            Some(length) if length > limit => {
                Err(Status::request_entity_too_large(&format!("limit is {limit}")))
            }
            _ => Ok(()),
        }
    }

    /// The server's limit, or the client's own `timeout` where that is shorter.
    fn deadline(&self, query: &str) -> Result<Duration, Status> {
        let limit = self.context.config.limits.request;
        let asked = query_value(query, "timeout").filter(|text| !matches!(text.as_str(), "" | "0"));
        let Some(text) = asked else { return Ok(limit) };
        let asked: jiff::SignedDuration = text.parse().map_err(|_| {
            let why = format!("time: invalid duration {}", api::status::go_quote(&text));
            Status::bad_request(format!("invalid timeout specified in the request URL - {why}"))
        })?;
        // None at all, and less than that, is not for the client to say.
        let asked = Duration::try_from(asked).ok().filter(|asked| !asked.is_zero());
        Ok(asked.map_or(limit, |asked| asked.min(limit)))
    }
}

fn impersonation<'a>(user: &'a User, claim: &'a Claim) -> Attributes<'a> {
    let mut attributes = Attributes::on(user, "impersonate", claim.group, claim.resource);
    attributes.subresource = &claim.subresource;
    attributes.namespace = &claim.namespace;
    attributes.name = &claim.name;
    attributes
}

fn audit_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(&AUDIT_ID)
        .filter(|value| !value.is_empty() && value.len() <= AUDIT_ID_CHARS_MAX)
        .cloned()
        .or_else(|| HeaderValue::from_str(&base::names::uuid()).ok())
        .unwrap_or(HeaderValue::from_static("unknown"))
}
