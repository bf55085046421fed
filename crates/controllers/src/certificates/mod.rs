//! CertificateSigningRequests: approved where the cluster may do that by itself, signed, and
//! cleared away when nobody needs them any more.

mod approve;
mod request;
mod sign;
#[cfg(test)]
mod tests;

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile};

/// Approved, denied or failed requests are kept for so long, as upstream keeps them.
const DECIDED_KEPT: SignedDuration = SignedDuration::from_hours(1);
/// Requests that nobody decided on, and approved ones that nobody signs.
const UNDECIDED_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Approves requests for node certificates.
pub const APPROVER: Controller = Controller {
    name: "certificatesigningrequest-approving-controller",
    watches: |watches| {
        watches.own::<CertificateSigningRequest>();
        watches.map::<Node>(|world, node| {
            let user = format!("system:node:{}", node.name_any());
            let requests = world.list::<CertificateSigningRequest>("");
            let of_node = requests.iter().filter(|csr| csr.spec.username.as_ref() == Some(&user));
            of_node.map(|csr| Key::of(csr.as_ref())).collect()
        });
    },
    reconcile: Reconcile::Live(|hub, key| approve::reconcile(hub, key).boxed()),
};

/// Signs approved requests.
pub const SIGNER: Controller = Controller {
    name: "certificatesigningrequest-signing-controller",
    watches: |watches| watches.own::<CertificateSigningRequest>(),
    reconcile: Reconcile::Live(|hub, key| sign::reconcile(hub, key).boxed()),
};

/// Removes requests whose time is over.
pub const CLEANER: Controller = Controller {
    name: "certificatesigningrequest-cleaner-controller",
    watches: |watches| watches.own::<CertificateSigningRequest>(),
    reconcile: Reconcile::Plan(plan_removal),
};

fn plan_removal(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(csr) = cx.world.get::<CertificateSigningRequest>("", &key.name) else { return plan };
    let due = due(&csr);
    if due <= cx.now {
        plan.push([Action::delete(csr.as_ref(), None)]);
    } else {
        plan.look_again(due);
    }
    plan
}

/// When nobody needs the request any more.
fn due(csr: &CertificateSigningRequest) -> Timestamp {
    let status = csr.status.clone().unwrap_or_default();
    let made = csr.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    let since = |kind: &str| {
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == kind)?;
        Some(condition.last_update_time.as_ref().map_or(made, |time| time.0))
    };
    let after = |at: Timestamp, kept| at.saturating_add(kept).unwrap_or(at);
    if let Some(at) = since("Denied").or_else(|| since("Failed")) {
        return after(at, DECIDED_KEPT);
    }
    match (since("Approved"), &status.certificate) {
        (Some(at), Some(_)) => after(at, DECIDED_KEPT),
        (Some(at), None) => after(at, UNDECIDED_KEPT),
        (None, _) => after(made, UNDECIDED_KEPT),
    }
}
