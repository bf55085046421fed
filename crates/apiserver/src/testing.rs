//! A server over a store in memory, for tests.

use std::sync::Arc;

use base64::Engine as _;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use store::{Memory, Options, Store};

use crate::request::{Request, Response};
use crate::response;
use crate::server::ApiServer;
use crate::user::User;
use crate::{Config, JsonCodec, Limits, ServiceAccountConfig, Version};

/// A P-256 key as the binary would make one.
pub(crate) fn signing_key() -> String {
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let der = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

/// A configuration with everything at its default.
pub(crate) fn config() -> Config {
    Config {
        version: Version {
            git_version: "v1.36.0+coracle0.1.0".to_owned(),
            git_commit: String::new(),
            build_date: "2026-11-21T00:00:00Z".to_owned(),
            compiler: "rustc".to_owned(),
        },
        advertise: "192.0.2.1:6443".parse().unwrap(),
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        node_ports: (30000, 32767),
        cluster_domain: "cluster.local".to_owned(),
        service_account: ServiceAccountConfig {
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            audiences: Vec::new(),
            signing_key_pem: signing_key(),
            public_keys_pem: Vec::new(),
            max_expiration_seconds: 86_400,
        },
        kubelet: None,
        client_ca_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        anonymous: true,
        tolerations: Default::default(),
        access: Default::default(),
        admission: Default::default(),
        limits: Limits::default(),
    }
}

/// A store without anything in it.
pub(crate) async fn store() -> Store {
    let driver = Memory::default().driver();
    let opened = Store::open(driver, Arc::new(JsonCodec), Options::default()).await;
    opened.unwrap().0
}

/// A server whose store is empty.
pub(crate) async fn empty(config: Config) -> Arc<ApiServer> {
    ApiServer::new(store().await, config).unwrap()
}

/// A server with the objects of a first start.
pub(crate) async fn started() -> Arc<ApiServer> {
    let server = empty(config()).await;
    server.bootstrap().await.unwrap();
    server
}

/// A request with a JSON body, or without one for `Null`.
pub(crate) fn request(method: Method, uri: &str, body: &Value) -> Request {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let kind = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    http::Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::CONTENT_TYPE, kind)
        .body(response::full(text))
        .unwrap()
}

/// Sends a request as a user; the answer's code and its body as JSON, or as a JSON text.
pub(crate) async fn send(
    server: &Arc<ApiServer>,
    user: &User,
    method: Method,
    uri: &str,
    body: Value,
) -> (StatusCode, Value) {
    let request = request(method, uri, &body);
    read(Arc::clone(server).answer(request, Some(user.clone())).await).await
}

/// An answer's code and its body as JSON, or as a JSON text.
pub(crate) async fn read(answer: Response) -> (StatusCode, Value) {
    let code = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Sends a GET as a user.
pub(crate) async fn get(server: &Arc<ApiServer>, user: &User, uri: &str) -> (StatusCode, Value) {
    send(server, user, Method::GET, uri, Value::Null).await
}

/// Sends a POST as a user and expects success.
pub(crate) async fn create(server: &Arc<ApiServer>, uri: &str, body: Value) -> Value {
    let (code, answer) = send(server, &User::admin(), Method::POST, uri, body).await;
    assert!(code.is_success(), "POST {uri}: {code} {answer}");
    answer
}

/// Waits until `check` holds; panics after five seconds.
pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not within five seconds");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
