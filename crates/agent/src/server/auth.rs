//! Who calls: the API server by its client certificate, and administrators.

use rustls::ServerConnection;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The identity in a client's certificate. The handshake has checked the signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    name: String,
    groups: Vec<String>,
}

/// The client of a connection; nobody when it brought no certificate.
pub fn client(connection: &ServerConnection) -> Client {
    let first = connection.peer_certificates().and_then(|chain| chain.first());
    first.map(|der| parse(der)).unwrap_or_default()
}

fn parse(der: &[u8]) -> Client {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Client::default() };
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok());
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
    Client {
        name: name.unwrap_or_default().to_owned(),
        groups: groups.map(str::to_owned).collect(),
    }
}

impl Client {
    /// Whether it may use the kubelet's API: an administrator, or one of `names`.
    pub fn may_call(&self, names: &[String]) -> bool {
        self.groups.iter().any(|g| g == "system:masters")
            || (!self.name.is_empty() && names.contains(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_server_and_administrators() {
        let names = ["api".to_owned()];
        let client = |name: &str, groups: &[&str]| Client {
            name: name.into(),
            groups: groups.iter().map(|g| g.to_string()).collect(),
        };
        assert!(client("api", &[]).may_call(&names));
        assert!(client("x", &["system:masters"]).may_call(&names));
        assert!(!client("system:node:a", &["system:nodes"]).may_call(&names));
        assert!(!Client::default().may_call(&["".to_owned()]));
    }
}
