//! HTTP to a storage: a connection for each request, since hours lie between them.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, HOST};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::failure::{Failure, Hint, Outcome, While};
use crate::snapshot::options::S3Options;

/// Where distributions keep the authorities that this machine believes.
const MACHINE_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// Answers but for fetched snapshots are lists and messages.
const MAX_ANSWER_BYTES: usize = 8 << 20;
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How often a request is sent again when the storage is not well.
const ATTEMPTS: u32 = 3;
const BACKOFF: base::Backoff =
    base::Backoff::new(Duration::from_millis(500), Duration::from_secs(5));

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The way to a storage.
pub struct Wire {
    tls: TlsConnector,
    timeout: Duration,
}

impl Wire {
    /// Reads the authorities; nothing is sent yet.
    pub fn new(options: &S3Options) -> Outcome<Self> {
        let doing = || "setting up TLS to the storage".to_owned();
        let config = match options.s3_skip_ssl_verify {
            true => trust::client_of_anyone().doing(doing)?,
            false => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .doing(doing)?
                    .with_root_certificates(authorities(options)?)
            }
        };
        let tls = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        Ok(Wire { tls, timeout: options.timeout() })
    }

    /// Sends a request and gives its answer as text, which is XML or nothing.
    pub async fn text(&self, method: Method, url: &str, body: Bytes) -> Outcome<String> {
        let response = self.send(method, url, body).await?;
        let text = tokio::time::timeout(self.timeout, read_text(response.into_body())).await;
        Ok(with_namespace(text.unwrap_or_else(|_| Err(late()))?))
    }

    /// Sends a part and gives its tag.
    pub async fn tag(&self, url: &str, body: Bytes) -> Outcome<String> {
        let response = self.send(Method::PUT, url, body).await?;
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        tag.map(str::to_owned).ok_or_else(|| {
            Failure::new("the storage gave no tag for a part").hint("see whether it speaks S3")
        })
    }

    /// Fetches something large, piece by piece.
    pub async fn download(
        &self,
        url: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Outcome {
        let mut body = self.send(Method::GET, url, Bytes::new()).await?.into_body();
        let doing = || "reading what the storage sends".to_owned();
        loop {
            let frame = tokio::time::timeout(self.timeout, body.frame()).await.doing(doing)?;
            let Some(frame) = frame else { return Ok(()) };
            if let Some(piece) = frame.doing(doing)?.data_ref() {
                take(piece)
                    .doing(|| "writing what the storage sends".into())
                    .hint(|| "see whether the disk is full".into())?;
            }
        }
    }

    /// Sends a request, again where the storage cannot be reached or has a fault of its own. All
    /// requests here can be repeated without harm.
    async fn send(&self, method: Method, url: &str, body: Bytes) -> Outcome<Response<Incoming>> {
        let mut attempt = 0;
        loop {
            let once = self.send_once(&method, url, body.clone());
            let outcome = tokio::time::timeout(self.timeout, once).await;
            let outcome = outcome.unwrap_or_else(|_| Err(late()));
            attempt += 1;
            let again = match &outcome {
                Ok(response) => response.status().is_server_error(),
                Err(_) => true,
            };
            if !again || attempt >= ATTEMPTS {
                return match outcome? {
                    response if response.status().is_success() => Ok(response),
                    response => {
                        let refused = tokio::time::timeout(self.timeout, refusal(response)).await;
                        Err(refused.unwrap_or_else(|_| late()))
                    }
                };
            }
            tokio::time::sleep(BACKOFF.delay(attempt)).await;
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        url: &str,
        body: Bytes,
    ) -> Outcome<Response<Incoming>> {
        let uri: Uri = url.parse().doing(|| "reading the address of the storage".into())?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = self.connect(&host, port, secure).await?;
        let doing = || format!("talking to {host}:{port}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.doing(doing)?;
        // It ends with the body of the answer; its errors come out there too.
        tokio::spawn(connection);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let authority = uri.authority().map_or(host.as_str(), |authority| authority.as_str());
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, authority)
            .header(CONTENT_LENGTH, body.len())
            .body(Full::new(body))
            .doing(doing)?;
        sender.send_request(request).await.doing(doing)
    }

    async fn connect(&self, host: &str, port: u16, secure: bool) -> Outcome<Box<dyn Stream>> {
        let doing = || format!("connecting to the storage {host}:{port}");
        let hint = || "see whether it runs and --s3-endpoint names it".to_owned();
        let connecting = TcpStream::connect((host, port));
        let stream = tokio::time::timeout(CONNECT_PATIENCE, connecting)
            .await
            .doing(doing)
            .hint(hint)?
            .doing(doing)
            .hint(hint)?;
        if !secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).doing(doing)?;
        let stream = self.tls.connect(name, stream).await.doing(doing).hint(|| {
            "name its authority with --s3-endpoint-ca, or use --s3-insecure for a storage without \
             TLS"
            .into()
        })?;
        Ok(Box::new(stream))
    }
}

