//! Which host to ask for an image, and how: `registries.yaml` in the form k3s users know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Error, RegistryAuth, Result};

/// Largest file read.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The file's content.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Registries {
    /// Hosts to ask instead, by registry; `*` is for all others.
    pub mirrors: BTreeMap<String, Mirror>,
    /// How to talk to a host.
    pub configs: BTreeMap<String, HostConfig>,
}

/// Hosts to ask instead of a registry, in this order, the registry itself last.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mirror {
    /// URLs, or plain hosts.
    pub endpoint: Vec<String>,
}

/// How to talk to a host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// Credentials.
    pub auth: Option<Auth>,
    /// Trust.
    pub tls: Option<Tls>,
}

/// Credentials of a host.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Base64 of `user:password`.
    pub auth: String,
}
base::hides!(Auth, username);

/// Trust in a host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// PEM file with authorities.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// A place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and perhaps port.
    pub host: String,
    /// Talk HTTP without TLS.
    pub plain: bool,
}

impl Registries {
    /// Reads the file; one that does not exist says nothing.
    ///
    /// # Errors
    /// An unreadable or malformed file.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Ok(meta) if meta.len() > FILE_LIMIT_BYTES => {
                return Err(Error::Invalid(format!("{}: larger than 1 MiB", path.display())));
            }
            _ => std::fs::read_to_string(path)
                .map_err(Error::io(format!("reading {}", path.display())))?,
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text)
            .map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))
    }

    /// Where to ask for images of a registry, in order.
    pub fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        let mut all: Vec<Endpoint> =
            mirror.map(|m| m.endpoint.iter().map(|e| endpoint(e)).collect()).unwrap_or_default();
        let own = endpoint(registry);
        if !all.iter().any(|e| e.host == own.host) {
            all.push(own);
        }
        all
    }

    /// Credentials for a host or, failing that, its registry's name.
    pub fn auth(&self, host: &str, registry: &str) -> RegistryAuth {
        let auth = [host, registry].iter().find_map(|n| self.configs.get(*n)?.auth.as_ref());
        let Some(auth) = auth else { return RegistryAuth::Anonymous };
        let packed = || {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(&auth.auth).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            text.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned()))
        };
        match packed() {
            Some((username, password)) => RegistryAuth::Basic { username, password },
            None if auth.username.is_empty() => RegistryAuth::Anonymous,
            None => RegistryAuth::Basic {
                username: auth.username.clone(),
                password: auth.password.clone(),
            },
        }
    }

    /// Trust settings of a host.
    pub fn tls(&self, host: &str) -> Tls {
        self.configs.get(host).and_then(|c| c.tls.clone()).unwrap_or_default()
    }
}

/// A URL or plain host; loopback hosts are talked to without TLS, as Docker does.
fn endpoint(text: &str) -> Endpoint {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let host = rest.split('/').next().unwrap_or(rest).to_owned();
    let plain = match scheme {
        Some(scheme) => scheme == "http",
        None => is_loopback(&host),
    };
    Endpoint { host, plain }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let registries: Registries = serde_saphyr::from_str(
            "mirrors:\n  docker.io:\n    endpoint:\n      - https://m.example:5000\n      - http://10.0.0.2\n\
             configs:\n  m.example:5000:\n    auth:\n      username: u\n      password: p\n",
        )
        .unwrap();
        let show = |registry| -> Vec<String> {
            let all = registries.endpoints(registry);
            all.iter()
                .map(|e| format!("{}{}", if e.plain { "http:" } else { "" }, e.host))
                .collect()
        };
        assert_eq!(show("docker.io"), ["m.example:5000", "http:10.0.0.2", "docker.io"]);
        assert_eq!(show("127.0.0.1:5000"), ["http:127.0.0.1:5000"]);
        assert_eq!(show("localhost:5000"), ["http:localhost:5000"]);
        assert_eq!(show("[::1]:5000"), ["http:[::1]:5000"]);
        assert_eq!(show("ghcr.io"), ["ghcr.io"]);
        let want = RegistryAuth::Basic { username: "u".into(), password: "p".into() };
        assert_eq!(registries.auth("m.example:5000", "docker.io"), want);
    }
}
