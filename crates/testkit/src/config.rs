//! A configuration for tests, with a key made on the spot. The API server's own tests include this
//! file: they cannot use this crate, which uses theirs.

use apiserver::{Config, Limits, ServiceAccountConfig, Version};
use base64::Engine as _;

/// Defaults of a cluster of one's own. The address is one that endpoints may have.
pub fn config() -> Config {
    let random = ring::rand::SystemRandom::new();
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
    let key = base64::engine::general_purpose::STANDARD.encode(key.as_ref());
    Config {
        version: Version {
            git_version: "v1.36.0+coracle0.0.0".to_owned(),
            git_commit: String::new(),
            build_date: "2026-01-01T00:00:00Z".to_owned(),
            compiler: "rustc".to_owned(),
        },
        advertise: "192.0.2.1:6443".parse().expect("an address"),
        service_cidrs: vec!["10.43.0.0/16".parse().expect("a range")],
        node_ports: (30000, 32767),
        cluster_domain: "cluster.local".to_owned(),
        service_account: ServiceAccountConfig {
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            audiences: Vec::new(),
            signing_key_pem: format!(
                "-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"
            ),
            public_keys_pem: Vec::new(),
            max_expiration_seconds: 86400,
        },
        kubelet: None,
        client_ca_pem: String::new(),
        anonymous: false,
        tolerations: Default::default(),
        admission: Default::default(),
        access: Default::default(),
        limits: Limits::default(),
    }
}
