use std::io::ErrorKind;

use super::*;
use crate::linux::firewall::Recorder;

fn model(endpoint: &str) -> ServiceModel {
    let service = Service {
        cluster_ips: vec!["10.43.0.80".parse().unwrap()],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            endpoints: vec![Endpoint {
                address: endpoint.parse().unwrap(),
                local: false,
                state: EndpointState::Ready,
            }],
        }],
        ..Service::new("default", "web")
    };
    ServiceModel { services: vec![service], host_ports: Vec::new() }
}

/// The kinds of changes of each transaction.
fn kinds(recorder: &Recorder) -> Vec<String> {
    let commits = recorder.commits.lock().unwrap();
    let kind = |change: &Change| format!("{change:?}").split([' ', '{']).next().unwrap().to_owned();
    commits
        .iter()
        .map(|changes| {
            let mut kinds: Vec<String> = changes.iter().map(kind).collect();
            kinds.dedup();
            kinds.join(" ")
        })
        .collect()
}

#[tokio::test]
async fn sends_all_once_then_differences_then_nothing() {
    let recorder = Recorder::default();
    let mut proxy = ServiceProxy::with_firewall(ProxyConfig::default(), Box::new(recorder.clone()));
    proxy.apply(&model("10.42.1.5:80")).await.unwrap();
    proxy.apply(&model("10.42.1.5:80")).await.unwrap();
    proxy.apply(&model("10.42.1.6:80")).await.unwrap();
    proxy.apply(&ServiceModel::default()).await.unwrap();
    assert_eq!(
        kinds(&recorder),
        [
            "ResetTable AddSet AddChain AddElements AddRule",
            "FlushChain AddRule",
            "FlushChain DeleteElements DeleteChain",
        ]
    );
}

#[tokio::test]
async fn a_difference_that_is_refused_is_followed_by_the_whole() {
    let recorder = Recorder::default();
    let mut proxy = ServiceProxy::with_firewall(ProxyConfig::default(), Box::new(recorder.clone()));
    proxy.apply(&model("10.42.1.5:80")).await.unwrap();
    recorder.failures.lock().unwrap().push(ErrorKind::NotFound);
    proxy.apply(&model("10.42.1.6:80")).await.unwrap();
    let whole = "ResetTable AddSet AddChain AddElements AddRule";
    assert_eq!(kinds(&recorder), [whole, "FlushChain AddRule", whole]);
    // Refused twice: the caller hears of it, and the next call starts from nothing.
    recorder.failures.lock().unwrap().extend([ErrorKind::InvalidInput, ErrorKind::NotFound]);
    let error = proxy.apply(&model("10.42.1.7:80")).await.unwrap_err();
    assert_eq!(error.to_string(), "loading services in nftables table \"coracle\"");
    proxy.apply(&model("10.42.1.7:80")).await.unwrap();
    assert_eq!(kinds(&recorder).last().map(String::as_str), Some(whole));
}

#[tokio::test]
async fn ipv6_is_loaded_only_when_there_is_some_and_emptied_afterwards() {
    let recorder = Recorder::default();
    let mut proxy = ServiceProxy::with_firewall(ProxyConfig::default(), Box::new(recorder.clone()));
    let mut dual = model("[fd00:42::5]:80");
    dual.services[0].cluster_ips.push("fd00:43::80".parse().unwrap());
    proxy.apply(&dual).await.unwrap();
    assert_eq!(recorder.commits.lock().unwrap().len(), 2);
    proxy.apply(&ServiceModel::default()).await.unwrap();
    assert_eq!(recorder.commits.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_mark_of_nothing_is_refused() {
    let config = ProxyConfig { masquerade_mark: 0, ..ProxyConfig::default() };
    assert!(ServiceProxy::open(config).await.is_err());
}