fn late() -> Failure {
    Failure::new("the storage does not answer in time")
        .hint("see whether it is well; --s3-timeout allows more time")
}

async fn read_text(body: Incoming) -> Outcome<String> {
    let doing = || "reading the answer of the storage".to_owned();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.doing(doing)?;
    String::from_utf8(body.to_bytes().into()).doing(doing)
}

/// What the storage says when it refuses, and what to do about it.
async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let text = read_text(response.into_body()).await.unwrap_or_default();
    let code = element(&text, "Code").unwrap_or_default();
    let message = element(&text, "Message").unwrap_or(status.canonical_reason().unwrap_or(""));
    let hint = match (code, status) {
        ("NoSuchBucket", _) => "make the bucket, or name another with --s3-bucket",
        ("NoSuchKey", _) => "`coracle snapshot list --s3` shows what there is",
        ("RequestTimeTooSkewed", _) => "set this board's clock (`timedatectl set-ntp true`)",
        ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AccessDenied", _)
        | (_, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
            "see whether --s3-access-key and --s3-secret-key are right and may write to the bucket"
        }
        (_, StatusCode::NOT_FOUND) => "see whether --s3-bucket and the name are right",
        _ => "the storage's own log may say more",
    };
    let code = if code.is_empty() { String::new() } else { format!(" {code}") };
    Failure::new(format!("the storage refuses ({}{code}): {message}", status.as_u16())).hint(hint)
}

/// The text of the first element of this name; enough for S3's flat error documents.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, behind) = xml.split_once(&format!("<{name}>"))?;
    behind.split_once("</").map(|(text, _)| text)
}

/// Some storages leave out the namespace that AWS gives its answers, or give an older one, and the
/// parser insists on it.
fn with_namespace(xml: String) -> String {
    let body = xml.find("?>").map_or(0, |end| end + 2);
    let Some(open) = xml[body..].find('<').map(|at| body + at) else { return xml };
    let Some(close) = xml[open..].find('>').map(|at| open + at) else { return xml };
    let tag = &xml[open..close];
    let (before, behind) = match tag.split_once(" xmlns=\"") {
        Some((before, named)) => (before, named.split_once('"').map_or("", |(_, rest)| rest)),
        None => (tag.trim_end_matches('/'), ""),
    };
    let ends = if tag.ends_with('/') && !behind.ends_with('/') { "/" } else { "" };
    let (head, rest) = (&xml[..open], &xml[close..]);
    format!("{head}{before} xmlns=\"{NAMESPACE}\"{behind}{ends}{rest}")
}

fn authorities(options: &S3Options) -> Outcome<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if options.s3_insecure {
        return Ok(roots);
    }
    let found = || MACHINE_AUTHORITIES.iter().map(std::path::PathBuf::from).find(|p| p.exists());
    let Some(path) = options.s3_endpoint_ca.clone().or_else(found) else {
        return Err(Failure::new("this machine has no list of authorities")
            .hint("`apt install ca-certificates`, or name a file with --s3-endpoint-ca"));
    };
    let doing = || format!("reading the authorities {}", path.display());
    let pem = fs::read(&path).doing(doing).hint(|| "name another with --s3-endpoint-ca".into())?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        // Some of a distribution's are older than what rustls takes.
        let _ = roots.add(certificate.doing(doing)?);
    }
    match roots.is_empty() {
        true => Err(Failure::new(format!("{} holds no authority", path.display()))
            .hint("it must be PEM; name another with --s3-endpoint-ca")),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_namespace_that_the_parser_wants() {
        let wanted = format!("<?xml version=\"1.0\"?>\n<List xmlns=\"{NAMESPACE}\"><Key>a</Key>");
        for given in ["<List>", "<List xmlns=\"http://old/\">"] {
            let given = format!("<?xml version=\"1.0\"?>\n{given}<Key>a</Key>");
            assert_eq!(with_namespace(given), wanted);
        }
        assert_eq!(with_namespace(wanted.clone()), wanted);
        assert_eq!(with_namespace("<List/>".into()), format!("<List xmlns=\"{NAMESPACE}\"/>"));
        for other in ["", "no XML"] {
            assert_eq!(with_namespace(other.into()), other);
        }
    }

    #[test]
    fn errors_are_found_in_what_the_storage_says() {
        let xml = "<Error><Code>NoSuchBucket</Code><Message>The bucket</Message></Error>";
        assert_eq!(element(xml, "Code"), Some("NoSuchBucket"));
        assert_eq!(element(xml, "Message"), Some("The bucket"));
        assert_eq!(element("", "Code"), None);
    }
}
