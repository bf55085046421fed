//! Labels of nodes that are servers. A server says in its Lease which node it runs on and which
//! roles it has; nodes may not give themselves a role (NodeRestriction).

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use crate::action::{Action, Plan};
use crate::context::{Cx, Key};
use crate::driver::{Controller, Reconcile, Watches};

const LEASES: &str = "kube-system";
const IDENTITY: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
const HOSTNAME: &str = "kubernetes.io/hostname";
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

/// Gives nodes the roles that servers on them announce. It takes none away: a server that is
/// silent is still a server, and whoever removes one removes its Node.
pub const NODE_ROLES: Controller =
    Controller { name: "node-role-controller", watches, reconcile: Reconcile::Plan(plan) };

fn watches(watches: &mut Watches) {
    watches.map::<Node>(|world, node| {
        let name = node.name_any();
        let new = world.get::<Node>("", &name).is_some_and(|node| !has_roles(&node));
        new.then(|| Key::new("", name)).into_iter().collect()
    });
    watches
        .map::<Lease>(|_, lease| server_node(lease).map(|n| Key::new("", n)).into_iter().collect());
}

fn has_roles(node: &Node) -> bool {
    node.labels().keys().any(|label| label.starts_with(ROLE_PREFIX))
}

/// The node of the server whose Lease this is, if it is one.
fn server_node(lease: &Lease) -> Option<&str> {
    let labels = lease.labels();
    let own = lease.namespace().as_deref() == Some(LEASES)
        && labels.get(IDENTITY.0).is_some_and(|value| value == IDENTITY.1);
    labels.get(HOSTNAME).filter(|_| own).map(String::as_str)
}

fn plan(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = cx.world.get::<Node>("", &key.name) else { return plan };
    let mut labelled = node.as_ref().clone();
    for lease in cx.world.list::<Lease>(LEASES) {
        if server_node(&lease) == Some(&key.name) {
            let roles = lease.labels().iter().filter(|(name, _)| name.starts_with(ROLE_PREFIX));
            labelled.labels_mut().extend(roles.map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    if labelled.labels() != node.labels() {
        plan.push(Action::change(node.as_ref(), &labelled, ""));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::check;

    #[test]
    fn servers_are_labelled_by_what_they_announce() {
        let world = |namespace: &str, labels: &str| {
            format!(
                "kind: Node\nmetadata: {{name: pi, labels: {labels}}}\n---\nkind: Lease\nmetadata: {{name: apiserver-pi, namespace: {namespace}, labels: {{apiserver.kubernetes.io/identity: kube-apiserver, kubernetes.io/hostname: pi, node-role.kubernetes.io/control-plane: 'true', node-role.kubernetes.io/etcd: 'true'}}}}"
            )
        };
        let expected = r#"patch Node pi {"metadata":{"labels":{"node-role.kubernetes.io/control-plane":"true","node-role.kubernetes.io/etcd":"true"}}}"#;
        check(&NODE_ROLES, "pi", &world("kube-system", "{disk: ssd}"), expected);
        // Nodes may write Leases of their own, elsewhere.
        check(&NODE_ROLES, "pi", &world("kube-node-lease", "{disk: ssd}"), "");
        let both =
            "{node-role.kubernetes.io/control-plane: 'true', node-role.kubernetes.io/etcd: 'true'}";
        check(&NODE_ROLES, "pi", &world("kube-system", both), "");
    }
}
