//! Reading an object that is no registry's business, and answering with it.

use api::resource;
use api::schema::{self, Problem, Schema};
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

/// The object that a request carries, of the kind that its path names (group, version, kind):
/// what it does not say of its kind is filled in, what is of another kind or type is refused.
pub(crate) async fn object(
    request: Request,
    limit: usize,
    kind: (&str, &str, &str),
) -> Result<Value, Status> {
    let (parts, body) = request.into_parts();
    // Columns and bare metadata are shown of what is stored only.
    if negotiate::notation(&parts.headers).is_none() {
        return Err(Status::not_acceptable(&negotiate::SERVED));
    }
    let body = whole(body, limit).await?;
    let media = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let mut object = registry::decode::parse(media, &body)?;
    if !object.is_object() {
        return Err(Status::bad_request("the object provided is unrecognized: no JSON object"));
    }
    settle(&mut object, kind)?;
    Ok(object)
}

fn settle(object: &mut Value, (group, version, kind): (&str, &str, &str)) -> Result<(), Status> {
    let refuse = |why: &str| Status::bad_request(schema::decode_error(kind, version, why));
    if let Some(schema) = Schema::of(group, version, kind) {
        for problem in schema.check(object) {
            if let Problem::Type(why) = problem {
                return Err(refuse(&why));
            }
        }
        schema.prune(object);
    }
    let own = resource::api_version(group, version);
    for (member, expected) in [("apiVersion", own.as_str()), ("kind", kind)] {
        let given = object[member].as_str().unwrap_or_default();
        if !given.is_empty() && given != expected {
            let why = format!("{member} is {}, not {expected}", api::status::go_quote(given));
            return Err(refuse(&why));
        }
        object[member] = expected.into();
    }
    Ok(())
}
