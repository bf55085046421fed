//! Rules for what controllers and kubelets write through `status`
//! (k8s.io/kubernetes `pkg/apis/*/validation`, functions of the form `Validate*StatusUpdate`).

use super::at::{At, Errors};
use super::{formats, network};

/// Numbers of a status that are counts.
fn counts(new: &At<'_>, fields: &[&str], out: &mut Errors) {
    for field in fields {
        out.not_negative(&new.get("status").get(field));
    }
}

/// None of these counts is above the first.
fn within(new: &At<'_>, most: &str, fields: &[(&str, &str)], out: &mut Errors) {
    let limit = new.get("status").get(most).number();
    for (field, words) in fields {
        let at = new.get("status").get(field);
        if at.number() > limit {
            out.invalid_as(&at, at.number(), format!("cannot be greater than {words}"));
        }
    }
}

const REPLICAS: &str = "status.replicas";

fn replicas(new: &At<'_>, out: &mut Errors) {
    counts(
        new,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        out,
    );
    within(
        new,
        "replicas",
        &[
            ("fullyLabeledReplicas", REPLICAS),
            ("readyReplicas", REPLICAS),
            ("availableReplicas", REPLICAS),
        ],
        out,
    );
    within(new, "readyReplicas", &[("availableReplicas", "readyReplicas")], out);
}

/// A ReplicaSet or a ReplicationController.
pub(super) fn replica_set(new: &At<'_>, _: &At<'_>, out: &mut Errors) {
    replicas(new, out);
}

fn collisions(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let (now, before) = (new.get("status.collisionCount"), old.get("status.collisionCount"));
    out.not_negative(&now);
    if before.is_set() && !now.is_set() {
        out.push(crate::status::FieldError::invalid(&now.path, 0, "cannot be decremented"));
    } else if before.is_set() && now.number() < before.number() {
        out.invalid(&now, "cannot be decremented");
    }
}

/// A Deployment.
pub(super) fn deployment(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    counts(
        new,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ],
        out,
    );
    within(
        new,
        "replicas",
        &[
            ("updatedReplicas", REPLICAS),
            ("readyReplicas", REPLICAS),
            ("availableReplicas", REPLICAS),
        ],
        out,
    );
    within(new, "readyReplicas", &[("availableReplicas", "readyReplicas")], out);
    collisions(new, old, out);
}

/// A StatefulSet.
pub(super) fn stateful_set(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    counts(
        new,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        out,
    );
    within(
        new,
        "replicas",
        &[
            ("readyReplicas", REPLICAS),
            ("currentReplicas", REPLICAS),
            ("updatedReplicas", REPLICAS),
            ("availableReplicas", REPLICAS),
        ],
        out,
    );
    within(new, "readyReplicas", &[("availableReplicas", "status.readyReplicas")], out);
    collisions(new, old, out);
}

/// A DaemonSet.
pub(super) fn daemon_set(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    counts(
        new,
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
        ],
        out,
    );
    collisions(new, old, out);
}

/// A PodDisruptionBudget.
pub(super) fn budget(new: &At<'_>, _: &At<'_>, out: &mut Errors) {
    counts(new, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], out);
}

/// A Namespace ends when, and only when, it is to go.
pub(super) fn namespace(new: &At<'_>, _: &At<'_>, out: &mut Errors) {
    let phase = new.get("status.phase");
    match (new.get("metadata.deletionTimestamp").is_set(), phase.text()) {
        (false, "Active") | (true, "Terminating") => {}
        (false, text) => {
            out.invalid_as(&phase, text, "may only be 'Active' if `deletionTimestamp` is empty");
        }
        (true, text) => {
            let why = "may only be 'Terminating' if `deletionTimestamp` is not empty";
            out.invalid_as(&phase, text, why);
        }
    }
}

/// An Ingress.
pub(super) fn ingress(new: &At<'_>, _: &At<'_>, out: &mut Errors) {
    network::balancer_status(&new.get("status.loadBalancer"), out);
}

/// A Service: only one with a balancer has one to speak of.
pub(super) fn service(new: &At<'_>, _: &At<'_>, out: &mut Errors) {
    let at = new.get("status.loadBalancer");
    if new.get("spec.type").text() != "LoadBalancer" && at.get("ingress").len() > 0 {
        let why = "may only be used when `spec.type` is \"LoadBalancer\"";
        return out.forbidden(&at.get("ingress"), why);
    }
    network::balancer_status(&at, out);
}

