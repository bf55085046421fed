//! What the API server itself does about CertificateSigningRequests: it notes who asks, reads
//! what is asked for, and lets only those approve and sign who may for that signer.

use api::resource::Resource;
use api::status::{FieldError, Status};
use base64::Engine as _;
use serde_json::{Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Outcome, meta};
use crate::admission::{Attributes as Write, Operation};
use crate::authz::{Attributes, node_name};
use crate::server::Context;
use crate::user::{MASTERS, User};

const COLLECTION: &str = "certificates.k8s.io/certificatesigningrequests";
const GROUP: &str = "certificates.k8s.io";
/// The signer whose certificates can name any group.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// The signers of node certificates.
const NODE_SIGNERS: [&str; 2] =
    ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];
const BLOCK: &str = "CERTIFICATE REQUEST";

fn concerns(resource: &Resource) -> bool {
    resource.collection() == COLLECTION
}

/// Notes on whose behalf a new request is made; what the client says of that does not count.
pub fn note_requester(resource: &Resource, object: &mut Value, user: &User) {
    if !concerns(resource) {
        return;
    }
    let spec = meta::member(object, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.shift_remove(field);
    }
    spec.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        spec.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra));
    }
}

/// What is wrong with the certificate request inside of a new object.
pub fn check_request(resource: &Resource, object: &Value, errors: &mut Vec<FieldError>) {
    if !concerns(resource) {
        return;
    }
    let request = &object["spec"]["request"];
    if let Err(why) = with_request(request, |_| ()) {
        errors.push(FieldError::invalid("spec.request", request.clone(), why));
    }
}

fn with_request<T>(
    request: &Value,
    look: impl FnOnce(&X509CertificationRequest<'_>) -> T,
) -> Result<T, String> {
    let text = request.as_str().unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let block = x509_parser::pem::Pem::iter_from_buffer(&pem).next().and_then(Result::ok);
    let block = block.filter(|block| block.label == BLOCK);
    let block = block.ok_or_else(|| format!("PEM block type must be {BLOCK}"))?;
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|error| format!("the certificate request does not parse: {error}"))?;
    Ok(look(&parsed))
}

/// Refuses a write that takes a permission on the signer which the user does not have.
pub async fn check(context: &Context, write: &Write<'_>, new: &Value) -> Outcome<()> {
    if !concerns(write.resource) {
        return Ok(());
    }
    // Of a request that is there the stored signer counts: what a write of a view says of it is
    // put back only after this.
    let signer = write.old.unwrap_or(new)["spec"]["signerName"].as_str().unwrap_or_default();
    let forbidden = |why: String| {
        let name = meta::name(new);
        Err(Status::forbidden((GROUP, "certificatesigningrequests"), name, &why))
    };
    match (write.operation, write.subresource) {
        (Operation::Create, "") if signer == CLIENT_SIGNER && names_masters(new) => {
            forbidden(format!("use of {signer} signer with {MASTERS} group is not allowed"))
        }
        (Operation::Create, "")
            if NODE_SIGNERS.contains(&signer)
                && node_name(write.user).is_some()
                && common_name(new).as_ref() != Some(&write.user.name) =>
        {
            forbidden(format!("can only create a node CSR with CN={}", write.user.name))
        }
        (Operation::Update, "approval")
            if !permitted(context, write.user, "approve", signer).await =>
        {
            forbidden(format!("user not permitted to approve requests with signerName {signer:?}"))
        }
        (Operation::Update, "status")
            if is_signed(write.old, new)
                && !permitted(context, write.user, "sign", signer).await =>
        {
            forbidden(format!("user not permitted to sign requests with signerName {signer:?}"))
        }
        _ => Ok(()),
    }
}

fn common_name(object: &Value) -> Option<String> {
    let name = |request: &X509CertificationRequest<'_>| {
        let subject = &request.certification_request_info.subject;
        subject.iter_common_name().next()?.as_str().ok().map(str::to_owned)
    };
    with_request(&object["spec"]["request"], name).ok().flatten()
}

fn names_masters(object: &Value) -> bool {
    let masters = |request: &X509CertificationRequest<'_>| {
        let subject = &request.certification_request_info.subject;
        subject.iter_organization().any(|group| group.as_str().is_ok_and(|group| group == MASTERS))
    };
    with_request(&object["spec"]["request"], masters).unwrap_or(false)
}

/// Whether a write of the status does what only a signer does.
fn is_signed(old: Option<&Value>, new: &Value) -> bool {
    let part = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        (object["status"]["certificate"].clone(), conditions)
    };
    old.is_none_or(|old| part(old) != part(new))
}

/// Whether the user has the verb on this signer, or on all of its domain.
async fn permitted(context: &Context, user: &User, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map_or("", |(domain, _)| domain);
    for name in [signer, &format!("{domain}/*")] {
        let want = Attributes { name, ..Attributes::on(user, verb, GROUP, "signers") };
        if context.decide(&want).await.allowed {
            return true;
        }
    }
    false
}
