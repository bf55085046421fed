//! Whether a pod that has come to this node may run here: the last word, which the kubelet has. It counts for
//! pods that name their node themselves, and where the scheduler did not know yet what has changed. Pure;
//! order, reasons and wording are upstream's.

use api::placement::ports::{HostPort, host_ports};
use api::placement::requests::{self, Resources, Shortage};
use api::placement::{node_matches, reason, tolerates};
use api::sysctl::{self, Namespace};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint};

use super::qos::{Qos, is_critical};
use super::status::Verdict;
use super::view::spec;

/// Label of pods and nodes that names an operating system.
const OS_LABEL: &str = "kubernetes.io/os";
/// The operating system here.
const OS: &str = "linux";

/// What a pod comes to.
pub struct Board<'a> {
    /// The node as last seen.
    pub node: &'a Node,
    /// Pods that have been let in and have not ended.
    pub others: &'a [&'a PodSpec],
    /// Settings of the kernel that pods may change beside the safe ones, or patterns of them.
    pub unsafe_sysctls: &'a [String],
}

/// A pod at the door.
struct Visit<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    board: &'a Board<'a>,
}

type Check = fn(&Visit) -> Option<(String, String)>;

/// In this order, with the room between them; the first that says no is told.
const CHECKS: (&[Check], &[Check]) =
    (&[pressure, sysctls, os_label, os_field], &[affinity, ports, taints]);

/// Why `pod` cannot run on `board`.
pub fn refusal(pod: &Pod, board: &Board) -> Option<Verdict> {
    let visit = Visit { pod, spec: spec(pod), board };
    let (before, after) = CHECKS;
    let mut checks = before.iter().chain(&[fits as Check]).chain(after);
    let (reason, message) = checks.find_map(|check| check(&visit))?;
    Some(Verdict { reason, message })
}

/// What a pod that the node leans on lacks here, where nothing else is against it.
pub fn lacks_room_only(pod: &Pod, board: &Board) -> Option<Vec<Shortage>> {
    let visit = Visit { pod, spec: spec(pod), board };
    let (before, after) = CHECKS;
    let mut others = before.iter().chain(after);
    let free = is_critical(pod) && others.all(|check| check(&visit).is_none());
    free.then(|| lacks(visit.spec, board.node, board.others))
}

fn no(reason: &str, message: &str) -> (String, String) {
    (reason.to_owned(), message.to_owned())
}

fn predicate(name: &str, why: &str) -> (String, String) {
    (name.to_owned(), format!("Predicate {name} failed: {why}"))
}

/// What makes a shortage worse is kept out: all pods where the disk is short, and where memory alone is,
/// those that promise nothing about theirs.
fn pressure(visit: &Visit) -> Option<(String, String)> {
    let conditions = visit.board.node.status.as_ref()?.conditions.as_deref()?;
    let short: Vec<&str> = conditions
        .iter()
        .filter(|condition| condition.status == "True" && condition.type_.ends_with("Pressure"))
        .map(|condition| condition.type_.as_str())
        .collect();
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let bears_memory = || {
        let tolerations = visit.spec.tolerations.as_deref().unwrap_or_default();
        Qos::of(visit.pod) != Qos::BestEffort
            || tolerations.iter().any(|toleration| tolerates(toleration, &taint))
    };
    if short.is_empty() || is_critical(visit.pod) || short == ["MemoryPressure"] && bears_memory() {
        return None;
    }
    Some(no("Evicted", &format!("The node had condition: [{}]. ", short.join(" "))))
}

fn sysctls(visit: &Visit) -> Option<(String, String)> {
    let allowed = |name: &str| {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        sysctl::safe_since(name).is_some() || visit.board.unsafe_sysctls.iter().any(matches)
    };
    let why = |name: &str| match sysctl::namespace(name) {
        _ if !allowed(name) => Some("not allowlisted"),
        Some(Namespace::Ipc) if visit.spec.host_ipc == Some(true) => {
            Some("not allowed with host ipc enabled")
        }
        Some(Namespace::Net) if visit.spec.host_network == Some(true) => {
            Some("not allowed with host net enabled")
        }
        _ => None,
    };
    let wanted = visit.spec.security_context.as_ref()?.sysctls.as_ref()?;
    let mut names = wanted.iter().map(|wanted| sysctl::normalized(&wanted.name));
    let message =
        names.find_map(|name| Some(format!("forbidden sysctl: {name:?} {}", why(&name)?)))?;
    Some(no("SysctlForbidden", &message))
}

fn os_label(visit: &Visit) -> Option<(String, String)> {
    let wanted = visit.pod.metadata.labels.as_ref()?.get(OS_LABEL)?;
    let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
    (wanted != OS).then(|| no("PodOSSelectorNodeLabelDoesNotMatch", message))
}

fn os_field(visit: &Visit) -> Option<(String, String)> {
    let wanted = &visit.spec.os.as_ref()?.name;
    let message = "Failed to admit pod as the OS field doesn't match node OS";
    (wanted != OS).then(|| no("PodOSNotSupported", message))
}

fn fits(visit: &Visit) -> Option<(String, String)> {
    room(visit.spec, visit.board.node, visit.board.others)
}

/// What `node` has not enough of for a pod beside the others, in upstream's words.
pub(super) fn room(spec: &PodSpec, node: &Node, others: &[&PodSpec]) -> Option<(String, String)> {
    let short = lacks(spec, node, others);
    let Shortage { name, requested, used, capacity } = short.into_iter().next()?;
    let message = format!(
        "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: \
         {capacity}"
    );
    Some((format!("OutOf{name}"), message))
}

/// What `node` has not enough of for a pod beside the others.
fn lacks(spec: &PodSpec, node: &Node, others: &[&PodSpec]) -> Vec<Shortage> {
    let allocatable = requests::allocatable(node);
    if allocatable.0.is_empty() {
        // A Node that has just been made, of which nothing is known yet.
        return Vec::new();
    }
    let mut asked = requests::requests(spec);
    // What no node advertises may be the whole cluster's, and somebody else counts it.
    asked.0.retain(|name, _| !requests::is_extended(name) || allocatable.0.contains_key(name));
    let mut used = Resources::default();
    others.iter().for_each(|other| used += &requests::requests(other));
    requests::shortages(&asked, &used, others.len(), &allocatable)
}

fn affinity(visit: &Visit) -> Option<(String, String)> {
    let fits = node_matches(visit.spec, visit.board.node);
    (!fits).then(|| predicate("NodeAffinity", reason::NODE_AFFINITY))
}

fn ports(visit: &Visit) -> Option<(String, String)> {
    let wanted = host_ports(visit.spec);
    let taken = |port: &HostPort| wanted.iter().any(|wanted| wanted.clashes(port));
    let clash = !wanted.is_empty()
        && visit.board.others.iter().any(|other| host_ports(other).iter().any(taken));
    clash.then(|| predicate("NodePorts", reason::NODE_PORTS))
}

fn taints(visit: &Visit) -> Option<(String, String)> {
    let tolerations = visit.spec.tolerations.as_deref().unwrap_or_default();
    let taints = visit.board.node.spec.as_ref()?.taints.as_deref()?;
    let untolerated = taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .any(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)));
    let why = "node(s) had taints that the pod didn't tolerate";
    untolerated.then(|| predicate("TaintToleration", why))
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
