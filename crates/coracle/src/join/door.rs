//! The way of a joining board to a server's desk: the server is checked against the token before
//! anything secret is said, and what goes wrong on the way has a name and a next step.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use kube::core::Status;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::checks::CLOCK_TOLERANCE_SECONDS;
use super::protocol::{AUTHORITIES, Refusal};
use super::token::{Credential, Token};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::tls::{Shown, TrustedServers, client_config};

/// The port of the API, where the address names none.
const DEFAULT_PORT: u16 = 6443;
/// Time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an answer; the desk waits for a certificate to be signed meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between attempts to reach a server.
const RETRY: base::Backoff = base::Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a desk gave no answer.
#[derive(Debug)]
pub enum Closed {
    /// It may answer later: nobody is there, or it is not ready.
    Later(Failure),
    /// It will not.
    Never(Failure),
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Later(failure) | Closed::Never(failure) => failure,
        }
    }
}

/// Asks again and again until there is an answer or a refusal, and says what is waited for.
pub async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Closed>) -> Outcome<T> {
    let mut failures = 0;
    loop {
        let failure = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Closed::Never(failure)) => return Err(failure),
            Err(Closed::Later(failure)) => failure,
        };
        failures += 1;
        tracing::warn!(
            hint = failure.next_step().unwrap_or_default(),
            "waiting for a server: {}",
            base::chain(&failure)
        );
        tokio::time::sleep(RETRY.jittered(failures)).await;
    }
}

/// A server that has been checked.
pub struct Door {
    server: Authority,
    tls: ClientConfig,
    token: Option<Credential>,
}

/// An address of a server as people write it, `https://board:6443`.
pub fn authority(text: &str) -> Outcome<Authority> {
    let hint = "write it as https://board:6443";
    let rest = match text.split_once("://") {
        Some(("https", rest)) => rest,
        Some(_) => {
            return Err(Failure::new(format!("{text:?} is no https address")).hint(hint));
        }
        None => text,
    };
    let rest = rest.trim_end_matches('/');
    let parsed: Authority = rest
        .parse()
        .doing(|| format!("reading the server's address {text:?}"))
        .hint(|| hint.to_owned())?;
    match parsed.port() {
        Some(_) => Ok(parsed),
        None => format!("{rest}:{DEFAULT_PORT}")
            .parse()
            .doing(|| format!("reading the server's address {text:?}")),
    }
}

impl Door {
    /// Checks a server against a token. A token without a hash lets anybody pose as the cluster,
    /// so that is said.
    pub async fn by_token(server: Authority, token: &Token) -> Result<Door, Closed> {
        let anyone = client_config(trust::anyone(), Arc::default()).map_err(Closed::Never)?;
        let stranger = Door { server: server.clone(), tls: anyone, token: None };
        let (answer, date) = stranger.send(Method::GET, AUTHORITIES, Bytes::new()).await?;
        let bundle = String::from_utf8_lossy(&answer).into_owned();
        let pinned = match &token.hash {
            Some(_) => token.pinned(&bundle).ok_or_else(|| other_cluster(&server))?,
            None => {
                tracing::warn!(
                    %server,
                    "the token does not say which cluster it is for: whoever answers at this \
                     address is believed; take the whole token, which begins with K10"
                );
                bundle
            }
        };
        let trusted = TrustedServers::new(&pinned).map_err(Closed::Never)?;
        let tls = client_config(trusted.verifier(), Arc::default()).map_err(Closed::Never)?;
        let door = Door { server, tls, token: Some(token.credential.clone()) };
        // Shows by the handshake that the server holds the authority's key, before the token is
        // given away.
        door.connect().await.map_err(|closed| with_clock(closed, date))?;
        Ok(door)
    }

    /// A server whose authority is known, asked with a client certificate.
    pub fn by_certificate(
        server: Authority,
        trusted: Arc<dyn ServerCertVerifier>,
        shown: Arc<Shown>,
    ) -> Outcome<Door> {
        Ok(Door { server, tls: client_config(trusted, shown)?, token: None })
    }

