//! The keys of one issuer, fetched when a token of it comes and again for a key that is new.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::documents;
use super::jwt::{Jwk, Token};
use crate::proxy::forward::{self, Purpose};
use crate::proxy::target::Target;
use crate::{body, response};

/// How long an issuer may take to give its keys.
const PATIENCE: Duration = Duration::from_secs(10);
/// For this long an issuer is not asked again for a key that it does not have.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// What an issuer may say of itself.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// An issuer's keys, as far as they are known.
pub(super) struct Keyring {
    /// The claim `iss` of its tokens.
    issuer: String,
    /// Where its description is.
    description: String,
    tls: Arc<rustls::ClientConfig>,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    known: Vec<Jwk>,
    asked: Option<Instant>,
}

impl Keyring {
    /// Of an issuer that has not been asked yet; its description is below it where nothing is said.
    pub(super) fn new(issuer: &str, description: &str, tls: Arc<rustls::ClientConfig>) -> Self {
        let description = match description {
            "" => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            url => url.to_owned(),
        };
        Keyring { issuer: issuer.to_owned(), description, tls, keys: Mutex::default() }
    }

    /// Proves that a token is of this issuer.
    pub(super) async fn verify(&self, token: &Token<'_>) -> Result<(), String> {
        let mut keys = self.keys.lock().await;
        if signed(&keys.known, token) {
            return Ok(());
        }
        // The issuer may have a new key; who sends bad tokens must not make us ask all the time.
        if keys.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return Err("failed to verify id token signature".to_owned());
        }
        keys.asked = Some(Instant::now());
        keys.known = self.fetch_keys().await?;
        match signed(&keys.known, token) {
            true => Ok(()),
            false => Err("failed to verify id token signature".to_owned()),
        }
    }

    async fn fetch_keys(&self) -> Result<Vec<Jwk>, String> {
        let description = self.document(&self.description).await?;
        let url = documents::keys_url(&description, &self.issuer)?;
        self.document(&url).await.map(|document| Jwk::set(&document))
    }

    async fn document(&self, url: &str) -> Result<Value, String> {
        let text = fetch(&self.tls, url, "").await?;
        serde_json::from_slice(&text).map_err(|error| format!("fetching {url}: {error}"))
    }
}

fn signed(keys: &[Jwk], token: &Token<'_>) -> bool {
    keys.iter()
        .filter(|key| token.key.is_empty() || key.id == token.key)
        .any(|key| key.has_signed(token))
}

/// What a server says at a URL, shown a token where there is one.
pub(super) async fn fetch(
    tls: &Arc<rustls::ClientConfig>,
    url: &str,
    token: &str,
) -> Result<Bytes, String> {
    let failed = |why: &dyn std::fmt::Display| format!("fetching {url}: {why}");
    let uri: http::Uri = url.parse().map_err(|error| failed(&error))?;
    if uri.scheme_str() != Some("https") {
        return Err(failed(&"the scheme is not https"));
    }
    let target = Target {
        host: uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(443),
        tls: Some(Arc::clone(tls)),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        server_name: None,
    };
    let mut request = http::Request::get(uri.path()).header(header::ACCEPT, "application/json");
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(response::full("")).map_err(|error| failed(&error))?;
    let asked = async {
        let answer = forward::send(target, request, Purpose::Proxy).await;
        let answer = answer.map_err(|status| failed(&status.message))?;
        if !answer.status().is_success() {
            return Err(failed(&answer.status()));
        }
        let text = body::whole(answer.into_body(), DOCUMENT_BYTES_MAX).await;
        text.map_err(|status| failed(&status.message))
    };
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| failed(&"no answer in time"))?
}
