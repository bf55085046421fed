//! Requests that another process answers: kubelets (logs, exec, attach, port forwarding),
//! pods and services (`proxy`). This server finds where to go, checks what can be checked from
//! the stored objects, and passes bytes.

pub(crate) mod forward;
mod html;
mod log;
mod pool;
pub(crate) mod target;

use std::sync::Arc;

use api::status::Status;
use http::{HeaderValue, Method, StatusCode, header};

use crate::authz::Attributes;
use crate::request::{Request, RequestInfo, Response};
use crate::response;
use crate::server::Context;
use crate::user::User;
use forward::Purpose;
pub(crate) use pool::Pool;
use target::Target;

/// Whether a request is to be passed on.
pub(crate) fn is_proxied(info: &RequestInfo) -> bool {
    info.group.is_empty()
        && info.version == "v1"
        && matches!(
            (info.resource.as_str(), info.subresource.as_str()),
            ("pods", "log" | "exec" | "attach" | "portforward" | "proxy")
                | ("services" | "nodes", "proxy")
        )
}

/// Answers such a request.
pub(crate) async fn handle(
    context: Arc<Context>,
    info: RequestInfo,
    user: User,
    request: Request,
) -> Response {
    let answered = match info.subresource.as_str() {
        "log" if request.method() != Method::GET => Err(not_allowed(&info)),
        "log" => log::handle(context, info, request).await,
        "proxy" => proxy(context, info, request).await,
        _ => stream(context, info, user, request).await,
    };
    answered.unwrap_or_else(|status| response::status(&status))
}

fn not_allowed(info: &RequestInfo) -> Status {
    Status::method_not_allowed(("", info.resource.as_str()), &info.verb)
}

/// exec, attach and portforward: the handshake is passed to the kubelet, then every byte.
async fn stream(
    context: Arc<Context>,
    info: RequestInfo,
    user: User,
    request: Request,
) -> Result<Response, Status> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(not_allowed(&info));
    }
    // A WebSocket begins with a GET, which must not do with less permission than a POST.
    let mut attributes = Attributes::of(&user, &info);
    attributes.verb = "create";
    let decision = context.decide(&attributes).await;
    if !decision.allowed {
        return Err(attributes.forbidden(&decision.reason));
    }
    let query = request.uri().query().unwrap_or("").to_owned();
    let (node, path) = target::stream(&context.store, &info, &query)?;
    let target = Target::kubelet(&context, &node, path)?;
    if !forward::is_upgrade(request.headers()) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    forward::send(target, request, Purpose::Stream).await
}

/// pods/proxy, services/proxy and nodes/proxy.
async fn proxy(
    context: Arc<Context>,
    info: RequestInfo,
    mut request: Request,
) -> Result<Response, Status> {
    let rest = target::rest_of_path(request.uri().path(), &info);
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if rest.is_empty() && reading && !forward::is_upgrade(request.headers()) {
        // Relative links of a page work only below a path that ends in a slash.
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut answer = response::text(StatusCode::MOVED_PERMANENTLY, "");
        let to = format!("{}/{query}", request.uri().path());
        if let Ok(to) = HeaderValue::from_str(&to) {
            answer.headers_mut().insert(header::LOCATION, to);
        }
        return Ok(answer);
    }
    let mut path = target::sent_path(&rest);
    if let Some(query) = request.uri().query() {
        path = format!("{path}?{query}");
    }
    let target = target::proxied(&context, &info, path)?;
    let prefix = request.uri().path().strip_suffix(rest.as_str()).unwrap_or_default().to_owned();
    forward::add_forwarded_headers(&mut request);
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        // A page's links can be rewritten only where they can be read.
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }
    let mut answer = forward::send(target.clone(), request, Purpose::Proxy).await?;
    forward::rewrite_location(&mut answer, &target, &prefix);
    if html::is_page(answer.headers()) { page(answer, &prefix).await } else { Ok(answer) }
}

/// A page with its links led through this proxy.
async fn page(answer: Response, prefix: &str) -> Result<Response, Status> {
    let length = http_body::Body::size_hint(answer.body()).lower();
    if length > html::PAGE_BYTES_MAX as u64 {
        return Ok(answer);
    }
    let (mut parts, body) = answer.into_parts();
    let bytes = crate::body::whole(body, html::PAGE_BYTES_MAX).await?;
    let body = match std::str::from_utf8(&bytes) {
        Ok(text) => html::rewrite(text, prefix).into(),
        Err(_) => bytes,
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, response::full(body)))
}
