//! Who may come in and what is written down about it, as the binary was told.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;

use crate::audit::AuditOptions;
use crate::authn::{Anonymous, JwtAuthenticator, StaticTokens};
use crate::authz::Authorizers;
use crate::webhook::token::TokenWebhookOptions;

/// Everything about access that has a flag of its own; all of it is off by default.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// How this server proves to aggregated API servers that it is the one who asks on somebody's
    /// behalf; without it they see no client certificate.
    pub front_proxy: Option<FrontProxy>,
    /// Issuers of service-account tokens that are accepted beside the one that this server names
    /// in new ones.
    pub earlier_issuers: Vec<String>,
    /// Where relying parties find the keys of service-account tokens; below the issuer if absent.
    pub jwks_uri: Option<String>,
    /// Users by tokens of a file.
    pub static_tokens: StaticTokens,
    /// Issuers of JSON Web Tokens that are believed.
    pub jwt: Vec<JwtAuthenticator>,
    /// Which paths may be asked for without credentials; decides in the place of
    /// [`Config::anonymous`](crate::Config::anonymous) where it is there.
    pub anonymous: Option<Anonymous>,
    /// Who answers for tokens that nothing else here knows.
    pub token_webhook: Option<TokenWebhookOptions>,
    /// Who decides what is permitted.
    pub authorizers: Authorizers,
    /// What is written down of requests.
    pub audit: Option<AuditOptions>,
}

/// The certificate with which requests are passed to aggregated API servers.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// PEM of the authority that signs it, published for them in the ConfigMap
    /// `kube-system/extension-apiserver-authentication`.
    pub ca_pem: String,
    /// Shows the certificate; its common name is [`FrontProxy::NAME`].
    pub certificate: Arc<dyn ResolvesClientCert>,
}

impl FrontProxy {
    /// The only common name that aggregated API servers are told to believe.
    pub const NAME: &'static str = "system:auth-proxy";

    /// The entries of that ConfigMap: which certificate to believe, and in which headers it says
    /// who asks.
    pub fn published(ca_pem: &str) -> [(&'static str, String); 6] {
        let list = |item: &str| format!("[\"{item}\"]");
        [
            ("requestheader-allowed-names", list(Self::NAME)),
            ("requestheader-client-ca-file", ca_pem.to_owned()),
            ("requestheader-extra-headers-prefix", list("X-Remote-Extra-")),
            ("requestheader-group-headers", list("X-Remote-Group")),
            ("requestheader-uid-headers", list("X-Remote-Uid")),
            ("requestheader-username-headers", list("X-Remote-User")),
        ]
    }
}
