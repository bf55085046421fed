//! Certificates by way of the API: a CertificateSigningRequest is made, and waited for.

use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};

use super::protocol::Refusal;

/// Signs what kubelets show to the API server.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs what kubelets show to their callers.
pub const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// How long a joining board waits for its certificate.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a certificate was not given.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// The API refused, or was away.
    #[error("asking for the certificate")]
    Api(#[source] kube::Error),
    /// It was denied, or the signer found it wrong.
    #[error("the request {name} was refused: {message}")]
    Refused {
        /// The CertificateSigningRequest.
        name: String,
        /// What its condition says.
        message: String,
    },
}

/// The client certificate of a node, asked for as that node.
pub async fn client_certificate(
    node: &Client,
    name: &str,
    request: &str,
) -> Result<String, Refusal> {
    let asked = certificate(node, name, request, CLIENT_SIGNER, "client auth");
    match tokio::time::timeout(JOIN_TIMEOUT, asked).await {
        Ok(Ok(certificate)) => Ok(certificate),
        Ok(Err(error @ CertifyError::Api(_))) => Err(Refusal::internal(&error)),
        Ok(Err(error)) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            base::chain(&error),
            "`kubectl get csr` shows what became of it",
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("nobody signed the certificate of {name} in time"),
            "see that a server leads (`kubectl -n kube-system get lease`); trying again",
        )),
    }
}

/// Makes a request and waits, without end, until there is a certificate or a refusal.
pub async fn certificate(
    client: &Client,
    node: &str,
    request: &str,
    signer: &str,
    usage: &str,
) -> Result<String, CertifyError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let csr = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: Some(format!("csr-{node}-")),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.as_bytes().to_vec()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        ..CertificateSigningRequest::default()
    };
    let made = api.create(&PostParams::default(), &csr).await.map_err(CertifyError::Api)?;
    let name = made.metadata.name.unwrap_or_default();
    let mut seen = std::pin::pin!(watch_object(api, &name));
    while let Some(seen) = seen.next().await {
        let status = match seen {
            Ok(csr) => csr.and_then(|csr| csr.status).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(csr = name, error = %base::chain(&error), "watch broke");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let against = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| matches!(condition.type_.as_str(), "Denied" | "Failed"));
        if let Some(condition) = against {
            let message = condition.message.clone().unwrap_or_default();
            return Err(CertifyError::Refused { name, message });
        }
        if let Some(ByteString(pem)) = status.certificate {
            return Ok(String::from_utf8_lossy(&pem).into_owned());
        }
    }
    Err(CertifyError::Refused { name, message: "its watch ended".to_owned() })
}
