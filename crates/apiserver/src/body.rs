//! Reading an object that is no registry's business, and answering with it.

use api::status::Status;
use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::registry::{self, negotiate};
use crate::request::{Body, Request};

/// All of a body, at most `limit` bytes.
pub(crate) async fn whole(mut body: Body, limit: usize) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("reading the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(Status::request_entity_too_large(&format!("limit is {limit}")));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The object that a request carries.
pub(crate) async fn object(request: Request, limit: usize) -> Result<Value, Status> {
    let (parts, body) = request.into_parts();
    // Columns and bare metadata are shown of what is stored only.
    if negotiate::notation(&parts.headers).is_none() {
        return Err(Status::not_acceptable(&negotiate::SERVED));
    }
    let body = whole(body, limit).await?;
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let object = registry::decode::parse(kind, &body)?;
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is unrecognized: no JSON object"));
    }
    Ok(object)
}
