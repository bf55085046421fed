//! Where an etcd is, and how to be let in.

use std::time::Duration;

use crate::TlsFiles;

/// Below which key a cluster's data stands, unless told otherwise.
pub const DEFAULT_PREFIX: &str = "/coracle";
/// How often history is forgotten, as upstream.
const COMPACT_INTERVAL: Duration = Duration::from_secs(300);
/// Most endpoints that are taken.
pub(super) const ENDPOINTS_MAX: usize = 16;

/// An etcd and the place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdOptions {
    /// URLs of its members. The first that answers is used until it no longer does, so put
    /// the nearest first.
    pub endpoints: Vec<String>,
    /// Files for TLS.
    pub files: TlsFiles,
    /// Every key of ours begins with this and a slash; other users of the etcd must keep out.
    pub prefix: String,
    /// Whether to fall back on members that the etcd itself names, so that one is enough here.
    pub discover: bool,
    /// How long history is kept at the least.
    pub compact_interval: Duration,
}

impl EtcdOptions {
    /// An etcd at these URLs.
    pub fn new(endpoints: Vec<String>, files: TlsFiles) -> Self {
        Self {
            endpoints,
            files,
            prefix: DEFAULT_PREFIX.into(),
            discover: false,
            compact_interval: COMPACT_INTERVAL,
        }
    }

    /// Reads a list of URLs, as k3s takes it.
    pub(crate) fn parse(endpoint: &str, files: TlsFiles) -> Result<Self, String> {
        let endpoints: Vec<String> =
            endpoint.split(',').map(|url| url.trim().trim_end_matches('/').into()).collect();
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(format!("names {} members; the limit is {ENDPOINTS_MAX}", endpoints.len()));
        }
        for url in &endpoints {
            check(url)?;
        }
        let plain = endpoints.iter().find(|url| url.starts_with("http://"));
        let with_files = files.ca.is_some() || files.cert.is_some();
        if let Some(url) = plain.filter(|_| with_files) {
            return Err(format!("has certificates although {url} is not encrypted"));
        }
        Ok(Self::new(endpoints, files))
    }
}

/// Whether a URL is one of an etcd: scheme, host and nothing behind them.
fn check(url: &str) -> Result<(), String> {
    let (scheme, authority) = url.split_once("://").unwrap_or(("", url));
    if !matches!(scheme, "http" | "https") {
        return Err(format!("lists {url:?}, which begins neither with https:// nor with http://"));
    }
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.ends_with(']'));
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
        return Err(format!("lists {url:?}, which is not of the form https://HOST:PORT"));
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_)) => Err(format!("lists {url:?}, whose port is not a number")),
        _ => Ok(()),
    }
}

impl std::fmt::Display for EtcdOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "etcd at {}", self.endpoints.join(","))
    }
}
