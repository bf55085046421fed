use std::fmt;
use std::time::Duration;

/// Which of the cluster's authorities signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The one that the API server trusts for client certificates.
    Client,
    /// The one that the API server trusts for kubelets' serving certificates.
    Serving,
}

/// A certificate that was approved, and whose content its signer's rules allow.
#[derive(Clone, Copy, Debug)]
pub struct SigningRequest<'a> {
    /// The PKCS #10 request in PEM. Nobody has checked its own signature yet.
    pub pem: &'a str,
    /// Who signs.
    pub authority: Authority,
    /// `spec.usages`, such as `client auth`.
    pub usages: &'a [String],
    /// How long the certificate may be good for from now; a signer may make it shorter, and
    /// dates it back by a few minutes for clocks that are behind.
    pub life: Duration,
}

/// Signs certificates with the cluster's authorities.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The certificate in PEM. The error says what is wrong with the request or the authority.
    fn sign(&self, request: &SigningRequest<'_>) -> Result<String, String>;
}
