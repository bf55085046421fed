//! Servers that are named by a file in the form of a kubeconfig: who answers for tokens and
//! permissions that this server does not know itself.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Uri, header};
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use store::Store;

use super::{Dial, HookClient, IDLE, IDLE_MAX, Trouble, exchange, send, trust};

/// How long an answer may take; upstream has no setting for it either.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a question is asked at most; the pauses between grow, and nobody asks in step with
/// others (upstream's `DefaultRetryBackoffWithInitialDelay`).
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
const GROWTH: f64 = 1.5;
const JITTER: f64 = 0.2;

/// Where a kubeconfig's current context leads, and as whom.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RemoteConfig {
    url: String,
    /// PEM in base64; the machine's authorities where it is empty.
    ca_bundle: String,
    token: String,
    /// Certificate and key, both PEM.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

base::hides!(RemoteConfig, url);

impl RemoteConfig {
    /// Reads a kubeconfig; `read` gives the bytes of a file that it names.
    ///
    /// # Errors
    /// What is missing or cannot be read.
    pub fn parse(
        text: &str,
        read: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let config: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let named = |list: &str, name: &Value, field: &str| {
            let all = config[list].as_array().into_iter().flatten();
            let found = all.clone().find(|one| one["name"] == *name);
            found.map_or(Value::Null, |one| one[field].clone())
        };
        let context = named("contexts", &config["current-context"], "context");
        let cluster = named("clusters", &context["cluster"], "cluster");
        let user = named("users", &context["user"], "user");
        let url = cluster["server"].as_str().unwrap_or_default();
        if url.is_empty() {
            return Err("the current context names no cluster with a server".to_owned());
        }
        // What stands in the file itself is base64.
        let part = |of: &Value, field: &str| -> Result<Option<Vec<u8>>, String> {
            if let Some(data) = of[format!("{field}-data")].as_str().filter(|data| !data.is_empty())
            {
                let decoded = STANDARD.decode(data);
                return decoded.map(Some).map_err(|error| format!("{field}-data: {error}"));
            }
            let path = of[field].as_str().filter(|path| !path.is_empty());
            path.map(|path| read(path).map_err(|why| format!("{field}: {why}"))).transpose()
        };
        let authority = part(&cluster, "certificate-authority")?;
        let (certificate, key) = (part(&user, "client-certificate")?, part(&user, "client-key")?);
        let token = match (user["token"].as_str(), user["tokenFile"].as_str()) {
            (Some(token), _) if !token.is_empty() => token.to_owned(),
            (_, Some(path)) => String::from_utf8_lossy(&read(path)?).trim().to_owned(),
            _ => String::new(),
        };
        Ok(RemoteConfig {
            url: url.to_owned(),
            ca_bundle: authority.map(|pem| STANDARD.encode(pem)).unwrap_or_default(),
            token,
            identity: certificate.zip(key),
        })
    }
}

/// A client of such a server.
pub(crate) struct Remote {
    url: Uri,
    token: String,
    client: HookClient,
    /// Before it is asked again for the first time.
    pause: Duration,
}

