//! A connection to the API server as the admin: TLS with a client certificate, HTTP/1.1 kept
//! alive. Hand-made instead of a client library, so that what is measured is the server.

use std::fs;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Outcome;

/// Where the API server is, and who asks.
#[derive(Clone)]
pub struct Api {
    address: String,
    tls: TlsConnector,
}

impl Api {
    /// From a kubeconfig with one cluster and one user.
    pub fn from_kubeconfig(path: &str) -> Outcome<Self> {
        let config: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
        let cluster = &config["clusters"][0]["cluster"];
        let user = &config["users"][0]["user"];
        let pem = |value: &Value| -> Outcome<Vec<u8>> {
            Ok(STANDARD.decode(value.as_str().ok_or("the kubeconfig lacks a certificate")?)?)
        };
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&pem(&cluster["certificate-authority-data"])?)?)?;
        let certificates = CertificateDer::pem_slice_iter(&pem(&user["client-certificate-data"])?)
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates, key)?;
        let server = cluster["server"].as_str().ok_or("the kubeconfig names no server")?;
        Ok(Api {
            address: server.trim_start_matches("https://").trim_end_matches('/').to_owned(),
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    /// A new connection.
    pub async fn connect(&self) -> Outcome<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.address.clone() })
    }
}

/// One connection; requests go one after the other.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Sends a request and gives its answer as it starts.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Outcome<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body);
        Err(format!("{path}: {status}: {}", body.trim()).into())
    }

    /// A whole answer.
    pub async fn body(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Outcome<Bytes> {
        let response = self.send(method, path, body).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    /// Reads an object or a list.
    pub async fn get(&mut self, path: &str) -> Outcome<Value> {
        Ok(serde_json::from_slice(&self.body(Method::GET, path, "").await?)?)
    }

    /// Creates an object.
    pub async fn create(&mut self, path: &str, object: &Value) -> Outcome<Bytes> {
        self.body(Method::POST, path, object.to_string()).await
    }

    /// Whether a path answers 200 now.
    pub async fn is_ok(&mut self, path: &str) -> bool {
        self.send(Method::GET, path, "").await.is_ok_and(|r| r.status() == StatusCode::OK)
    }
}
