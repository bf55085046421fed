//! Which servers `default/kubernetes` leads to.

use apiserver::Presence;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use testkit::{Server, Servers};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn announce(server: &Server, node: &str) -> (JoinHandle<()>, CancellationToken) {
    let stop = CancellationToken::new();
    let presence =
        Presence { node: node.into(), roles: vec!["control-plane".into()], agent: false };
    (tokio::spawn(server.api.clone().announce(presence, stop.clone())), stop)
}

/// The addresses by the Endpoints, and by the EndpointSlice.
async fn addresses(server: &Server) -> (Vec<String>, Vec<String>) {
    let legacy: Api<Endpoints> = Api::namespaced(server.client.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(server.client.clone(), "default");
    let legacy = legacy.get_opt("kubernetes").await.unwrap();
    let slice = slices.get_opt("kubernetes").await.unwrap();
    let subsets = legacy.and_then(|legacy| legacy.subsets).unwrap_or_default();
    let of_subsets = subsets.into_iter().flat_map(|subset| subset.addresses.unwrap_or_default());
    let endpoints = slice.and_then(|slice| slice.endpoints).unwrap_or_default();
    let of_slice = endpoints.into_iter().flat_map(|endpoint| endpoint.addresses);
    (of_subsets.map(|address| address.ip).collect(), of_slice.collect())
}

async fn until(server: &Server, wanted: &[&str]) {
    let wanted: Vec<String> = wanted.iter().map(|ip| (*ip).to_owned()).collect();
    let mut last = Default::default();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while tokio::time::Instant::now() < deadline {
        last = addresses(server).await;
        if last == (wanted.clone(), wanted.clone()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("waited in vain for {wanted:?}, found {last:?}");
}

#[tokio::test]
async fn endpoints_follow_servers_that_come_stop_and_die() {
    let servers = Servers::start(3).await;
    let [a, b, c] = &servers.all[..] else { unreachable!() };
    let (_task_a, _stop_a) = announce(a, "a");
    until(b, &["192.0.2.1"]).await;
    let (task_b, stop_b) = announce(b, "b");
    let (task_c, _stop_c) = announce(c, "c");
    until(c, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;

    // An orderly stop is known when it is over.
    stop_b.cancel();
    task_b.await.unwrap();
    assert_eq!(addresses(a).await.0, ["192.0.2.1", "192.0.2.3"]);

    // A dead server says nothing any more; the others notice.
    let died = tokio::time::Instant::now();
    task_c.abort();
    until(a, &["192.0.2.1"]).await;
    let noticed = died.elapsed().as_secs();
    assert!(noticed >= 10, "a server that may be slow disappeared after {noticed} s");
    let leases: Api<Lease> = Api::namespaced(a.client.clone(), "kube-system");
    let left = leases.list(&Default::default()).await.unwrap();
    let names: Vec<_> = left.items.iter().filter_map(|lease| lease.metadata.name.clone()).collect();
    assert_eq!(names, ["apiserver-a"]);
}
