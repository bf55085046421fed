//! gzip for large answers, as upstream compresses them.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::request::Response;
use crate::response;

/// Answers below this size are sent as they are: a local network is faster than gzip.
const COMPRESS_MIN_BYTES: u64 = 128 << 10;
/// zlib's fastest level; the higher ones cost a board more time than they save.
const LEVEL: u32 = 1;

/// Whether the client takes gzip.
pub(crate) fn accepted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim() == "gzip")
}

/// Compresses an answer whose length is known and large. Streams (watch, log) have no known
/// length and pass as they are.
pub(crate) async fn gzip(answer: Response) -> Response {
    let large = answer.body().size_hint().exact().is_some_and(|size| size >= COMPRESS_MIN_BYTES);
    if !large || answer.headers().contains_key(header::CONTENT_ENCODING) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(whole) = body.collect().await else {
        return response::status(&api::status::Status::internal_error("reading the answer"));
    };
    let plain = whole.to_bytes();
    let packed = tokio::task::spawn_blocking(move || pack(&plain).map_err(|_| plain)).await;
    let body = match packed {
        Ok(Ok(packed)) => {
            let headers = &mut parts.headers;
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            headers.remove(header::CONTENT_LENGTH);
            packed
        }
        Ok(Err(plain)) => plain,
        Err(_) => Bytes::new(),
    };
    Response::from_parts(parts, response::full(body))
}

fn pack(plain: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::new(LEVEL));
    encoder.write_all(plain)?;
    Ok(encoder.finish()?.into())
}
