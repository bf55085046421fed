//! `serviceaccounts/token`: a token for an account, bound to a pod, a secret or a node.

use std::sync::Arc;

use api::status::{FieldError, Status};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::authz::{Attributes, node_name};
use crate::objects;
use crate::request::{Request, RequestInfo, Response};
use crate::response;
use crate::server::Context;
use crate::token::{Binding, Reference};
use crate::user::User;

const GROUP: &str = "authentication.k8s.io";
const EXPIRATION_DEFAULT_SECONDS: i64 = 3600;
const EXPIRATION_MIN_SECONDS: i64 = 600;
const EXPIRATION_MAX_SECONDS: i64 = 1 << 32;

/// Whether a request asks for a token.
pub(crate) fn is_token_request(info: &RequestInfo) -> bool {
    info.group.is_empty()
        && info.version == "v1"
        && info.resource == "serviceaccounts"
        && info.subresource == "token"
        && info.verb == "create"
}

/// Answers a request for a token.
pub(crate) async fn handle(
    context: Arc<Context>,
    info: RequestInfo,
    user: User,
    request: Request,
) -> Response {
    let limit = context.config.limits.body_bytes;
    // The pod may have been bound at another server just now.
    context.refreshed().await;
    let made = match crate::body::object(request, limit, (GROUP, "v1", "TokenRequest")).await {
        Ok(asked) => make(&context, &info, &user, asked).await,
        Err(status) => Err(status),
    };
    made.unwrap_or_else(|status| response::status(&status))
}

async fn make(
    context: &Context,
    info: &RequestInfo,
    user: &User,
    mut asked: Value,
) -> Result<Response, Status> {
    let store = &context.store;
    let account = objects::identity(store, "serviceaccounts", &info.namespace, &info.name)
        .ok_or_else(|| Status::not_found(("", "serviceaccounts"), &info.name))?;
    let spec = &asked["spec"];
    let wanted = expiration(spec)?;
    let longest = i64::try_from(context.config.service_account.max_expiration_seconds)
        .unwrap_or(EXPIRATION_MAX_SECONDS)
        .max(EXPIRATION_MIN_SECONDS);
    let granted = wanted.min(longest);
    let mut audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let mut binding = Binding {
        namespace: info.namespace.clone(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: Reference { name: info.name.clone(), uid: account.uid },
    };
    bind(context, info, &spec["boundObjectRef"], &mut binding)?;
    check_node(context, user, &spec["boundObjectRef"], &binding, &audiences).await?;
    if audiences.is_empty() {
        audiences = context.tokens.audiences().to_vec();
    }

    let now = Timestamp::now().as_second();
    let token = context.tokens.issue(binding, audiences.clone(), granted, now);
    let expires =
        Timestamp::from_second(now + granted).map(|at| at.to_string()).unwrap_or_default();
    asked["metadata"] = json!({
        "name": info.name, "namespace": info.namespace,
        "creationTimestamp": Timestamp::from_second(now).map(|at| at.to_string()).unwrap_or_default(),
    });
    asked["spec"]["audiences"] = json!(audiences);
    asked["spec"]["expirationSeconds"] = granted.into();
    asked["status"] = json!({"token": token, "expirationTimestamp": expires});
    let mut answer = response::json(StatusCode::CREATED, &asked);
    if granted < wanted {
        let text = format!(
            "299 - \"requested expiration of {wanted} seconds shortened to {granted} seconds\""
        );
        if let Ok(text) = HeaderValue::from_str(&text) {
            answer.headers_mut().insert(http::header::WARNING, text);
        }
    }
    Ok(answer)
}

fn expiration(spec: &Value) -> Result<i64, Status> {
    let wanted = spec["expirationSeconds"].as_i64().unwrap_or(EXPIRATION_DEFAULT_SECONDS);
    let why = if wanted < EXPIRATION_MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if wanted > EXPIRATION_MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(wanted);
    };
    let error = FieldError::invalid("spec.expirationSeconds", wanted, why);
    Err(Status::invalid((GROUP, "TokenRequest"), "", &[error]))
}

/// Fills in the object that the token lives and dies with.
fn bind(
    context: &Context,
    info: &RequestInfo,
    reference: &Value,
    binding: &mut Binding,
) -> Result<(), Status> {
    if reference.is_null() {
        return Ok(());
    }
    let text = |member: &str| reference[member].as_str().unwrap_or_default();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    let (resource, namespace) = match (text("apiVersion"), kind) {
        ("v1", "Pod") => ("pods", info.namespace.as_str()),
        ("v1", "Secret") => ("secrets", info.namespace.as_str()),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            let (group, version) = api::resource::split_api_version(version);
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(why));
        }
    };
    let object = objects::object(&context.store, resource, namespace, name)
        .ok_or_else(|| Status::not_found(("", resource), name))?;
    let found = object["metadata"]["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != found {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. \
             The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(("", resource), name, &why));
    }
    let own = Some(Reference { name: name.to_owned(), uid: found.to_owned() });
    match kind {
        "Pod" => {
            let account = object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            if account != info.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different \
                     serviceaccount name.",
                    info.name
                )));
            }
            let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
            binding.node = objects::identity(&context.store, "nodes", "", node)
                .map(|identity| Reference { name: node.to_owned(), uid: identity.uid });
            binding.pod = own;
        }
        "Secret" => binding.secret = own,
        _ => binding.node = own,
    }
    Ok(())
}

/// A node gets tokens only for pods that are bound to it, and only for whom these want to talk
/// to by what their volumes say, or for whom it may ask.
async fn check_node(
    context: &Context,
    user: &User,
    reference: &Value,
    binding: &Binding,
    audiences: &[String],
) -> Result<(), Status> {
    let Some(node) = node_name(user) else { return Ok(()) };
    let forbidden = |why: &str| {
        let name = &binding.serviceaccount.name;
        Err(Status::forbidden(("", "serviceaccounts"), name, why))
    };
    let Some(pod) = &binding.pod else {
        return forbidden("node requested token not bound to a pod");
    };
    if reference["uid"].as_str().is_none_or(str::is_empty) {
        return forbidden("node requested token with a pod binding without a uid");
    }
    let found = objects::object(&context.store, "pods", &binding.namespace, &pod.name);
    let Some(pod) = found.filter(|pod| pod["spec"]["nodeName"] == node) else {
        return forbidden("node requested token bound to a pod scheduled on a different node");
    };
    let audience = match audiences {
        [] => "",
        [audience] => audience.as_str(),
        _ => return forbidden("node may only request 0 or 1 audiences"),
    };
    if wants(&pod, audience) {
        return Ok(());
    }
    let want = Attributes {
        version: "v1",
        namespace: &binding.namespace,
        name: &binding.serviceaccount.name,
        ..Attributes::on(user, "request-serviceaccounts-token-audience", "", audience)
    };
    if context.decide(&want).await.allowed {
        return Ok(());
    }
    forbidden(&format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        user.name
    ))
}

/// Whether a volume of the pod carries a token for this audience; the empty one is this server's.
fn wants(pod: &Value, audience: &str) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&pod["spec"]["volumes"]).iter().any(|volume| {
        let sources = list(&volume["projected"]["sources"]);
        sources.iter().map(|source| &source["serviceAccountToken"]).any(|token| {
            token.is_object() && token["audience"].as_str().unwrap_or_default() == audience
        })
    })
}
