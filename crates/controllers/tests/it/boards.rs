//! What boards need of the cluster: certificates, tokens, roles, and leave to be emptied.

use std::sync::Arc;

use controllers::{Signer, SigningRequest};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, EvictParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use testkit::Cluster;

use crate::harness::{cluster, cluster_with, deployment, pods};

/// Signs nothing, and says for how long it would have.
#[derive(Debug)]
struct Scribe;

impl Signer for Scribe {
    fn sign(&self, request: &SigningRequest<'_>) -> Result<String, String> {
        Ok(format!("{:?} {} s", request.authority, request.life.as_secs()))
    }
}

fn request(user: &str, sans: &[&str]) -> String {
    use base64::Engine as _;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, user);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    let name = |san: &&str| match san.parse() {
        Ok(ip) => rcgen::SanType::IpAddress(ip),
        Err(_) => rcgen::SanType::DnsName((*san).try_into().expect("a name")),
    };
    params.subject_alt_names = sans.iter().map(name).collect();
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    base64::engine::general_purpose::STANDARD.encode(pem)
}

/// Makes a request as somebody.
async fn ask(client: &Client, name: &str, signer: &str, usage: &str, request: String) {
    let csr = json!({
        "metadata": {"name": name},
        "spec": {"request": request, "signerName": format!("kubernetes.io/{signer}"),
                 "usages": ["digital signature", usage], "expirationSeconds": 3600},
    });
    let csr = serde_json::from_value(csr).expect("a request");
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    api.create(&PostParams::default(), &csr).await.expect("the request is taken");
}

async fn certificate(cluster: &Cluster, name: &str) -> String {
    let api: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    let look = || async { api.get(name).await.ok()?.status?.certificate };
    let bytes = cluster.eventually(&format!("a certificate for {name}"), look).await;
    String::from_utf8(bytes.0).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_board_gets_its_certificates_with_a_token_and_renews_them_by_itself() {
    let signer: Arc<dyn Signer> = Arc::new(Scribe);
    let config = controllers::Config { signer: Some(signer), ..controllers::Config::default() };
    let cluster = cluster_with(config).await;
    cluster.api.bootstrap().await.expect("the default roles");

    cluster
        .apply(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-abc123", "namespace": "kube-system"},
            "stringData": {"token-id": "abc123", "token-secret": "0123456789abcdef",
                           "usage-bootstrap-authentication": "true"},
        }))
        .await;
    // Nobody may have it approved by default; kubeadm binds bootstrappers to it.
    cluster
        .apply(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "nodeclient"},
            "subjects": [{"kind": "Group", "name": "system:bootstrappers", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                        "name": "system:certificates.k8s.io:certificatesigningrequests:nodeclient"},
        }))
        .await;
    assert!(cluster.with_token("abc123.0123456789abcdee").await.is_none());
    let newcomer = cluster.with_token("abc123.0123456789abcdef").await.expect("a good token");
    let (client_signer, usage) = ("kube-apiserver-client-kubelet", "client auth");
    ask(&newcomer, "new", client_signer, usage, request("system:node:new", &[])).await;
    assert_eq!(certificate(&cluster, "new").await, "Client 3600 s");

    // A token is not enough to take the name of a board that is there already.
    ask(&newcomer, "stolen", client_signer, usage, request("system:node:n1", &[])).await;
    let node = cluster.as_node("n1");
    ask(&node, "renewed", client_signer, usage, request("system:node:n1", &[])).await;
    assert_eq!(certificate(&cluster, "renewed").await, "Client 3600 s");
    let serving = request("system:node:n1", &["n1"]);
    ask(&node, "serving", "kubelet-serving", "server auth", serving).await;
    assert_eq!(certificate(&cluster, "serving").await, "Serving 3600 s");
    let api: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    let stolen = api.get("stolen").await.expect("the request is kept").status.unwrap_or_default();
    assert!(stolen.certificate.is_none() && stolen.conditions.is_none(), "{stolen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_tokens_are_removed() {
    let cluster = cluster().await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "kube-system");
    cluster
        .apply(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-abc123", "namespace": "kube-system"},
            "stringData": {"token-id": "abc123", "token-secret": "0123456789abcdef",
                           "expiration": "2020-01-01T00:00:00Z"},
        }))
        .await;
    cluster
        .eventually("the expired token to go", || async {
            secrets.get_opt("bootstrap-token-abc123").await.ok()?.is_none().then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_leave_what_the_budget_wants() {
    let cluster = cluster().await;
    cluster.apply(deployment(3, "v1")).await;
    cluster
        .apply(json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        }))
        .await;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(cluster.client.clone());
    let allowed = |wanted: i32| {
        let budgets = budgets.clone();
        move || {
            let budgets = budgets.clone();
            async move {
                let status = budgets.get("web").await.ok()?.status?;
                (status.disruptions_allowed == Some(wanted)).then_some(())
            }
        }
    };
    cluster.eventually("one disruption to be allowed", allowed(1)).await;
    // The pods that take their places are never ready, so the budget is not filled up again.
    let never = json!({"spec": {"template": {"metadata": {"annotations": {"testkit/never-ready": "true"}}},
        "paused": true}});
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::default_namespaced(cluster.client.clone());
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(never)).await.expect("paused");
    let sets: Api<k8s_openapi::api::apps::v1::ReplicaSet> =
        Api::default_namespaced(cluster.client.clone());
    let set = sets.list(&Default::default()).await.expect("sets").items.remove(0).name_any();
    let never = json!({"spec": {"template": {"metadata": {"annotations": {"testkit/never-ready": "true"}}}}});
    sets.patch(&set, &PatchParams::default(), &Patch::Merge(never)).await.expect("changed");

    let api: Api<Pod> = Api::default_namespaced(cluster.client.clone());
    let names: Vec<String> =
        pods(&cluster, "app=web").await.iter().map(ResourceExt::name_any).collect();
    api.evict(&names[0], &EvictParams::default()).await.expect("the first may go");
    let refused = api.evict(&names[1], &EvictParams::default()).await.expect_err("two must stay");
    let kube::Error::Api(status) = refused else { panic!("{refused}") };
    assert_eq!(
        (status.code, status.message.as_str()),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    cluster.eventually("the budget to be spent", allowed(0)).await;
    let gone = || async { api.get_opt(&names[0]).await.ok()?.is_none().then_some(()) };
    cluster.eventually("the evicted pod to be gone", gone).await;
}
