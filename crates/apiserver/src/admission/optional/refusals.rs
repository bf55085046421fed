//! Steps that only refuse: AlwaysDeny, DenyServiceExternalIPs and
//! LimitPodHardAntiAffinityTopology.

use api::status::Status;
use serde_json::Value;

use super::super::{Attributes, Operation};
use super::writes_pod;
use crate::registry::{Outcome, meta};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Nothing is written.
pub(in super::super) fn deny(attributes: &Attributes<'_>, _: &Value) -> Outcome<()> {
    let why = "admission control is denying all modifications";
    Err(Status::forbidden(attributes.resource, attributes.name, why))
}

/// Nobody takes an address of the network for a Service.
pub(in super::super) fn external_addresses(
    attributes: &Attributes<'_>,
    service: &Value,
) -> Outcome<()> {
    let written = attributes.is(Operation::Create, "services")
        || attributes.is(Operation::Update, "services");
    let addresses = |service: &Value| meta::strings(&service["spec"]["externalIPs"]);
    let had = attributes.old.map(addresses).unwrap_or_default();
    if written && addresses(service).iter().any(|address| !had.contains(address)) {
        let why = "Use of external IPs is denied by admission control";
        return Err(Status::forbidden(attributes.resource, meta::name(service), why));
    }
    Ok(())
}

/// A pod keeps others off its node, not off whole zones.
pub(in super::super) fn hard_anti_affinity(
    attributes: &Attributes<'_>,
    pod: &Value,
) -> Outcome<()> {
    let terms = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let keys = terms.as_array().into_iter().flatten().map(|term| &term["topologyKey"]);
    match keys.filter_map(Value::as_str).find(|key| *key != HOSTNAME) {
        Some(key) if writes_pod(attributes) => {
            let why = format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
            );
            Err(Status::forbidden(attributes.resource, meta::name(pod), &why))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};
    use serde_json::json;

    #[test]
    fn they_refuse_what_they_are_about() {
        let cluster = Few::default();
        let write = attributes(&cluster, ("", "v1", "services"), "x");
        assert!(
            external_addresses(&write, &json!({"spec": {"externalIPs": ["192.0.2.1"]}})).is_err()
        );
        assert!(external_addresses(&write, &json!({"spec": {}})).is_ok());
        let write = attributes(&cluster, ("", "v1", "pods"), "x");
        let pod = |key: &str| {
            json!({"spec": {"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key}]}}}})
        };
        assert!(hard_anti_affinity(&write, &pod("zone")).is_err());
        assert!(hard_anti_affinity(&write, &pod(HOSTNAME)).is_ok());
    }
}
