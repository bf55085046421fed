//! One HTTP GET, as probes and hooks make it: a connection of its own, only the status counts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{dial, insecure, port_number};

/// Longest status line that is read, in bytes.
const MAX_STATUS_LINE_BYTES: usize = 1024;

/// What to ask for.
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

/// Asks and gives the status code.
pub async fn get(target: &Target, limit: Option<Duration>) -> Result<u16, String> {
    let told = |text: String| format!("Get {:?}: {text}", target.url());
    match limit {
        None => exchange(target).await.map_err(told),
        Some(limit) => match tokio::time::timeout(limit, exchange(target)).await {
            Ok(result) => result.map_err(told),
            Err(_) => Err(told(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    .to_owned(),
            )),
        },
    }
}

async fn exchange(target: &Target) -> Result<u16, String> {
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
) -> Result<u16, String> {
    stream.write_all(target.request().as_bytes()).await.map_err(|error| error.to_string())?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < MAX_STATUS_LINE_BYTES {
        match stream.read_buf(&mut line).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(format!("read tcp: {error}")),
        }
    }
    if line.is_empty() {
        return Err("EOF".to_owned());
    }
    let text = String::from_utf8_lossy(&line);
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
        assert_eq!(get(&target, Some(Duration::from_secs(5))).await, Ok(503));
        let seen = server.await.unwrap();
        assert!(
            seen.starts_with("GET /health HTTP/1.1\r\n") && seen.contains("host: x\r\n"),
            "{seen}"
        );
        assert!(!seen.contains("Host:"), "{seen}");
        let refused = get(&target, Some(Duration::from_secs(5))).await.unwrap_err();
        assert!(refused.ends_with("connect: connection refused"), "{refused}");
    }
}
