//! ResourceQuota: a write that uses more of a namespace than its quotas leave is refused; what
//! it uses is noted in the quotas' status before the write. The datastore compares and swaps
//! that status, so that two servers never give the same remainder away twice. What was noted for
//! a write that then failed is found by the recount (`crate::quota`).

use api::quota::{self, Amounts};
use api::status::Status;
use base::{Clock, Quantity};
use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};

/// Collection of quotas.
pub(crate) const QUOTAS: &str = "resourcequotas";

/// A quota that is to note more.
#[derive(Debug, PartialEq)]
pub(crate) struct Charge {
    /// The quota as it was read.
    pub quota: Value,
    /// What its `status.used` becomes.
    pub used: Amounts,
}

/// Whether quotas are asked about a write at all.
pub(crate) fn concerns(attributes: &Attributes<'_>, object: &Value) -> bool {
    let collection = attributes.resource.collection();
    if attributes.namespace.is_empty() || collection == "namespaces" {
        return false;
    }
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") if collection == "pods" => {
            let old = attributes.old.is_some_and(quota::is_terminating);
            old != quota::is_terminating(object)
        }
        (Operation::Update, "") => matches!(collection, "services" | "persistentvolumeclaims"),
        (Operation::Update, "resize") => collection == "pods",
        _ => false,
    }
}

/// Whether a pod that changes counts elsewhere, or for less, than before: no charge finds that.
pub(crate) fn shifts(attributes: &Attributes<'_>, object: &Value, clock: &dyn Clock) -> bool {
    if attributes.operation != Operation::Update || attributes.resource.collection() != "pods" {
        return false;
    }
    let counted = |pod: &Value| {
        (quota::is_terminating(pod), quota::usage(attributes.resource, pod, clock.now()))
    };
    attributes.old.is_some_and(|old| counted(old) != counted(object))
}

/// What the quotas of the namespace are charged for a write, or which of them has too little
/// left.
pub(crate) fn plan(
    attributes: &Attributes<'_>,
    object: &Value,
    quotas: Vec<Value>,
    clock: &dyn Clock,
) -> Outcome<Vec<Charge>> {
    let resource = attributes.resource;
    let forbidden = |why: String| Status::forbidden(resource, meta::name(object), &why);
    let whole = quota::usage(resource, object, clock.now());
    let mut delta = whole.clone();
    let old = attributes.old.filter(|_| attributes.operation == Operation::Update);
    if let Some(old) = old {
        let before = quota::usage(resource, old, clock.now());
        for (name, amount) in &mut delta {
            *amount -= before.get(name).copied().unwrap_or_default();
        }
    }
    let mut charges = Vec::new();
    for one in quotas {
        let hard = quota::amounts(&one["status"]["hard"]);
        let used = quota::amounts(&one["status"]["used"]);
        let mut counted = hard.keys().filter(|name| quota::counts(resource, name)).peekable();
        if counted.peek().is_none() || !quota::in_scope(&one, resource, object) {
            continue;
        }
        let counted: Vec<&str> = counted.map(String::as_str).collect();
        let name = meta::name(&one);
        if resource.collection() == "pods"
            && let Some(why) = quota::unsaid(object, counted.iter().copied())
        {
            return Err(forbidden(format!("failed quota: {name}: {why}")));
        }
        if counted.iter().any(|name| !used.contains_key(*name)) {
            let names = counted.join(",");
            let why = format!("status unknown for quota: {name}, resources: {names}");
            return Err(forbidden(why));
        }
        // What comes into the quota's scopes with this change is all new to it.
        let known = old.is_none_or(|old| quota::in_scope(&one, resource, old));
        let delta = if known { &delta } else { &whole };
        let added: Amounts = delta
            .iter()
            .filter(|(name, amount)| {
                hard.contains_key(*name) && !amount.is_zero() && !amount.is_negative()
            })
            .map(|(name, amount)| (name.clone(), *amount))
            .collect();
        if added.is_empty() {
            continue;
        }
        let mut sum = used.clone();
        quota::add(&mut sum, &added);
        let over: Vec<&String> = added.keys().filter(|name| sum[*name] > hard[*name]).collect();
        if !over.is_empty() {
            let show = |amounts: &Amounts| listed(&over, amounts);
            return Err(forbidden(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                show(&added),
                show(&used),
                show(&hard)
            )));
        }
        charges.push(Charge { quota: one, used: sum });
    }
    Ok(charges)
}

fn listed(names: &[&String], amounts: &Amounts) -> String {
    let zero = Quantity::default();
    let one = |name: &&String| format!("{name}={}", amounts.get(*name).unwrap_or(&zero));
    names.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};
    use base::SystemClock;
    use serde_json::json;

    fn said(status: Value, pod: &Value) -> String {
        let cluster = Few::default();
        let quota = json!({"metadata": {"name": "q"}, "spec": {}, "status": status});
        let write = attributes(&cluster, ("", "v1", "pods"), "ns");
        match plan(&write, pod, vec![quota], &SystemClock) {
            Ok(charges) => {
                let shown = charges.iter().map(|charge| quota::to_json(&charge.used).to_string());
                shown.collect()
            }
            Err(status) => status.message,
        }
    }

    #[test]
    fn quotas_are_charged_or_refuse() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c",
            "resources": {"requests": {"cpu": "500m"}}}]}});
        for (status, expected) in [
            (json!({"hard": {"secrets": "1"}, "used": {"secrets": "1"}}), ""),
            (
                json!({"hard": {"pods": "2", "requests.cpu": "1"}, "used": {"pods": "1", "requests.cpu": "500m"}}),
                r#"{"pods":"2","requests.cpu":"1"}"#,
            ),
            (
                json!({"hard": {"pods": "5", "requests.cpu": "1"}, "used": {"pods": "1", "requests.cpu": "600m"}}),
                "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1",
            ),
            (
                json!({"hard": {"limits.memory": "1Gi"}, "used": {"limits.memory": "0"}}),
                "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: c",
            ),
            (
                json!({"hard": {"pods": "1"}}),
                "pods \"p\" is forbidden: status unknown for quota: q, resources: pods",
            ),
        ] {
            assert_eq!(said(status.clone(), &pod), expected, "{status}");
        }
    }
}
