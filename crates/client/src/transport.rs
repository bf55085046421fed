use bytes::Bytes;
use http::{Request, Response};
use kube::client::Body;
use kube::config::{AuthInfo, Kubeconfig};
use kube::{Client, Config};
use tower::{BoxError, Service};

/// A client over the API server's service in this process: no socket, no TLS, the same
/// authorization, admission and validation as anyone else.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}

/// What it takes to reach an API server over the network. All certificates and keys are PEM.
#[derive(Clone)]
pub struct HttpsConfig {
    /// `https://host:port`
    pub server: String,
    /// The authority that the server's certificate must come from.
    pub ca_pem: String,
    /// The certificate this client shows.
    pub cert_pem: String,
    /// The key to that certificate.
    pub key_pem: String,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address or a certificate does not parse.
    #[error("reading the client configuration for {server}")]
    Config {
        /// The server that was asked for.
        server: String,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// TLS could not be set up from what was given.
    #[error("setting up TLS to {server}")]
    Tls {
        /// The server that was asked for.
        server: String,
        /// What is wrong with it.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client that shows a certificate over HTTPS, as agents on other boards and commands do.
pub async fn https(config: HttpsConfig) -> Result<Client, TransportError> {
    use base64_of as b64;
    let HttpsConfig { server, ca_pem, cert_pem, key_pem } = config;
    let kubeconfig = Kubeconfig {
        clusters: vec![kube::config::NamedCluster {
            name: "coracle".into(),
            cluster: Some(kube::config::Cluster {
                server: Some(server.clone()),
                certificate_authority_data: Some(b64(&ca_pem)),
                ..Default::default()
            }),
            other: Default::default(),
        }],
        auth_infos: vec![kube::config::NamedAuthInfo {
            name: "coracle".into(),
            auth_info: Some(AuthInfo {
                client_certificate_data: Some(b64(&cert_pem)),
                client_key_data: Some(b64(&key_pem).into()),
                ..Default::default()
            }),
            other: Default::default(),
        }],
        contexts: vec![kube::config::NamedContext {
            name: "coracle".into(),
            context: Some(kube::config::Context {
                cluster: "coracle".into(),
                user: Some("coracle".into()),
                ..Default::default()
            }),
            other: Default::default(),
        }],
        current_context: Some("coracle".into()),
        ..Default::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .map_err(|source| TransportError::Config { server: server.clone(), source })?;
    Client::try_from(config)
        .map_err(|source| TransportError::Tls { server, source: Box::new(source) })
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What went wrong with a request, for a person: the API server's own sentence where it gave one,
/// else the chain of causes. (The client's own form of an API error repeats itself and adds the
/// whole Status.)
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => base::chain(other),
    }
}
