//! CertificateSigningRequests: who asks is noted, who approves and signs must be allowed to.

use base64::Engine as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::{create, get, send, started};
use crate::user::User;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A request for this name and these groups, as its object has it.
pub(super) fn request(name: &str, groups: &[&str]) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    base64::engine::general_purpose::STANDARD.encode(pem)
}

fn object(name: &str, signer: &str, request: &str) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": request, "signerName": signer, "usages": ["client auth"],
            "username": "somebody-else", "groups": ["system:masters"]}})
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn the_requester_is_noted_and_the_content_read() {
    let server = started().await;
    let node = User::node("pi-1");
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    let asked = object("a", signer, &request("system:node:pi-1", &["system:nodes"]));
    let (code, made) = send(&server, &node, Method::POST, REQUESTS, asked).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(
        (&made["spec"]["username"], &made["spec"]["groups"]),
        (&json!("system:node:pi-1"), &json!(["system:nodes", "system:authenticated"]))
    );
    let foreign = object("f", signer, &request("system:node:pi-2", &["system:nodes"]));
    let (_, answer) = send(&server, &node, Method::POST, REQUESTS, foreign).await;
    assert!(message(&answer).ends_with("can only create a node CSR with CN=system:node:pi-1"));
    let broken = object("b", signer, "aGVsbG8=");
    let (code, answer) = send(&server, &User::admin(), Method::POST, REQUESTS, broken).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&answer).contains("PEM block type must be CERTIFICATE REQUEST"), "{answer}");
    let masters = request("root", &["system:masters"]);
    let asked = object("c", "kubernetes.io/kube-apiserver-client", &masters);
    let (_, answer) = send(&server, &User::admin(), Method::POST, REQUESTS, asked).await;
    assert_eq!(
        message(&answer),
        "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
}

#[tokio::test]
async fn approving_and_signing_take_a_permission_on_the_signer() {
    let server = started().await;
    create(&server, REQUESTS, object("a", "example.com/mine", &request("x", &[]))).await;
    let rules = json!([
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["get", "update", "patch"],
         "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "judge"}, "rules": rules});
    create(&server, &format!("{rbac}/clusterroles"), role).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "judge"}, "subjects": [{"kind": "User", "name": "ann"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "judge"}});
    create(&server, &format!("{rbac}/clusterrolebindings"), binding).await;

    let ann = User::new("ann", []);
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Fine"}]}});
    let sign = json!({"status": {"certificate": "LQ=="}});
    let path = format!("{REQUESTS}/a");
    for (view, body, verb) in [("approval", &approve, "approve"), ("status", &sign, "sign")] {
        let uri = format!("{path}/{view}");
        let (code, answer) = send(&server, &ann, Method::PATCH, &uri, body.clone()).await;
        assert_eq!(code, StatusCode::FORBIDDEN);
        assert_eq!(
            message(&answer),
            format!(
                "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to {verb} requests with signerName \"example.com/mine\""
            )
        );
    }
    let more = json!({"rules": [
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["*"], "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"]},
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["approve"], "resources": ["signers"], "resourceNames": ["example.com/*"]},
        {"apiGroups": ["certificates.k8s.io"], "verbs": ["sign"], "resources": ["signers"], "resourceNames": ["example.com/mine"]}]});
    let role = format!("{rbac}/clusterroles/judge");
    send(&server, &User::admin(), Method::PATCH, &role, more).await;
    for (view, body) in [("approval", &approve), ("status", &sign)] {
        let uri = format!("{path}/{view}");
        let (code, answer) = send(&server, &ann, Method::PATCH, &uri, body.clone()).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
    }
    // What the write says of the signer does not count.
    let client = "kubernetes.io/kube-apiserver-client";
    create(&server, REQUESTS, object("b", client, &request("root", &[]))).await;
    let mut posed = approve.clone();
    posed["spec"] = json!({"signerName": "example.com/mine"});
    let uri = format!("{REQUESTS}/b/approval");
    let (code, answer) = send(&server, &ann, Method::PATCH, &uri, posed).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{answer}");
    assert!(message(&answer).ends_with(&format!("with signerName {client:?}")), "{answer}");

    let (_, done) = get(&server, &User::admin(), &path).await;
    let condition = &done["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());
    assert_eq!(done["status"]["certificate"], "LQ==");
}
