//! Making responses.

use api::status::Status;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as _;
use serde::Serialize;

use crate::registry::negotiate::{self, Format, Negotiated, Shape};
use crate::request::{Body, BoxError, Response};

/// A body of bytes at hand.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| -> BoxError { match never {} }).boxed_unsync()
}

/// A response of a content type.
pub(crate) fn with_type(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(full(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Plain text, as health checks answer.
pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = with_type(code, "text/plain; charset=utf-8", body);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A JSON response, ended by a line feed as upstream's encoder does.
pub(crate) fn json(code: StatusCode, value: &impl Serialize) -> Response {
    // Values made here have text keys, so that serialising them cannot fail.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let mut response = with_type(code, "application/json", text);
    response.extensions_mut().insert(Plain);
    response
}

/// Marks an answer that is in JSON because nobody has asked yet what the client wants.
#[derive(Clone, Copy)]
struct Plain;

/// An answer of that kind in the notation that the client wants, where the object has it. What
/// is stored is not concerned: it is written as it is wanted in the first place.
pub(crate) async fn settled(wanted: Option<Format>, pretty: bool, answer: Response) -> Response {
    let format = match wanted {
        Some(format)
            if answer.extensions().get::<Plain>().is_some()
                && (format != Format::Json || pretty) =>
        {
            format
        }
        _ => return answer,
    };
    let (mut parts, body) = answer.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let accept = Negotiated { shape: Shape::Object, format, pretty, beta: false };
    let written = negotiate::parse(&bytes).and_then(|value| accept.write(&value));
    let body = match written {
        Ok(written) => {
            let kind = HeaderValue::from_static(accept.content_type());
            parts.headers.insert(header::CONTENT_TYPE, kind);
            full(written)
        }
        Err(_) => full(bytes),
    };
    Response::from_parts(parts, body)
}

/// An answer to a request for its head: whole but for the body, of which only the length is told.
pub(crate) fn head(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, full(Bytes::new()))
}

/// A `Status` object as the answer.
pub(crate) fn status(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status);
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// Adds texts that are for whoever has sent the request.
pub(crate) fn add_warnings(response: &mut Response, texts: impl IntoIterator<Item = String>) {
    for text in texts {
        let text = format!("299 - {}", api::status::go_quote(&text));
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// Upstream's plain answer where no handler knows the path.
pub(crate) fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Indented JSON, for pages that people read.
pub(crate) fn pretty(value: &impl Serialize) -> Response {
    let text = serde_json::to_vec_pretty(value).unwrap_or_default();
    with_type(StatusCode::OK, "application/json", text)
}

/// Whether the client has the content of this tag already. A proxy that compresses makes tags weak.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let strong = |one: &str| one.trim().trim_start_matches("W/") == tag;
    known.is_some_and(|known| known.split(',').any(strong))
}

/// An answer with an ETag of its content; 304 where the client has that content already.
pub(crate) fn tagged(headers: &HeaderMap, kind: &str, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let digest = ring::digest::digest(&ring::digest::SHA512, &body);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{hex}\"");
    let same = is_known(headers, &tag);
    let mut response = http::Response::new(full(if same { Bytes::new() } else { body }));
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    for (name, text) in [(header::CONTENT_TYPE, kind), (header::ETAG, &tag)] {
        headers.extend(HeaderValue::from_str(text).ok().map(|value| (name, value)));
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}
