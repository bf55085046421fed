//! Where a Service leads: the addresses behind one of its ports, from the stored slices. This
//! server's host may have no rules for cluster IPs, so that an address of an endpoint is what
//! can be reached from everywhere.

use api::status::{Status, go_quote};
use serde_json::Value;
use store::{Page, Range, Store};

use crate::objects;

/// Host and port.
pub(crate) type Address = (String, u16);

/// The addresses behind a Service's port, which is named, numbered, or, if empty, the only one.
/// 404 without the Service, 503 where there is no such port or nobody is ready behind it.
pub(crate) fn resolve(
    store: &Store,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<Vec<Address>, Status> {
    let service = objects::object(store, "services", namespace, name)
        .ok_or_else(|| Status::not_found(("", "services"), name))?;
    let ports: Vec<&Value> = service["spec"]["ports"].as_array().into_iter().flatten().collect();
    if let Some(outside) = service["spec"]["externalName"].as_str().filter(|name| !name.is_empty())
        && service["spec"]["type"] == "ExternalName"
    {
        let number = port.parse().unwrap_or(443);
        return Ok(vec![(outside.to_owned(), number)]);
    }
    let wanted = match (port, ports.as_slice()) {
        ("", [one]) => Some(*one),
        (port, all) => all.iter().copied().find(|candidate| {
            candidate["name"].as_str().unwrap_or_default() == port
                || candidate["port"].as_u64().is_some_and(|number| number.to_string() == port)
        }),
    };
    let Some(wanted) = wanted else {
        let (port, name) = (go_quote(port), go_quote(name));
        return Err(Status::unavailable(format!(
            "no service port {port} found for service {name}"
        )));
    };
    let found = backends(store, namespace, name, wanted["name"].as_str().unwrap_or_default());
    if found.is_empty() {
        let message = format!("no endpoints available for service {}", go_quote(name));
        return Err(Status::unavailable(message));
    }
    Ok(found)
}

/// The ready addresses behind a service's port.
fn backends(store: &Store, namespace: &str, service: &str, port: &str) -> Vec<Address> {
    let range = Range { collection: "discovery.k8s.io/endpointslices", namespace: Some(namespace) };
    let Ok(slices) = store.list(range, Page::default()) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in &slices.entries {
        if entry.labels.get("kubernetes.io/service-name") != Some(service) {
            continue;
        }
        let Ok(slice) = serde_json::from_slice::<Value>(&entry.value) else { continue };
        let ports = slice["ports"].as_array().into_iter().flatten();
        let number = ports
            .filter(|candidate| candidate["name"].as_str().unwrap_or_default() == port)
            .find_map(|candidate| u16::try_from(candidate["port"].as_u64()?).ok());
        let Some(number) = number else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] != false {
                let addresses = endpoint["addresses"].as_array().into_iter().flatten();
                found.extend(
                    addresses.filter_map(|address| Some((address.as_str()?.to_owned(), number))),
                );
            }
        }
    }
    found
}
