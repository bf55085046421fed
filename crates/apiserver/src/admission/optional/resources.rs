//! ExtendedResourceToleration: a pod that asks for a resource of somebody else's tolerates the
//! taint of that name, so that nodes with it can be kept for such pods.

use std::collections::BTreeSet;

use api::placement::requests::is_extended;
use serde_json::{Value, json};

use super::super::Attributes;
use super::{containers, writes_pod};
use crate::registry::{Outcome, meta};

/// Adds the tolerations.
pub(in super::super) fn admit(attributes: &Attributes<'_>, pod: &mut Value) -> Outcome<()> {
    if !writes_pod(attributes) {
        return Ok(());
    }
    let asked = containers(pod).filter(|(list, _, _)| *list != "ephemeralContainers");
    let asked = asked.filter_map(|(_, _, one)| one["resources"]["requests"].as_object());
    let names: BTreeSet<String> = asked.flat_map(|all| all.keys().cloned()).collect();
    let mut own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let before = own.len();
    for name in names.into_iter().filter(|name| is_extended(name)) {
        let toleration = json!({"key": name, "operator": "Exists"});
        if !own.contains(&toleration) {
            own.push(toleration);
        }
    }
    if own.len() > before {
        meta::member(pod, "spec").insert("tolerations".to_owned(), own.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};

    #[test]
    fn what_is_asked_for_is_tolerated() {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "x"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1", "a.org/tpu": "1"}}}]}});
        create(admit, &Few::default(), ("", "v1", "pods"), &mut pod).unwrap();
        assert_eq!(pod["spec"]["tolerations"], json!([{"key": "a.org/tpu", "operator": "Exists"}]));
    }
}
