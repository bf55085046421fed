//! Passing a request to the server behind an APIService, and saying there who asks.

use std::sync::Arc;
use std::time::Duration;

use api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::service::ApiService;
use crate::proxy::forward::{self, Purpose};
use crate::proxy::target::Target;
use crate::request::{Request, Response};
use crate::server::Context;
use crate::user::User;
use crate::{body, endpoints, response};

const REMOTE: &str = "x-remote-";
/// What a key of `extra` keeps in a header's name (RFC 9110, 5.6.2, without `%`).
const HEADER_KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');
/// What an aggregated server may say of itself.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// Passes a request on; 503 where the server behind is not there.
pub(crate) async fn pass_on(
    context: Arc<Context>,
    service: Arc<ApiService>,
    user: User,
    mut request: Request,
) -> Response {
    if !service.is_available() {
        return unavailable();
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let Ok(target) = target(&context, &service, path) else { return unavailable() };
    if let Err(why) = identify(request.headers_mut(), &user) {
        return response::status(&Status::internal_error(&why));
    }
    forward::add_forwarded_headers(&mut request);
    let pool = &context.aggregator.pool;
    let sent = forward::send_pooled(pool, target, request, Purpose::Proxy).await;
    sent.unwrap_or_else(|status| response::status(&status))
}

fn unavailable() -> Response {
    response::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n")
}

/// Where a request for an APIService goes.
pub(super) fn target(
    context: &Context,
    service: &ApiService,
    path: String,
) -> Result<Target, String> {
    let Some(reference) = &service.service else { return Err("no service".to_owned()) };
    let port = reference.port().to_string();
    let (space, name) = (reference.namespace.as_str(), reference.name.as_str());
    let all =
        endpoints::resolve(&context.store, space, name, &port).map_err(|status| status.message)?;
    let Some((host, port)) = all.get(fastrand::usize(..all.len().max(1))).cloned() else {
        return Err(format!("no endpoints available for service {name:?}"));
    };
    let (tls, server_name) = (Some(service.tls()?), Some(reference.host()));
    Ok(Target { host, port, tls, path, server_name })
}

/// Replaces what a request says of its user by what this server knows.
fn identify(headers: &mut HeaderMap, user: &User) -> Result<(), String> {
    let claimed: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(REMOTE)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    headers.remove(header::AUTHORIZATION);
    let mut add = |name: &str, value: &str| -> Result<(), String> {
        let name = HeaderName::from_bytes(format!("{REMOTE}{name}").to_lowercase().as_bytes());
        // Beyond ASCII a header's value is what its bytes are, as upstream sends it.
        let value = HeaderValue::from_bytes(value.as_bytes());
        let unfit = |error: &dyn std::fmt::Display| format!("saying who asks: {error}");
        headers.append(name.map_err(|e| unfit(&e))?, value.map_err(|e| unfit(&e))?);
        Ok(())
    };
    add("user", &user.name)?;
    if !user.uid.is_empty() {
        add("uid", &user.uid)?;
    }
    for group in &user.groups {
        add("group", group)?;
    }
    for (key, values) in &user.extra {
        let key = utf8_percent_encode(key, HEADER_KEY).to_string();
        for value in values {
            add(&format!("extra-{key}"), value)?;
        }
    }
    Ok(())
}

/// Asks the server behind an APIService for a document, as upstream's aggregator does for itself.
/// An error says what is wrong with its answer.
pub(super) async fn fetch(
    context: &Context,
    service: &ApiService,
    path: &str,
    patience: Duration,
) -> Result<Value, String> {
    let fetched = fetch_other(context, service, path, "", patience).await?;
    Ok(fetched.map(|(document, _)| document).unwrap_or_default())
}

/// The same for one that is there already, by its tag: the document and its new tag, or nothing
/// where it is still the same.
pub(super) async fn fetch_other(
    context: &Context,
    service: &ApiService,
    path: &str,
    known: &str,
    patience: Duration,
) -> Result<Option<(Value, String)>, String> {
    let target = target(context, service, path.to_owned())?;
    let url = target.url();
    let mut request = http::Request::get(path).header(header::ACCEPT, "application/json");
    if !known.is_empty() {
        request = request.header(header::IF_NONE_MATCH, known);
    }
    let mut request = request.body(response::full("")).map_err(|error| error.to_string())?;
    identify(request.headers_mut(), &User::new("system:kube-aggregator", ["system:masters"]))?;
    let missing = |why: &str| format!("failing or missing response from {url}: {why}");
    let asked = async {
        let pool = &context.aggregator.pool;
        let answer = forward::send_pooled(pool, target, request, Purpose::Proxy).await;
        let answer = answer.map_err(|status| missing(&status.message))?;
        let code = answer.status();
        if code == StatusCode::NOT_MODIFIED && !known.is_empty() {
            return Ok(None);
        }
        if !code.is_success() {
            return Err(missing(&format!("bad status from {url}: {}", code.as_u16())));
        }
        let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        let text = body::whole(answer.into_body(), DOCUMENT_BYTES_MAX).await;
        let text = text.map_err(|status| missing(&status.message))?;
        // A server that answers is there, whatever it says.
        Ok(Some((serde_json::from_slice(&text).unwrap_or_default(), tag)))
    };
    let answer = tokio::time::timeout(patience, asked).await;
    answer.map_err(|_| missing(&format!("Get {url:?}: context deadline exceeded")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_said_by_this_server_alone() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("mallory"));
        headers.insert("x-remote-extra-a", HeaderValue::from_static("b"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let mut user = User::new("ann", ["devs"]);
        user.extra.insert("example.org/Scopes".to_owned(), vec!["x".into(), "y".into()]);
        user.uid = "7".to_owned();
        identify(&mut headers, &user).unwrap();
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        assert_eq!(
            lines.join("\n"),
            "accept: */*\nx-remote-extra-example.org%2fscopes: x\n\
             x-remote-extra-example.org%2fscopes: y\nx-remote-group: devs\n\
             x-remote-group: system:authenticated\nx-remote-uid: 7\nx-remote-user: ann"
        );
    }
}
