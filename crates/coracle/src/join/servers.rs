//! The servers of the cluster, as the EndpointSlice `default/kubernetes` lists them.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};

/// Namespace of the slice.
pub const NAMESPACE: &str = "default";
/// Name of the slice.
pub const NAME: &str = "kubernetes";

/// Host and port of each server.
pub async fn list(client: &Client) -> kube::Result<Vec<String>> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    Ok(api.get_opt(NAME).await?.as_ref().map(of_slice).unwrap_or_default())
}

/// Host and port of each server in the slice.
pub fn of_slice(slice: &EndpointSlice) -> Vec<String> {
    let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or(6443);
    let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    addresses
        .map(|address| match address.contains(':') {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        })
        .collect()
}
