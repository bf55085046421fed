//! Approves what a cluster may approve by itself: node certificates, for bootstrappers and for
//! the node itself as far as RBAC lets them, and serving certificates for a node's own names.
//!
//! Upstream leaves serving certificates to a person, since its API server cannot know a node's
//! names. Here they are the Node's own addresses, and a node writes no Node but its own. Since a
//! node says itself what its addresses are, those of servers are none of them.

use std::net::IpAddr;
use std::sync::Arc;

use client::Outcome;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::request::{Asked, SignerName};
use crate::carry_out::FIELD_MANAGER;
use crate::context::Key;
use crate::driver::Hub;

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is not for this controller, or decided already.
    Pass,
    /// It would be approved if the Node, or its absence, said so; what is in the way.
    Wait(String),
    /// It is approved, if its requester may create this subresource.
    IfAllowed(&'static str, &'static str),
    /// It is approved.
    Approve(&'static str),
}

/// Decides on a request, from the Node that it is about and from whether a name or an address is
/// that of a server on another node than the first.
pub fn judge(
    csr: &CertificateSigningRequest,
    node: impl FnOnce(&str) -> Option<Arc<Node>>,
    is_server: impl Fn(&str, &str) -> bool,
) -> Verdict {
    let status = csr.status.clone().unwrap_or_default();
    let decided =
        |c: &CertificateSigningRequestCondition| matches!(c.type_.as_str(), "Approved" | "Denied");
    if status.certificate.is_some() || status.conditions.iter().flatten().any(decided) {
        return Verdict::Pass;
    }
    let Some(signer) = SignerName::of(&csr.spec.signer_name) else { return Verdict::Pass };
    let Ok(asked) = Asked::parse(csr) else { return Verdict::Pass };
    if asked.check(signer).is_err() {
        return Verdict::Pass;
    }
    let own = csr.spec.username.as_deref() == Some(&asked.name);
    match signer {
        SignerName::KubeletClient if own => Verdict::IfAllowed(
            "selfnodeclient",
            "Auto approving self kubelet client certificate after SubjectAccessReview.",
        ),
        SignerName::KubeletClient => match asked.node().and_then(node) {
            // A token must not be enough to take the name of a board that is there already.
            Some(taken) if !is_administrator(csr) => {
                Verdict::Wait(format!("there is a node {} already", taken.name_any()))
            }
            _ => Verdict::IfAllowed(
                "nodeclient",
                "Auto approving kubelet client certificate after SubjectAccessReview.",
            ),
        },
        SignerName::KubeletServing if own && is_node(csr) => {
            let name = asked.node().unwrap_or_default();
            let posed = asked.names().find(|what| is_server(name, what));
            let posed = posed.map(|what| format!("{what} is a server's"));
            match posed.or_else(|| foreign(&asked, name, node(name).as_deref())) {
                None => Verdict::Approve(
                    "Auto approving kubelet serving certificate for the node's own names and addresses.",
                ),
                Some(what) => Verdict::Wait(what),
            }
        }
        _ => Verdict::Pass,
    }
}

fn is_node(csr: &CertificateSigningRequest) -> bool {
    csr.spec.groups.iter().flatten().any(|group| group == "system:nodes")
}

fn is_administrator(csr: &CertificateSigningRequest) -> bool {
    csr.spec.groups.iter().flatten().any(|group| group == "system:masters")
}

fn is_control_plane(node: &Node) -> bool {
    node.labels().contains_key("node-role.kubernetes.io/control-plane")
}

/// Whether this is the node's name or one of its addresses.
fn is_named(node: &Node, what: &str) -> bool {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    node.metadata.name.as_deref() == Some(what)
        || addresses.into_iter().flatten().any(|address| address.address == what)
}

/// What the request names that is not the node's.
fn foreign(asked: &Asked, name: &str, node: Option<&Node>) -> Option<String> {
    let Some(node) = node else { return Some(format!("there is no node {name}")) };
    let addresses = node.status.as_ref().and_then(|status| status.addresses.clone());
    let addresses = addresses.unwrap_or_default();
    let is_own_name = |dns: &str| {
        dns == name || addresses.iter().any(|a| a.type_ != "InternalIP" && a.address == dns)
    };
    let is_own_ip =
        |ip: &IpAddr| addresses.iter().any(|a| a.address.parse::<IpAddr>().as_ref() == Ok(ip));
    let dns = asked.dns.iter().find(|dns| !is_own_name(dns)).cloned();
    let ip = || asked.ips.iter().find(|ip| !is_own_ip(ip)).map(ToString::to_string);
    dns.or_else(ip).map(|what| format!("node {name} has no address {what}"))
}

/// Approves a request if that may be done.
pub async fn reconcile(hub: Arc<Hub>, key: Key) -> kube::Result<Outcome> {
    let Some(csr) = hub.world.get::<CertificateSigningRequest>("", &key.name) else {
        return Ok(Outcome::Done);
    };
    let servers = hub.world.list::<Node>("");
    let is_server = |own: &str, what: &str| {
        let known = hub.config.server_names.iter().any(|name| name.eq_ignore_ascii_case(what));
        let mut others = servers.iter().filter(|node| is_control_plane(node));
        known || others.any(|node| node.name_any() != own && is_named(node, what))
    };
    match judge(&csr, |node| hub.world.get::<Node>("", node), is_server) {
        Verdict::Pass => return Ok(Outcome::Done),
        Verdict::Wait(lacking) => {
            // A change of the Node wakes this key again.
            tracing::debug!(csr = key.name, lacking, "certificate not approved");
            return Ok(Outcome::Done);
        }
        Verdict::IfAllowed(subresource, message) => {
            if !is_allowed(&hub, &csr, subresource).await? {
                tracing::info!(
                    csr = key.name,
                    subresource,
                    user = csr.spec.username,
                    "recognized a request for a node certificate, but its requester may not have it approved"
                );
                return Ok(Outcome::Retry);
            }
            approve(&hub, &csr, message).await?;
        }
        Verdict::Approve(message) => approve(&hub, &csr, message).await?,
    }
    Ok(Outcome::Done)
}

async fn is_allowed(
    hub: &Hub,
    csr: &CertificateSigningRequest,
    subresource: &str,
) -> kube::Result<bool> {
    let text = |text: &str| Some(text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: text("certificates.k8s.io"),
                resource: text("certificatesigningrequests"),
                verb: text("create"),
                subresource: text(subresource),
                version: text("*"),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(hub.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn approve(hub: &Hub, csr: &CertificateSigningRequest, message: &str) -> kube::Result<()> {
    let mut conditions =
        csr.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Approved".into(),
        status: "True".into(),
        reason: Some("AutoApproved".into()),
        message: Some(message.into()),
        last_update_time: Some(Time(Timestamp::now())),
        last_transition_time: None,
    });
    let patch = json!({
        "metadata": {"resourceVersion": csr.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    let name = csr.metadata.name.as_deref().unwrap_or_default();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
    let api: Api<CertificateSigningRequest> = Api::all(hub.client.clone());
    api.patch_approval(name, &params, &Patch::Merge(patch)).await.map(drop)
}