impl Remote {
    /// Without connections yet.
    pub(crate) fn new(config: &RemoteConfig, store: &Store) -> Result<Self, String> {
        let mut tls = trust::client(&config.ca_bundle)?;
        if let Some((certificate, key)) = &config.identity {
            tls.client_auth_cert_resolver =
                Arc::new(SingleCertAndKey::from(identity(certificate, key)?));
        }
        let dial = Dial { store: store.clone(), service: None };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector.wrap_connector(dial));
        let url =
            config.url.parse().map_err(|error| format!("server {:?}: {error}", config.url))?;
        Ok(Remote { url, token: config.token.clone(), client, pause: PAUSE })
    }

    /// The same, but with another pause before it is asked again.
    pub(crate) fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// POSTs a question and gives the answer; asks again where that may help. The error says why
    /// there is none.
    pub(crate) async fn ask(&self, question: &Value, patience: Duration) -> Result<Value, String> {
        let text = question.to_string();
        let mut pause = self.pause;
        for _ in 1..ATTEMPTS {
            match self.once(&text, patience).await? {
                Ok(answer) => return Ok(answer),
                Err(why) => tracing::debug!(why, "asking again"),
            }
            tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64() * JITTER)).await;
            pause = pause.mul_f64(GROWTH);
        }
        self.once(&text, patience).await?
    }

    /// One attempt; the inner error is one that may pass.
    async fn once(&self, text: &str, patience: Duration) -> Result<Result<Value, String>, String> {
        let request = self.request(text.to_owned())?;
        match self.in_time(exchange(&self.client, request), patience).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(trouble) if trouble.passes => Ok(Err(trouble.why)),
            Err(trouble) => Err(trouble.why),
        }
    }

    /// POSTs a text of which no more is to be heard than that it was taken.
    pub(crate) async fn post(&self, text: String) -> Result<(), String> {
        let request = self.request(text)?;
        let sent = self.in_time(send(&self.client, request), PATIENCE).await;
        sent.map(drop).map_err(|trouble| trouble.why)
    }

    fn request(&self, text: String) -> Result<http::Request<Full<Bytes>>, String> {
        let mut request = http::Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*");
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        let request = request.body(Full::new(Bytes::from(text)));
        request.map_err(|error| self.failed(&error.to_string()))
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, Trouble>>,
        patience: Duration,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(patience, exchange).await {
            Ok(Err(trouble)) if trouble.is_road => {
                Err(Trouble { why: self.failed(&trouble.why), ..trouble })
            }
            Ok(done) => done,
            Err(_) => Err(Trouble::answer(self.failed("context deadline exceeded"))),
        }
    }

    fn failed(&self, why: &str) -> String {
        format!("Post {:?}: {why}", self.url.to_string())
    }
}

fn identity(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|error| format!("client-certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("client-key: {error}"))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| format!("client-key: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A server that answers each request by the next of these codes.
    async fn moody(codes: &'static [u16]) -> (RemoteConfig, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                let service = hyper::service::service_fn(move |_: http::Request<_>| {
                    let code = codes[count.fetch_add(1, Ordering::Relaxed).min(codes.len() - 1)];
                    let answer = http::Response::builder().status(code);
                    std::future::ready(answer.body(Full::new(Bytes::from("{}"))))
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(tcp), service));
            }
        });
        (RemoteConfig { url, ..RemoteConfig::default() }, asked)
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_again() {
        let store = crate::testing::store().await;
        for (codes, attempts, answers) in [
            (&[200][..], 1, true),
            (&[500, 429, 504, 200], 4, true),
            (&[500], 5, false),
            // These would say the same again.
            (&[403], 1, false),
            (&[503], 1, false),
        ] {
            let (config, asked) = moody(codes).await;
            let remote = Remote::new(&config, &store).unwrap();
            let remote = remote.with_pause(Duration::from_millis(1));
            let answer = remote.ask(&serde_json::json!({}), PATIENCE).await;
            assert_eq!(answer.is_ok(), answers, "{codes:?}: {answer:?}");
            assert_eq!(asked.load(Ordering::Relaxed), attempts, "{codes:?}");
        }
    }

    #[test]
    fn a_kubeconfig_says_where_and_as_whom() {
        let text = "
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: there, user: me}}]
clusters: [{name: other}, {name: there, cluster: {server: 'https://h:8443/x', certificate-authority: ca.pem}}]
users: [{name: me, user: {token: secret, client-certificate: c.pem, client-key-data: a2V5}}]
";
        let read = |path: &str| Ok(format!("file {path}").into_bytes());
        let config = RemoteConfig::parse(text, read).unwrap();
        assert_eq!(config.url, "https://h:8443/x");
        assert_eq!(STANDARD.decode(&config.ca_bundle).unwrap(), b"file ca.pem");
        assert_eq!(config.identity, Some((b"file c.pem".to_vec(), b"key".to_vec())));
        assert_eq!(format!("{config:?}"), "RemoteConfig { url: \"https://h:8443/x\", .. }");
        let missing = RemoteConfig::parse("kind: Config", read).unwrap_err();
        assert_eq!(missing, "the current context names no cluster with a server");
        let unread = RemoteConfig::parse(text, |_| Err("gone".to_owned())).unwrap_err();
        assert_eq!(unread, "certificate-authority: gone");
    }
}
