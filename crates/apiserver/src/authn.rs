//! Who is asking: client certificates, bearer tokens, impersonation.

mod documents;
mod expressions;
mod jwt;
mod jwt_config;
mod keyring;
mod oidc;
mod static_tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use http::{HeaderMap, HeaderValue, header};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::request::Request;
use crate::server::Context;
use crate::user::{AUTHENTICATED, UNAUTHENTICATED, User};

pub use jwt_config::{
    Anonymous, AuthenticationConfiguration, ClaimRule, ExtraMapping, Issuer, JwtAuthenticator,
    Mapping, Mappings, PathCondition, UserRule,
};
pub(crate) use oidc::Oidc;
pub use static_tokens::StaticTokens;

/// Upstream's object identifier of a user id in a client certificate's subject.
const OID_UID: &str = "1.3.6.1.4.1.57683.2";
/// Prefix of the WebSocket subprotocol that carries a token, for browsers.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// Key of `extra` that names the credential of a request.
pub(crate) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The other end of a connection; a request extension put there by the listener.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// The identity in its client certificate, which the TLS handshake has verified.
    pub user: Option<Arc<User>>,
}

/// The identity in a verified client certificate: CN is the name, each O a group.
/// `None` for a certificate without a common name.
pub(crate) fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    let mut user = User::new(&name, groups);
    user.uid = subject
        .iter_attributes()
        .find(|attribute| attribute.attr_type().to_id_string() == OID_UID)
        .and_then(|attribute| attribute.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hex}")]);
    (!name.is_empty()).then_some(user)
}

/// Finds the user behind a request and takes the credentials out of it, so that no proxy
/// passes them on. `None` means 401.
pub(crate) async fn authenticate(request: &mut Request, context: &Context) -> Option<User> {
    let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.user.clone());
    let token = take_token(request.headers_mut());
    if let Some(user) = certificate {
        return Some((*user).clone());
    }
    if let Some(token) = token {
        return match context.token_user(&token, context.tokens.audiences()).await {
            Ok((user, _)) => Some(user),
            Err(error) => {
                tracing::debug!(%error, "refusing a bearer token");
                None
            }
        };
    }
    is_anonymous_allowed(context, request.uri().path()).then(User::anonymous)
}

/// Whether this path may be asked for without credentials.
fn is_anonymous_allowed(context: &Context, path: &str) -> bool {
    match &context.config.access.anonymous {
        None => context.config.anonymous,
        Some(one) if one.conditions.is_empty() => one.enabled,
        Some(one) => one.enabled && one.conditions.iter().any(|only| only.path == path),
    }
}

/// The bearer token of a request, removed from its headers.
pub(crate) fn take_token(headers: &mut HeaderMap) -> Option<String> {
    if let Some(value) = headers.remove(header::AUTHORIZATION) {
        let value = value.to_str().ok()?.trim();
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
            .then(|| token.to_owned());
    }
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.to_owned();
    let (mut token, mut rest) = (None, Vec::new());
    for protocol in offered.split(',').map(str::trim) {
        match protocol.strip_prefix(WEBSOCKET_TOKEN) {
            Some(encoded) => token = Some(encoded),
            None => rest.push(protocol),
        }
    }
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token?).ok()?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&rest.join(", ")).ok()?);
    String::from_utf8(decoded).ok()
}

/// One identity or fact that an impersonating request must be allowed to take on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// users, groups, serviceaccounts, uids or userextras.
    pub resource: &'static str,
    /// API group of that resource.
    pub group: &'static str,
    /// Key of an extra.
    pub subresource: String,
    /// Namespace of a service account.
    pub namespace: String,
    /// The name, group, uid or value.
    pub name: String,
}

/// The user that `Impersonate-*` headers ask for, and what the caller must be allowed.
/// `Ok(None)` without such headers; an error for headers that contradict each other.
pub(crate) fn impersonated(headers: &HeaderMap) -> Result<Option<(User, Vec<Claim>)>, String> {
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
    };
    let mut claims = Vec::new();
    let mut user = User::default();
    let claim = |resource, group, subresource: &str, namespace: &str, name: &str| Claim {
        resource,
        group,
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    if let Some(name) = text("impersonate-user") {
        user.name = name.to_owned();
        claims.push(match service_account_parts(name) {
            Some((namespace, account)) => claim("serviceaccounts", "", "", namespace, account),
            None => claim("users", "", "", "", name),
        });
    }
    for group in headers.get_all("impersonate-group") {
        let group = group.to_str().map_err(|_| "Impersonate-Group is no text".to_owned())?;
        claims.push(claim("groups", "", "", "", group));
        user.groups.push(group.to_owned());
    }
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix("impersonate-extra-") else { continue };
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        let value = value.to_str().map_err(|_| format!("{name} is no text"))?;
        claims.push(claim("userextras", "authentication.k8s.io", &key, "", value));
        user.extra.entry(key).or_default().push(value.to_owned());
    }
    if let Some(uid) = text("impersonate-uid") {
        claims.push(claim("uids", "authentication.k8s.io", "", "", uid));
        user.uid = uid.to_owned();
    }
    if claims.is_empty() {
        return Ok(None);
    }
    if user.name.is_empty() {
        return Err(format!("requested {claims:?} without impersonating a user"));
    }
    settle_groups(&mut user);
    Ok(Some((user, claims)))
}

/// The groups that an impersonated user has without asking for them.
fn settle_groups(user: &mut User) {
    if let (true, Some((namespace, name))) =
        (user.groups.is_empty(), service_account_parts(&user.name))
    {
        user.groups = User::service_account(namespace, name).groups;
        return;
    }
    let own = if user.name == crate::user::ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    let known = user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED);
    if !known {
        user.groups.push(own.to_owned());
    }
}

/// Namespace and name in `system:serviceaccount:NAMESPACE:NAME`.
pub(crate) fn service_account_parts(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Takes the impersonation headers out of a request, so that no proxy passes them on.
pub(crate) fn strip_impersonation(headers: &mut HeaderMap) {
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
