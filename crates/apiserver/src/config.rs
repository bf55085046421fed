//! What the binary tells the API server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::access::Access;
use crate::admission::AdmissionPlugins;

/// Everything that the API server must be told; it reads no file and no environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// What `/version` answers.
    pub version: Version,
    /// Address and port at which pods reach this server (Endpoints `default/kubernetes`).
    pub advertise: SocketAddr,
    /// Ranges of cluster IPs, the primary one first. The first address of the first range
    /// is the Service `default/kubernetes`.
    pub service_cidrs: Vec<IpNet>,
    /// First and last port of the NodePort range.
    pub node_ports: (u16, u16),
    /// DNS domain of the cluster, `cluster.local`.
    pub cluster_domain: String,
    /// Issuer and keys of service-account tokens.
    pub service_account: ServiceAccountConfig,
    /// How kubelets are reached; without it logs, exec and the proxies answer 503.
    pub kubelet: Option<KubeletClient>,
    /// PEM of the authority that signs client certificates, published in the ConfigMap
    /// `kube-system/extension-apiserver-authentication`. May be empty.
    pub client_ca_pem: String,
    /// Whether a request without credentials is `system:anonymous` instead of refused.
    pub anonymous: bool,
    /// How long pods stay on a node that is lost when they say nothing.
    pub tolerations: Tolerations,
    /// Who may come in beside service accounts and client certificates.
    pub access: Access,
    /// Which admission steps there are, and how they are configured.
    pub admission: AdmissionPlugins,
    /// Upper bounds.
    pub limits: Limits,
}

impl Config {
    /// The cluster IP of the Service `default/kubernetes`: the first address behind that of the
    /// first range's network. `None` without a range.
    pub fn first_service_address(&self) -> Option<IpAddr> {
        let range = self.service_cidrs.first()?;
        // Of an IPv6 range ipnet counts the network's own address among the hosts.
        range.hosts().find(|address| *address != range.network())
    }
}

/// Kubelet-bound connections.
#[derive(Clone, Debug)]
pub struct KubeletClient {
    /// Trusts the authority of kubelet serving certificates and carries the API server's
    /// client certificate. No ALPN is needed: HTTP/1.1 is spoken.
    pub tls: Arc<rustls::ClientConfig>,
}

/// Issuer and keys of service-account tokens.
#[derive(Clone)]
pub struct ServiceAccountConfig {
    /// The `iss` claim, an https URL (`https://kubernetes.default.svc.cluster.local`).
    pub issuer: String,
    /// Audiences that this server accepts; the issuer alone where empty.
    pub audiences: Vec<String>,
    /// P-256 private key, PKCS #8 in PEM; tokens are signed with it (ES256).
    pub signing_key_pem: String,
    /// Further public keys that tokens may be signed with, SPKI in PEM (P-256 or RSA), for
    /// the time after the signing key was replaced.
    pub public_keys_pem: Vec<String>,
    /// Longest life of a token in seconds, at least 600.
    pub max_expiration_seconds: u64,
}
base::hides!(ServiceAccountConfig, issuer, audiences);

/// The tolerations that a pod gets where it has none of its own for these taints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerations {
    /// Seconds beside `node.kubernetes.io/not-ready:NoExecute`.
    pub not_ready_seconds: i64,
    /// Seconds beside `node.kubernetes.io/unreachable:NoExecute`.
    pub unreachable_seconds: i64,
}

impl Default for Tolerations {
    fn default() -> Self {
        Tolerations { not_ready_seconds: 300, unreachable_seconds: 300 }
    }
}

/// What `/version` says of the build.
#[derive(Clone, Debug)]
pub struct Version {
    /// `v1.36.x+coracle0.1.0`; major and minor are taken from it.
    pub git_version: String,
    /// Commit of the source, empty where unknown.
    pub git_commit: String,
    /// RFC 3339 time of the build or of the commit.
    pub build_date: String,
    /// The compiler that made the binary.
    pub compiler: String,
}

/// Upper bounds of the API server; each is a default that fits a small board.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Reading requests (get, list) worked on at once; further ones get 429.
    pub reads_in_flight: usize,
    /// Writing requests worked on at once; further ones get 429.
    pub writes_in_flight: usize,
    /// A request's body in bytes.
    pub body_bytes: usize,
    /// Time for a client's TLS handshake.
    pub handshake: Duration,
    /// Time for a whole request, long-running ones (watch, log, exec, proxy) excepted.
    pub request: Duration,
    /// Time that a stop waits for requests under way.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            reads_in_flight: 400,
            writes_in_flight: 200,
            body_bytes: 3 << 20,
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}

impl Version {
    /// Major and minor version as `/version` shows them.
    pub fn major_minor(&self) -> (&str, &str) {
        let mut parts = self.git_version.trim_start_matches('v').split('.');
        (parts.next().unwrap_or(""), parts.next().unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_api_has_the_first_service_address() {
        let mut config = crate::testing::config();
        for (range, expected) in [("10.43.0.0/16", "10.43.0.1"), ("fd00:43::/112", "fd00:43::1")] {
            config.service_cidrs = vec![range.parse().unwrap()];
            assert_eq!(config.first_service_address().unwrap().to_string(), expected);
        }
        config.service_cidrs.clear();
        assert_eq!(config.first_service_address(), None);
    }

    #[test]
    fn the_version_is_split() {
        let version = crate::testing::config().version;
        assert_eq!(version.major_minor(), ("1", "36"));
    }
}
