//! The one place that knows how a server is made and asked.

use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Body, JsonCodec, User};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::Service;

use crate::config::config;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server with the namespace `ns` and its default service account.
pub struct Server {
    pub api: Arc<ApiServer>,
    _folder: tempfile::TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    /// The code and, for failures, the message: what most tests compare.
    pub fn short(&self) -> String {
        format!("{} {}", self.code, self.body["message"].as_str().unwrap_or_default())
    }

    /// The body of an answer that has to be a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.code < 300, "{}: {}", self.code, self.text);
        self.body
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(store::Options::default()).await
    }

    /// A server over a store with these options.
    pub async fn with(options: store::Options) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let driver = store::Sqlite::driver(folder.path());
        let (store, _) =
            store::Store::open(driver, Arc::new(JsonCodec), options).await.expect("a store");
        let api = ApiServer::new(store, config()).expect("a server");
        let server = Server { api, _folder: folder };
        server.post("/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await.ok();
        let account = json!({"metadata": {"name": "default"}});
        server.post("/api/v1/namespaces/ns/serviceaccounts", account).await.ok();
        server
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, &[], &body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, &[], &body.to_string()).await
    }

    pub async fn delete(&self, path: &str, options: Value) -> Answer {
        let body = if options.is_null() { String::new() } else { options.to_string() };
        self.ask("DELETE", path, &[], &body).await
    }

    /// A patch; `kind` is `merge-patch+json` and the like.
    pub async fn patch(&self, path: &str, kind: &str, body: &str) -> Answer {
        let kind = format!("application/{kind}");
        self.ask("PATCH", path, &[("content-type", &kind)], body).await
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let response = self.open(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let text = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8(text.to_vec()).expect("text");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text, body }
    }

    pub async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> http::Response<Body> {
        self.try_open(method, path, headers, body).await.expect("a request")
    }

    /// The same; `None` for what is no HTTP request at all.
    pub async fn try_open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Option<http::Response<Body>> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_ref()))).ok()?;
        let mut service = self.api.in_process(User::admin());
        Some(service.call(request).await.expect("an answer"))
    }

    /// Opens a watch that has to be granted.
    pub async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, "application/json").await
    }

    /// The same with an `Accept` header.
    pub async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let response = self.open("GET", path, &[("accept", accept)], "").await;
        assert_eq!(response.status(), 200, "{path}");
        Watch { body: response.into_body(), rest: Vec::new() }
    }
}

/// A watch, read line by line.
pub struct Watch {
    body: Body,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the watch's end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a JSON line"));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event in time")?;
            let data = frame.expect("a frame").into_data().expect("data");
            self.rest.extend_from_slice(&data);
        }
    }

    /// The next events as `TYPE name`.
    pub async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let event = self.next().await.expect("an event");
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
            lines.push(format!("{} {name}", event["type"].as_str().unwrap_or("?")));
        }
        lines
    }
}

/// A ConfigMap with a label or two.
pub fn configmap(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})
}

/// The smallest pod.
pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}
