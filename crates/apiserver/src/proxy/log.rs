//! `pods/log`.

use std::sync::Arc;

use api::status::{FieldError, Status};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};

use super::forward::{self, Purpose};
use super::target::{self, Target};
use crate::request::{Request, RequestInfo, Response, query_true, query_value};
use crate::response;
use crate::server::Context;

/// What is read of a kubelet's answer that refuses.
const REFUSAL_BYTES_MAX: usize = 2000;

pub(super) async fn handle(
    context: Arc<Context>,
    info: RequestInfo,
    request: Request,
) -> Result<Response, Status> {
    let query = request.uri().query().unwrap_or("").to_owned();
    let options = options(&query, &info.name)?;
    let pod = target::pod(&context.store, &info)?;
    let asked = query_value(&query, "container").unwrap_or_default();
    let container = target::container(&pod, &asked)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // Nothing has run yet, so nothing was written.
        return Ok(response::with_type(StatusCode::OK, "text/plain", ""));
    }
    let mut path = target::path_of(&["containerLogs", &info.namespace, &info.name, &container]);
    if !options.is_empty() {
        path = format!("{path}?{options}");
    }
    let target = Target::kubelet(&context, node, path)?;
    let (mut parts, _) = request.into_parts();
    // The kubelet speaks plain text whatever the client would rather have.
    parts.headers.remove(header::ACCEPT);
    let request = Request::from_parts(parts, response::full(""));
    let mut answer = forward::send(target, request, Purpose::Log).await?;
    let code = answer.status();
    if code == StatusCode::SWITCHING_PROTOCOLS {
        // A browser reads the log from a WebSocket.
        return Ok(answer);
    }
    if !code.is_success() {
        return Err(refusal(answer, &info.name).await);
    }
    // Somebody who follows a log must not hold up a server that stops.
    let stopping = context.stopping.clone().cancelled_owned();
    answer = answer
        .map(|body| StreamBody::new(BodyStream::new(body).take_until(stopping)).boxed_unsync());
    if !answer.headers().contains_key(header::CONTENT_TYPE) {
        let plain = HeaderValue::from_static("text/plain");
        answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    Ok(answer)
}

/// A kubelet's refusal in upstream's words.
async fn refusal(answer: Response, name: &str) -> Status {
    let code = answer.status();
    let text = crate::body::whole(answer.into_body().boxed_unsync(), REFUSAL_BYTES_MAX).await;
    let text = text.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal_error(&text),
        StatusCode::NOT_FOUND => Status::new(
            404,
            "NotFound",
            format!("the server could not find the requested resource ( pods/log {name})"),
        ),
        code => Status::new(
            code.as_u16(),
            "",
            format!(
                "the server responded with the status code {} but did not return more information ( pods/log {name})",
                code.as_u16()
            ),
        ),
    }
}

/// The kubelet's query from the client's, checked.
fn options(query: &str, name: &str) -> Result<String, Status> {
    let mut errors = Vec::new();
    let mut to = form_urlencoded::Serializer::new(String::new());
    for flag in ["follow", "previous", "timestamps"] {
        if query_true(query, flag) {
            to.append_pair(flag, "true");
        }
    }
    for (field, least, why) in [
        ("sinceSeconds", 1, "must be greater than 0"),
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
    ] {
        let Some(text) = query_value(query, field) else { continue };
        match text.parse::<i64>() {
            Ok(number) if number >= least => {
                to.append_pair(field, &number.to_string());
            }
            Ok(number) => errors.push(FieldError::invalid(field, number, why)),
            Err(_) => {
                let why = format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
                return Err(Status::bad_request(why));
            }
        }
    }
    if let Some(time) = query_value(query, "sinceTime") {
        if query_value(query, "sinceSeconds").is_some() {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", why));
        }
        to.append_pair("sinceTime", &time);
    }
    if let Some(stream) = query_value(query, "stream").filter(|stream| stream != "All") {
        if !matches!(stream.as_str(), "Stdout" | "Stderr") {
            let choices = ["All", "Stderr", "Stdout"];
            errors.push(FieldError::not_supported("stream", stream.as_str(), &choices));
        }
        to.append_pair("stream", &stream);
    }
    if errors.is_empty() {
        Ok(to.finish())
    } else {
        Err(Status::invalid(("", "PodLogOptions"), name, &errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_translated_and_checked() {
        let say = |query: &str| options(query, "p").unwrap_or_else(|status| status.message);
        assert_eq!(say("container=c&follow=true&tailLines=5"), "follow=true&tailLines=5");
        assert_eq!(say("follow=false&previous=1"), "previous=true");
        assert_eq!(
            say("tailLines=-1"),
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(say("sinceTime=2026-01-01T00:00:00Z"), "sinceTime=2026-01-01T00%3A00%3A00Z");
    }
}
