//! One HTTP GET, as probes and hooks make it: a connection of its own, only the status counts and
//! where a redirection leads.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{dial, insecure, port_number};

/// Longest status line that is read, in bytes.
const MAX_STATUS_LINE_BYTES: usize = 1024;

/// Most of a redirection that is read, in bytes.
const MAX_REDIRECTION_BYTES: usize = 10 * 1024;
/// So many redirections in a row lead nowhere.
const MAX_REQUESTS: usize = 10;
const END_OF_HEAD: &str = "\r\n\r\n";

/// What to ask for.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: bool,
    path: String,
    headers: Vec<(String, String)>,
}

impl Target {
    /// From a probe or hook of `container` in the pod at `ip`.
    pub fn new(
        container: &Container,
        action: &HTTPGetAction,
        ip: Option<IpAddr>,
    ) -> Result<Self, String> {
        let host = action.host.clone().filter(|h| !h.is_empty());
        let host = host.or_else(|| ip.map(|ip| ip.to_string())).ok_or("the pod has no address")?;
        let path = action.path.as_deref().unwrap_or("/");
        let headers = action.http_headers.iter().flatten();
        Ok(Target {
            host,
            port: port_number(container, &action.port)?,
            tls: action.scheme.as_deref() == Some("HTTPS"),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, self.port).to_string(),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Where a redirection leads.
    fn redirected(&self, location: &str) -> Result<Self, String> {
        let mut next = self.clone();
        let (scheme, rest) = match location.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?']) => (scheme, rest),
            _ => match location.strip_prefix("//") {
                Some(rest) => (if self.tls { "https" } else { "http" }, rest),
                None => {
                    next.path = resolved(&self.path, location);
                    return Ok(next);
                }
            },
        };
        let failed = || format!("failed to parse Location header {location:?}");
        let uri: http::Uri = format!("{scheme}://{rest}").parse().map_err(|_| failed())?;
        next.tls = scheme.eq_ignore_ascii_case("https");
        next.host = uri.host().ok_or_else(failed)?.trim_matches(['[', ']']).to_owned();
        next.port = uri.port_u16().unwrap_or(if next.tls { 443 } else { 80 });
        next.path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        // A name that the probe has given itself is the first host's.
        next.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
        Ok(next)
    }

    fn request(&self) -> String {
        let has = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut out = format!("GET {} HTTP/1.1\r\n", self.path);
        for (name, value) in [
            ("Host", self.authority().as_str()),
            ("User-Agent", "kube-probe/1.36"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ] {
            if !has(name) {
                out.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        out
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// Of a redirection its body, as far as it is kept.
    pub body: String,
    location: Option<String>,
}

/// `location` seen from `path`.
fn resolved(path: &str, location: &str) -> String {
    let plain = path.split('?').next().unwrap_or_default();
    let location = location.split('#').next().unwrap_or_default();
    match location.chars().next() {
        None => path.to_owned(),
        Some('/') => location.to_owned(),
        Some('?') => format!("{plain}{location}"),
        Some(_) => {
            let folder = plain.rfind('/').map_or("/", |at| &plain[..=at]);
            format!("{folder}{location}")
        }
    }
}

/// Asks, follows redirections within the host that was asked first, and gives the answer.
pub async fn get(target: &Target, limit: Option<Duration>) -> Result<Answer, String> {
    let told = |text: String| format!("Get {:?}: {text}", target.url());
    match limit {
        None => follow(target).await.map_err(told),
        Some(limit) => match tokio::time::timeout(limit, follow(target)).await {
            Ok(result) => result.map_err(told),
            Err(_) => Err(told(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    .to_owned(),
            )),
        },
    }
}

async fn follow(first: &Target) -> Result<Answer, String> {
    let mut target = first.clone();
    for _ in 0..MAX_REQUESTS {
        let answer = exchange(&target).await?;
        let followed = matches!(answer.code, 301 | 302 | 303 | 307 | 308);
        let next = answer.location.as_deref().filter(|_| followed);
        let next = next.map(|location| target.redirected(location)).transpose()?;
        match next.filter(|next| next.host == first.host) {
            Some(next) => target = next,
            None => return Ok(answer),
        }
    }
    Err(format!("stopped after {MAX_REQUESTS} redirects"))
}

async fn exchange(target: &Target) -> Result<Answer, String> {
    let addresses = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let address = addresses.ok().and_then(|mut list| list.next());
    let address =
        address.ok_or_else(|| format!("dial tcp: lookup {}: no such host", target.host))?;
    let stream = TcpStream::connect(address).await.map_err(|error| dial(address, &error))?;
    if !target.tls {
        return talk(stream, target).await;
    }
    let stream =
        insecure::connect(&target.host, stream).await.map_err(|error| error.to_string())?;
    talk(stream, target).await
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    target: &Target,
) -> Result<Answer, String> {
    stream.write_all(target.request().as_bytes()).await.map_err(|error| error.to_string())?;
    let mut seen = Vec::new();
    while !seen.contains(&b'\n') && seen.len() < MAX_STATUS_LINE_BYTES {
        if !more(&mut stream, &mut seen).await? {
            break;
        }
    }
    if seen.is_empty() {
        return Err("EOF".to_owned());
    }
    let code = status(&String::from_utf8_lossy(&seen))?;
    let mut answer = Answer { code, body: String::new(), location: None };
    if (300..400).contains(&code) {
        while !complete(&seen) && seen.len() < MAX_REDIRECTION_BYTES {
            if !more(&mut stream, &mut seen).await? {
                break;
            }
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        let (head, body) = text.split_once(END_OF_HEAD).unwrap_or((&text, ""));
        answer.location = header(head, "location").map(str::to_owned);
        answer.body = body.to_owned();
    }
    Ok(answer)
}

/// Reads on; false at the end.
async fn more(stream: &mut (impl AsyncRead + Unpin), seen: &mut Vec<u8>) -> Result<bool, String> {
    let read = stream.read_buf(seen).await;
    read.map(|bytes| bytes > 0).map_err(|error| format!("read tcp: {error}"))
}

fn status(text: &str) -> Result<u16, String> {
    let mut words = text.split_whitespace();
    let code = words.next().filter(|version| version.starts_with("HTTP/")).and(words.next());
    let first = || text.lines().next().unwrap_or_default();
    code.and_then(|c| c.parse().ok()).ok_or_else(|| {
        format!(
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response {:?}",
            first()
        )
    })
}

/// Whether all of a redirection has been read, as far as it says where it ends.
fn complete(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen);
    let Some((head, body)) = text.split_once(END_OF_HEAD) else { return false };
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length) || body.ends_with("0\r\n\r\n")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn only_the_status_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 1024];
            let n = stream.read(&mut seen).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 Busy\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&seen[..n]).into_owned()
        });
        let action = json!({"port": port, "path": "health", "httpHeaders": [{"name": "host", "value": "x"}]});
        let action: HTTPGetAction = serde_json::from_value(action).unwrap();
        let target = Target::new(&Container::default(), &action, "127.0.0.1".parse().ok()).unwrap();
        let answer = get(&target, Some(Duration::from_secs(5))).await.unwrap();
        assert_eq!(answer.code, 503);
        let seen = server.await.unwrap();
        assert!(
            seen.starts_with("GET /health HTTP/1.1\r\n") && seen.contains("host: x\r\n"),
            "{seen}"
        );
        assert!(!seen.contains("Host:"), "{seen}");
        let refused = get(&target, Some(Duration::from_secs(5))).await.unwrap_err();
        assert!(refused.ends_with("connect: connection refused"), "{refused}");
    }

    #[tokio::test]
    async fn redirections_are_followed_within_the_host() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut seen = vec![0; 1024];
                let n = stream.read(&mut seen).await.unwrap();
                let line = String::from_utf8_lossy(&seen[..n]).lines().next().unwrap().to_owned();
                let path = line.split(' ').nth(1).unwrap().to_owned();
                let to = match path.as_str() {
                    "/a/start" => "next?x=1".to_owned(),
                    "/a/next?x=1" => format!("http://127.0.0.1:{port}/away"),
                    "/round" => "/round".to_owned(),
                    "/away" => "http://0.0.0.0/".to_owned(),
                    _ => break asked,
                };
                asked.push(path);
                let answer =
                    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 3\r\n\r\nto ");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let asking = |path: &str| {
            let action = serde_json::from_value(json!({"port": port, "path": path})).unwrap();
            Target::new(&Container::default(), &action, "127.0.0.1".parse().ok()).unwrap()
        };
        let limit = Some(Duration::from_secs(5));
        let away = get(&asking("/a/start"), limit).await.unwrap();
        assert_eq!((away.code, away.body.as_str()), (302, "to "));
        let round = get(&asking("/round"), limit).await.unwrap_err();
        assert!(round.ends_with("/round\": stopped after 10 redirects"), "{round}");
        let _ = get(&asking("/end"), limit).await;
        let asked = server.await.unwrap();
        assert_eq!(asked[..3], ["/a/start", "/a/next?x=1", "/away"]);
        assert_eq!(asked.len(), 13);
    }
}
