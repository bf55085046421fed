//! What a CertificateSigningRequest asks for, and whether its signer may give it. Rules and
//! words of upstream's `pkg/apis/certificates` helpers.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::signer::Authority;

/// The signers of the cluster itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerName {
    /// Clients of the API server.
    Client,
    /// Kubelets as clients of the API server.
    KubeletClient,
    /// Kubelets' own HTTPS.
    KubeletServing,
    /// Anything, trusted by nobody.
    Legacy,
}

impl SignerName {
    /// The signer of that name, if it is one of the cluster's.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "kubernetes.io/kube-apiserver-client" => Some(SignerName::Client),
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(SignerName::KubeletClient),
            "kubernetes.io/kubelet-serving" => Some(SignerName::KubeletServing),
            "kubernetes.io/legacy-unknown" => Some(SignerName::Legacy),
            _ => None,
        }
    }

    /// Which authority signs for it.
    pub fn authority(self) -> Authority {
        match self {
            SignerName::Client | SignerName::KubeletClient => Authority::Client,
            SignerName::KubeletServing | SignerName::Legacy => Authority::Serving,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Common name of the subject.
    pub name: String,
    /// Organizations of the subject: groups.
    pub groups: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Whether e-mail addresses are named.
    pub emails: bool,
    /// Whether URIs are named.
    pub uris: bool,
    /// `spec.usages`, sorted.
    pub usages: Vec<String>,
}

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const CLIENT_USAGES: [&str; 2] = ["client auth", "digital signature"];
const SERVING_USAGES: [&str; 2] = ["digital signature", "server auth"];
const KEY_ENCIPHERMENT: &str = "key encipherment";

impl Asked {
    /// Reads a request; the error says why that is not possible.
    pub fn parse(csr: &CertificateSigningRequest) -> Result<Asked, String> {
        let block = x509_parser::pem::Pem::iter_from_buffer(&csr.spec.request.0)
            .next()
            .and_then(Result::ok)
            .filter(|block| block.label == "CERTIFICATE REQUEST")
            .ok_or("PEM block type must be CERTIFICATE REQUEST")?;
        let (_, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|error| format!("unable to parse the certificate request: {error}"))?;
        let subject = &request.certification_request_info.subject;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().map(str::to_owned).ok()
        };
        let mut usages = csr.spec.usages.clone().unwrap_or_default();
        usages.sort();
        let mut asked = Asked {
            name: subject.iter_common_name().next().and_then(text).unwrap_or_default(),
            groups: subject.iter_organization().filter_map(text).collect(),
            usages,
            ..Asked::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| asked.add(name));
            }
        }
        Ok(asked)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let ip = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.ips.extend(ip);
            }
            GeneralName::RFC822Name(_) => self.emails = true,
            // What nobody here knows is refused as a URI is.
            _ => self.uris = true,
        }
    }

    /// Whether the signer's rules allow this; the error is what upstream says.
    pub fn check(&self, signer: SignerName) -> Result<(), String> {
        match signer {
            SignerName::Legacy => Ok(()),
            SignerName::Client => self.check_client(),
            SignerName::KubeletClient => self.check_kubelet_client(),
            SignerName::KubeletServing => self.check_kubelet_serving(),
        }
    }

    fn check_client(&self) -> Result<(), String> {
        let allowed = |usage: &&String| {
            usage.as_str() == KEY_ENCIPHERMENT || CLIENT_USAGES.contains(&usage.as_str())
        };
        if !self.usages.iter().any(|usage| usage == "client auth") {
            return Err("did not contain usage \"client auth\"".into());
        }
        match self.usages.iter().find(|usage| !allowed(usage)) {
            Some(other) => Err(format!("usage {other:?} is not allowed")),
            None => Ok(()),
        }
    }

    fn check_kubelet_client(&self) -> Result<(), String> {
        self.check_node_subject()?;
        for (present, what) in [
            (!self.dns.is_empty(), "DNS subjectAltNames are not allowed"),
            (self.emails, "Email subjectAltNames are not allowed"),
            (!self.ips.is_empty(), "IP subjectAltNames are not allowed"),
            (self.uris, "URI subjectAltNames are not allowed"),
        ] {
            if present {
                return Err(what.into());
            }
        }
        self.check_usages(&CLIENT_USAGES)
    }

    fn check_kubelet_serving(&self) -> Result<(), String> {
        self.check_node_subject()?;
        if self.dns.is_empty() && self.ips.is_empty() {
            return Err("DNS or IP subjectAltName is required".into());
        }
        if self.emails {
            return Err("Email subjectAltNames are not allowed".into());
        }
        if self.uris {
            return Err("URI subjectAltNames are not allowed".into());
        }
        self.check_usages(&SERVING_USAGES)
    }

    fn check_node_subject(&self) -> Result<(), String> {
        if self.groups != [NODES] {
            return Err("subject organization is not system:nodes".into());
        }
        if self.node().is_none() {
            return Err("subject common name does not begin with system:node: ".into());
        }
        Ok(())
    }

    /// All names and addresses, as text.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.dns.iter().cloned().chain(self.ips.iter().map(ToString::to_string))
    }

    /// The node that the subject names.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|node| !node.is_empty())
    }

    fn check_usages(&self, wanted: &[&str]) -> Result<(), String> {
        let rest: Vec<&str> = self
            .usages
            .iter()
            .map(String::as_str)
            .filter(|usage| *usage != KEY_ENCIPHERMENT)
            .collect();
        if rest == wanted { Ok(()) } else { Err(format!("usages did not match {wanted:?}")) }
    }
}