    /// Asks the desk.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, Closed> {
        let body = serde_json::to_vec(question)
            .doing(|| format!("asking {}", self.server))
            .map_err(Closed::Never)?;
        let (answer, _) = self.send(Method::POST, path, body.into()).await?;
        serde_json::from_slice(&answer)
            .doing(|| format!("reading the answer of {}", self.server))
            .hint(|| "use the same release of Coracle on all boards".into())
            .map_err(Closed::Never)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(Bytes, Option<Timestamp>), Closed> {
        let doing = || format!("asking {}", self.server);
        let stream = self.connect().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.server.as_str())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(credential) = &self.token {
            request = request.header(header::AUTHORIZATION, authorization(credential));
        }
        let request = request.body(Full::new(body)).doing(doing).map_err(Closed::Never)?;
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            connection.abort();
            Ok::<_, hyper::Error>((head, body))
        };
        let (head, body) = match timeout(ANSWER_TIMEOUT, exchange).await {
            Err(_) => return Err(self.no_answer()),
            Ok(Err(error)) => {
                return Err(Closed::Later(
                    Failure::caused(doing(), error)
                        .hint("see that it is a server of Coracle, and what its log says"),
                ));
            }
            Ok(Ok(answer)) => answer,
        };
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(Closed::Later(Failure::caused(doing(), error))),
        };
        if head.status.is_success() {
            let date = head.headers.get(header::DATE).and_then(|date| date.to_str().ok());
            return Ok((body, date.and_then(http_date)));
        }
        Err(self.refused(head.status, &body))
    }

    fn refused(&self, code: StatusCode, body: &[u8]) -> Closed {
        let refusal = serde_json::from_slice::<Refusal>(body);
        let status = serde_json::from_slice::<Status>(body);
        let failure = match (refusal, status) {
            (Ok(refusal), _) => {
                Failure::new(format!("{}: {}", self.server, refusal.error)).hint(refusal.hint)
            }
            // Before the desk is open, the port says what is waited for.
            (_, Ok(status)) if code == StatusCode::SERVICE_UNAVAILABLE => {
                Failure::new(format!("{}: {}", self.server, status.message))
                    .hint("wait until it has started")
            }
            _ => Failure::new(format!("{} answers {code}", self.server))
                .hint("see that it is a server of Coracle, and what its log says"),
        };
        match code {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Closed::Later(failure)
            }
            _ => Closed::Never(failure),
        }
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Closed> {
        let host = self.server.host().trim_matches(['[', ']']).to_owned();
        let port = self.server.port_u16().unwrap_or(DEFAULT_PORT);
        let name = ServerName::try_from(host.clone())
            .doing(|| format!("reading the server's name {host}"))
            .map_err(Closed::Never)?;
        let tcp = match timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), port))).await {
            Err(_) => return Err(self.no_answer()),
            Ok(Err(error)) => return Err(Closed::Later(self.unreachable(error))),
            Ok(Ok(tcp)) => tcp,
        };
        let tls = TlsConnector::from(Arc::new(self.tls.clone()));
        match timeout(CONNECT_TIMEOUT, tls.connect(name, tcp)).await {
            Err(_) => Err(self.no_answer()),
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.no_tls(error)),
        }
    }

    fn no_answer(&self) -> Closed {
        let seconds = CONNECT_TIMEOUT.as_secs();
        Closed::Later(
            Failure::new(format!("{} does not answer within {seconds} s", self.server)).hint(
                format!(
                    "see that the board is on, that the address is right, and that no firewall \
                     drops what goes to port {} (`ping {}`)",
                    self.server.port_u16().unwrap_or(DEFAULT_PORT),
                    self.server.host()
                ),
            ),
        )
    }

    fn unreachable(&self, error: std::io::Error) -> Failure {
        let (host, port) = (self.server.host(), self.server.port_u16().unwrap_or(DEFAULT_PORT));
        let hint = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => format!(
                "nothing listens on port {port} there: see that `coracle server` runs on {host}, \
                 and that this is its --https-listen-port"
            ),
            std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
                format!("no way leads to {host} from here: see this board's addresses and routes")
            }
            _ => format!("see that {host} is the name or address of a server"),
        };
        Failure::caused(format!("connecting to {}", self.server), error).hint(hint)
    }

    fn no_tls(&self, error: std::io::Error) -> Closed {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let what = format!("setting up TLS to {}", self.server);
        match cause {
            Some(rustls::Error::InvalidMessage(_)) => Closed::Never(
                Failure::caused(what, error)
                    .hint("another program answers on that port: name the port of the API"),
            ),
            Some(rustls::Error::InvalidCertificate(reason)) => {
                let hint = match reason {
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. } => {
                        "use an address that the server's certificate is for, or start the server \
                         with --tls-san and this one"
                    }
                    CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. } => {
                        "compare the clocks of both boards (`date`)"
                    }
                    _ => "the server is of another cluster, or somebody poses as it",
                };
                Closed::Never(Failure::caused(what, error).hint(hint))
            }
            _ => Closed::Later(
                Failure::caused(what, error)
                    .hint("see that it is a server of Coracle, and what its log says"),
            ),
        }
    }
}

/// What a server says that is none of the token's cluster.
fn other_cluster(server: &Authority) -> Closed {
    Closed::Never(
        Failure::new(format!("{server} is not of the cluster that the token is for")).hint(
            "compare the token with server/token on that server; if they are the same, somebody \
             between the boards poses as it",
        ),
    )
}

/// A handshake that failed over time is explained by the other side's clock, where it is known.
fn with_clock(closed: Closed, date: Option<Timestamp>) -> Closed {
    let Some(date) = date else { return closed };
    let apart = Timestamp::now().as_second() - date.as_second();
    match closed {
        Closed::Never(failure) if apart.abs() > CLOCK_TOLERANCE_SECONDS => {
            Closed::Never(failure.hint(format!(
                "this board's clock is {} s {} the server's: set it (`timedatectl set-ntp true`)",
                apart.abs(),
                if apart > 0 { "ahead of" } else { "behind" }
            )))
        }
        other => other,
    }
}

/// The moment in an HTTP date.
fn http_date(text: &str) -> Option<Timestamp> {
    let format = "%a, %d %b %Y %H:%M:%S GMT";
    jiff::civil::DateTime::strptime(format, text)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

fn authorization(credential: &Credential) -> String {
    let basic =
        |user: &str, secret: &str| format!("Basic {}", BASE64.encode(format!("{user}:{secret}")));
    match credential {
        Credential::Server(secret) => basic("server", secret),
        Credential::Node(secret) => basic("node", secret),
        Credential::Bare(secret) => basic("", secret),
        Credential::Bootstrap { id, secret } => format!("Bearer {id}.{secret}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("https://pi:6443", "pi:6443"),
            ("https://pi/", "pi:6443"),
            ("10.0.0.1", "10.0.0.1:6443"),
            ("https://[fd00::1]", "[fd00::1]:6443"),
        ] {
            assert_eq!(authority(text).expect(text).as_str(), expected);
        }
        for text in ["http://pi", "https://", "https://a b"] {
            assert!(authority(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_of_answers_are_read() {
        let date = http_date("Sat, 21 Nov 2026 12:00:00 GMT").expect("a date");
        assert_eq!(date.to_string(), "2026-11-21T12:00:00Z");
    }
}
