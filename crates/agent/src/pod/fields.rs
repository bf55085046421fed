//! `fieldRef` and `resourceFieldRef`: facts about a pod, for environments and volumes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// What a pod's own object does not say about where it runs.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Addresses of the node, first the preferred one.
    pub host_ips: Vec<IpAddr>,
    /// Addresses of the pod, first the preferred one.
    pub pod_ips: Vec<IpAddr>,
    /// What the node offers: the value of a limit that a container does not set.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The value of `path` for `pod`, or a message as upstream words it.
pub fn field(pod: &Pod, place: &Place, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let owned = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((base, key)) = subscript(path) {
        let map = match base {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("invalid fieldPath {path:?}: does not support subscript")),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => owned(&meta.name),
        "metadata.namespace" => owned(&meta.namespace),
        "metadata.uid" => owned(&meta.uid),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => spec.map(|s| owned(&s.node_name)).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.map(|s| owned(&s.service_account_name)).unwrap_or_default()
        }
        "status.hostIP" => first(&place.host_ips),
        "status.hostIPs" => all(&place.host_ips),
        "status.podIP" => first(&place.pod_ips),
        "status.podIPs" => all(&place.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map(IpAddr::to_string).unwrap_or_default()
}

fn all(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// `key="value"` a line, sorted, the value quoted as Go quotes a string.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = |value: &String| serde_json::Value::from(value.as_str()).to_string();
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The value of a container's request or limit in units of the divisor, rounded up.
pub fn resource(
    pod: &Pod,
    container: &Container,
    place: &Place,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        None => container,
        Some(name) => pod
            .spec
            .iter()
            .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
            .find(|c| c.name == name)
            .ok_or_else(|| format!("container {name} not found"))?,
    };
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let set = match kind {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let own = set.and_then(|s| s.get(name));
    // Who has no limit is told its pod's, or what the node offers.
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.limits.as_ref());
    let fallback =
        || whole.and_then(|limits| limits.get(name)).or_else(|| place.allocatable.get(name));
    let Some(value) = own.or_else(|| fallback().filter(|_| kind == "limits")) else {
        return Ok("0".to_owned());
    };
    let divisor = selector.divisor.as_ref().map_or(0, quantity::millis);
    let value = match divisor {
        // Bytes may not fit in 64 bits as thousandths, so whole divisors divide whole units.
        d if d <= 0 => quantity::units(value),
        d if d % 1000 == 0 => ceil(quantity::units(value), d / 1000),
        d => ceil(quantity::millis(value), d),
    };
    Ok(value.to_string())
}

fn ceil(value: i64, divisor: i64) -> i64 {
    value.div_euclid(divisor) + i64::from(value.rem_euclid(divisor) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn facts_of_a_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"b": "x\"y", "a": "1"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {
                "requests": {"cpu": "250m"}, "limits": {"memory": "65Mi"}}}]}
        }))
        .unwrap();
        let place = Place {
            pod_ips: vec!["10.42.0.5".parse().unwrap()],
            allocatable: BTreeMap::from([("cpu".into(), Quantity("3".into()))]),
            ..Place::default()
        };
        let get = |path| field(&pod, &place, path);
        assert_eq!(get("metadata.labels['a']").unwrap(), "1");
        assert_eq!(get("metadata.labels").unwrap(), "a=\"1\"\nb=\"x\\\"y\"");
        assert_eq!(get("status.podIP").unwrap(), "10.42.0.5");
        assert!(get("spec.containers").is_err());
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let resource = |name: &str, divisor: &str| {
            let divisor = (!divisor.is_empty()).then(|| Quantity(divisor.into()));
            let selector =
                ResourceFieldSelector { resource: name.into(), divisor, ..Default::default() };
            resource(&pod, container, &place, &selector).unwrap()
        };
        assert_eq!(resource("requests.cpu", ""), "1");
        assert_eq!(resource("requests.cpu", "1m"), "250");
        assert_eq!(resource("limits.memory", "1Mi"), "65");
        assert_eq!(resource("limits.cpu", ""), "3", "the node's allocatable");
        let mut limited = pod.clone();
        let limits = json!({"limits": {"cpu": "1250m", "memory": "1Gi"}});
        limited.spec.as_mut().unwrap().resources = serde_json::from_value(limits).unwrap();
        let resource = |name: &str| {
            let selector = ResourceFieldSelector { resource: name.into(), ..Default::default() };
            super::resource(&limited, container, &place, &selector).unwrap()
        };
        assert_eq!(resource("limits.cpu"), "2", "the pod's own");
        assert_eq!(resource("limits.memory"), (65 << 20).to_string(), "the container's own");
    }
}