/// A Pod.
pub(super) fn pod(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let status = new.get("status");
    let nominated = status.get("nominatedNodeName");
    if !nominated.text().is_empty() {
        out.all(&nominated, formats::dns_subdomain(nominated.text()));
    }
    for condition in status.get("conditions").items() {
        let kind = condition.get("type");
        out.all(&kind, formats::qualified_name(kind.text()));
    }
    out.not_negative(&status.get("observedGeneration"));
    let class = status.get("qosClass");
    let before = old.get("status.qosClass");
    if before.is_set() && class.value != before.value {
        out.invalid(&class, "field is immutable");
    }
    let policy = new.get("spec.restartPolicy").text();
    for list in ["containerStatuses", "initContainerStatuses"] {
        restarts(&status.get(list), &old.get("status").get(list), (policy, new), out);
    }
    for (i, ip) in status.get("podIPs").items().enumerate() {
        let address = ip.get("ip");
        for why in formats::ip(address.text()) {
            out.invalid_as(&address, address.text(), why);
        }
        let families = |at: &At<'_>| at.get("ip").text().contains(':');
        let twice =
            status.get("podIPs").items().take(i).any(|other| families(&other) == families(&ip));
        if twice && i == 1 {
            let why = "may specify no more than one IP for each IP family";
            out.invalid(&status.get("podIPs"), why);
        }
    }
}

/// A container that ended for good does not run again.
fn restarts(list: &At<'_>, old: &At<'_>, (policy, pod): (&str, &At<'_>), out: &mut Errors) {
    let lists = ["containers", "initContainers"].map(|list| pod.get("spec").get(list));
    let anew = |container: At<'_>| {
        let mut rules = container.get("restartPolicyRules").items();
        rules.any(|rule| rule.get("action").text() == "RestartAllContainers")
    };
    if policy == "Always" || lists.iter().any(|list| list.items().any(anew)) {
        return;
    }
    for before in old.items() {
        let ended = before.get("state.terminated");
        let failed = ended.get("exitCode").number() != 0;
        if !ended.is_set() || (policy == "OnFailure" && failed) {
            continue;
        }
        let name = before.get("name").text();
        let always = |container: At<'_>| {
            container.get("name").text() == name && container.get("restartPolicy").is_set()
        };
        if lists.iter().any(|list| list.items().any(always)) {
            continue;
        }
        for (i, status) in list.items().enumerate() {
            if status.get("name").text() == name && !status.get("state.terminated").is_set() {
                let at = At {
                    value: status.get("state").value,
                    path: list.path.index(i).child("state"),
                };
                out.forbidden(&at, "may not be transitioned to non-terminated state");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::status_updated;

    #[test]
    fn statuses() {
        for (collection, old, new, expected) in [
            (
                "apps/deployments",
                "status: {collisionCount: 2}",
                "status: {replicas: 1, readyReplicas: 2, availableReplicas: -1, collisionCount: 1}",
                r#"status.availableReplicas: Invalid value: -1: must be greater than or equal to 0
                   status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas
                   status.collisionCount: Invalid value: 1: cannot be decremented"#,
            ),
            (
                "apps/replicasets",
                "status: {replicas: 0}",
                "status: {replicas: 1, readyReplicas: 0, availableReplicas: 1}",
                "status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas",
            ),
            (
                "apps/statefulsets",
                "status: {}",
                "status: {replicas: 2, currentReplicas: 2, updatedReplicas: 2}",
                "",
            ),
            (
                "apps/daemonsets",
                "status: {}",
                "status: {numberReady: -1}",
                "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "namespaces",
                "status: {phase: Active}",
                "status: {phase: Terminating}",
                r#"status.phase: Invalid value: "Terminating": may only be 'Active' if `deletionTimestamp` is empty"#,
            ),
            (
                "services",
                "spec: {type: ClusterIP}",
                "{spec: {type: ClusterIP}, status: {loadBalancer: {ingress: [{ip: 1.1.1.1}]}}}",
                "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \"LoadBalancer\"",
            ),
            (
                "networking.k8s.io/ingresses",
                "spec: {}",
                "status: {loadBalancer: {ingress: [{ip: x, hostname: 1.1.1.1}]}}",
                r#"status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
                   status.loadBalancer.ingress[0].hostname: Invalid value: "1.1.1.1": must be a DNS name, not an IP address"#,
            ),
            (
                "pods",
                "{spec: {restartPolicy: Never}, status: {qosClass: Burstable, containerStatuses: [{name: a, state: {terminated: {exitCode: 1}}}]}}",
                "{spec: {restartPolicy: Never}, status: {qosClass: Guaranteed, nominatedNodeName: A, containerStatuses: [{name: a, state: {running: {}}}]}}",
                r#"status.nominatedNodeName: Invalid value: "A": a lowercase RFC 1123 subdomain…
                   status.qosClass: Invalid value: "Guaranteed": field is immutable
                   status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"#,
            ),
            (
                "pods",
                "{spec: {restartPolicy: Never, containers: [{name: a}, {name: b, restartPolicyRules: [{action: RestartAllContainers}]}]}, status: {containerStatuses: [{name: a, state: {terminated: {exitCode: 1}}}]}}",
                "{spec: {restartPolicy: Never, containers: [{name: a}, {name: b, restartPolicyRules: [{action: RestartAllContainers}]}]}, status: {containerStatuses: [{name: a, state: {running: {}}}]}}",
                "",
            ),
            (
                "policy/poddisruptionbudgets",
                "spec: {}",
                "status: {expectedPods: -1}",
                "status.expectedPods: Invalid value: -1: must be greater than or equal to 0",
            ),
        ] {
            status_updated(collection, &[(old, new, expected)]);
        }
    }
}
