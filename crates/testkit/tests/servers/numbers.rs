//! Cluster addresses and node ports, asked for at several servers at once.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testkit::{Server, Servers};

fn services(server: &Server) -> Api<Service> {
    Api::namespaced(server.client.clone(), "default")
}

fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

fn node_port(name: &str) -> Service {
    service(name, json!({"type": "NodePort", "ports": [{"port": 80}]}))
}

fn numbers(service: &Service) -> (String, i32) {
    let spec = service.spec.as_ref().unwrap();
    let port = spec.ports.as_ref().unwrap()[0].node_port.unwrap_or_default();
    (spec.cluster_ip.clone().unwrap(), port)
}

/// The addresses that `IPAddress` objects stand for, with their Services.
async fn claimed(server: &Server) -> BTreeSet<(String, String)> {
    let api: Api<IPAddress> = Api::all(server.client.clone());
    let list = api.list(&Default::default()).await.unwrap();
    let parent =
        |address: IPAddress| (address.metadata.name.unwrap(), address.spec.parent_ref.name);
    list.items.into_iter().map(parent).collect()
}

fn message<T: std::fmt::Debug>(result: kube::Result<T>) -> String {
    match result {
        Err(kube::Error::Api(status)) => format!("{} {}", status.code, status.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_services_are_given_the_same_number() {
    let servers = Servers::start(3).await;
    // The third hears of the others only when it asks.
    servers.all[2].link.lag(true);
    let makings = (0..60).map(|n| {
        let api = services(&servers.all[n % 3]);
        async move { api.create(&PostParams::default(), &node_port(&format!("s{n}"))).await }
    });
    let made = futures::future::try_join_all(makings).await.unwrap();
    let ips: BTreeSet<String> = made.iter().map(|service| numbers(service).0).collect();
    let ports: BTreeSet<i32> = made.iter().map(|service| numbers(service).1).collect();
    assert_eq!((ips.len(), ports.len()), (60, 60));
    let expected: BTreeSet<(String, String)> = made
        .iter()
        .map(|service| (numbers(service).0, service.metadata.name.clone().unwrap()))
        .chain([("10.43.0.1".to_owned(), "kubernetes".to_owned())])
        .collect();
    assert_eq!(claimed(&servers.all[2]).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_several_ask_for_goes_to_one_and_comes_back() {
    let servers = Servers::start(2).await;
    let [here, behind] = &servers.all[..] else { unreachable!() };
    behind.link.lag(true);
    let params = PostParams::default();
    let wanted = || {
        json!({"type": "NodePort", "clusterIP": "10.43.7.7",
        "ports": [{"port": 80, "nodePort": 30777}]})
    };
    let (one, other) = (service("one", wanted()), service("other", wanted()));
    let (apis, others) = (services(here), services(behind));
    let (first, second) = tokio::join!(apis.create(&params, &one), others.create(&params, &other));
    let refused = message(if first.is_ok() { second } else { first });
    assert!(refused.contains("provided IP is already allocated"), "{refused}");

    let winner = if services(here).get("one").await.is_ok() { "one" } else { "other" };
    // Who asks for a port alone loses it to nobody, and leaves nothing claimed behind.
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30777}]});
    let refused = message(services(behind).create(&params, &service("third", port)).await);
    assert!(refused.contains("provided port is already allocated"), "{refused}");
    assert_eq!(claimed(here).await.len(), 2, "one of the cluster's own, one of the winner");

    let plain = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    services(behind).patch(winner, &PatchParams::default(), &plain).await.unwrap();
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30777}]});
    services(here).create(&params, &service("fourth", port)).await.unwrap();
    services(behind).delete(winner, &DeleteParams::default()).await.unwrap();
    let again = json!({"clusterIP": "10.43.7.7", "ports": [{"port": 80}]});
    services(here).create(&params, &service("fifth", again)).await.unwrap();
}

#[tokio::test]
async fn what_is_refused_or_tried_claims_nothing() {
    let servers = Servers::start(2).await;
    let server = &servers.all[0];
    let before = claimed(server).await;
    let broken = service("x", json!({"type": "NodePort", "ports": [{"port": 99999}]}));
    message(services(server).create(&PostParams::default(), &broken).await);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    services(server).create(&dry, &node_port("dry")).await.unwrap();
    assert_eq!(claimed(server).await, before);
    services(server).create(&PostParams::default(), &node_port("s")).await.unwrap();
    message(services(server).create(&PostParams::default(), &node_port("s")).await);
    assert_eq!(claimed(server).await.len(), before.len() + 1);
}

/// A datastore written by an older version has Services and no claims.
#[tokio::test]
async fn services_without_claims_get_them_at_the_next_start() {
    let mut servers = Servers::start(1).await;
    let first = &servers.all[0];
    let made = services(first).create(&PostParams::default(), &node_port("old")).await.unwrap();
    let whole = claimed(first).await;
    let ips: Api<IPAddress> = Api::all(first.client.clone());
    ips.delete(&numbers(&made).0, &DeleteParams::default()).await.unwrap();
    let next = servers.add().await;
    next.api.bootstrap().await.unwrap();
    assert_eq!(claimed(next).await, whole);
    let same = json!({"clusterIP": numbers(&made).0, "ports": [{"port": 80}]});
    let refused = services(next).create(&PostParams::default(), &service("new", same)).await;
    assert!(message(refused).contains("already allocated"));
}
