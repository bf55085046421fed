//! The chain of authorizers: other servers are asked wherever a permission counts, and in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::{remote, reviewer, server};
use super::signing;
use crate::testing::{create, get, send};
use crate::user::User;
use crate::{Access, ApiServer, AuthorizationWebhookOptions, Authorizers, RemoteConfig};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";

async fn asking(authorizers: Authorizers) -> Arc<ApiServer> {
    server(Access { authorizers, ..Access::default() }).await
}

fn webhook(remote: RemoteConfig) -> AuthorizationWebhookOptions {
    let ttl = Duration::from_secs(60);
    AuthorizationWebhookOptions::new(remote, "v1", ttl, ttl)
}

/// Lets a user do something by a role.
pub(super) async fn grant(server: &Arc<ApiServer>, user: &str, rule: Value) {
    let role = json!({"metadata": {"name": user}, "rules": [rule]});
    create(server, ROLES, role).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}]});
    create(server, &format!("/apis/{group}/v1/clusterrolebindings"), binding).await;
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn another_server_may_let_somebody_grant_approve_and_be_seen_by_policies() {
    let (remote, _) = reviewer().await;
    let server = asking(Authorizers::default().with_webhook(webhook(remote))).await;
    let (ann, bob) = (User::new("ann", []), User::new("bob", []));
    let everything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    grant(
        &server,
        "bob",
        json!({"apiGroups": ["*"], "resources": ["clusterroles", "configmaps",
        "certificatesigningrequests/approval"], "verbs": ["create", "update"]}),
    )
    .await;
    for (user, expected) in [(&ann, StatusCode::CREATED), (&bob, StatusCode::FORBIDDEN)] {
        let role =
            json!({"metadata": {"name": format!("of-{}", user.name)}, "rules": [everything]});
        let (code, answer) = send(&server, user, Method::POST, ROLES, role).await;
        assert_eq!(code, expected, "{answer}");
        let granting = message(&answer).contains("is attempting to grant RBAC permissions");
        assert_eq!(granting, user.name == "bob", "{answer}");
    }

    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = json!({"metadata": {"name": "r"}, "spec": {"signerName": "a.org/b",
        "request": signing::request("x", &[]), "usages": ["client auth"]}});
    let mut made = create(&server, requests, request).await;
    made["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]});
    for (user, expected) in [(&bob, StatusCode::FORBIDDEN), (&ann, StatusCode::OK)] {
        let path = format!("{requests}/r/approval");
        let (code, answer) = send(&server, user, Method::PUT, &path, made.clone()).await;
        assert_eq!(code, expected, "{answer}");
    }

    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"],
        "resources": ["configmaps"]});
    let peeks = "variables.nodes.check('peek').allowed()";
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [rule]},
        "variables": [{"name": "nodes", "expression": "authorizer.group('').resource('nodes')"}],
        "validations": [{"expression": peeks}]}});
    create(&server, &format!("{POLICIES}/validatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    create(&server, &format!("{POLICIES}/validatingadmissionpolicybindings"), binding).await;
    for (user, expected) in [(&ann, ""), (&bob, "failed expression: variables.nodes.check('peek')")]
    {
        let map = json!({"metadata": {"name": user.name}});
        let (_, answer) = send(&server, user, Method::POST, MAPS, map).await;
        assert!(message(&answer).contains(expected), "{answer}");
        assert_eq!(message(&answer).is_empty(), expected.is_empty(), "{answer}");
    }
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let about = json!({"spec": {"namespace": "default"}});
    let (_, review) = send(&server, &ann, Method::POST, rules, about).await;
    assert_eq!(
        (&review["status"]["incomplete"], &review["status"]["evaluationError"]),
        (&json!(true), &json!("webhook authorizer does not support user rule resolution"))
    );
}

/// A chain with a webhook in front of the roles.
fn file(rest: &str) -> String {
    format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{{type: Webhook, name: w, webhook: {{timeout: 5s, subjectAccessReviewVersion: v1, connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /k}}, {rest}}}}}, {{type: RBAC, name: rbac}}]}}"
    )
}

#[tokio::test]
async fn the_first_with_an_opinion_decides() {
    let (there, asked) = reviewer().await;
    let conditions = "failurePolicy: Deny, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: 'request.user != \"bob\"'}, {expression: 'has(request.resourceAttributes) && request.resourceAttributes.resource == \"configmaps\"'}]";
    let chain = Authorizers::parse(&file(conditions), |_| Ok(there.clone())).unwrap();
    let server = asking(chain).await;
    let rule = json!({"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list"]});
    for name in ["bob", "eve"] {
        grant(&server, name, rule.clone()).await;
    }
    let (bob, eve) = (User::new("bob", []), User::new("eve", []));
    let one = format!("{MAPS}/kube-root-ca.crt");
    // It denies what a role would allow; where the conditions do not hold it is not asked.
    let (code, refused) = get(&server, &eve, &one).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(message(&refused).ends_with("in the namespace \"default\": ask ann"), "{refused}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(get(&server, &eve, MAPS).await.0, StatusCode::OK, "it has no opinion on lists");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(get(&server, &bob, MAPS).await.0, StatusCode::OK);
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(get(&server, &eve, secrets).await.0, StatusCode::OK);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let review = json!({"spec": {"user": "eve", "resourceAttributes":
        {"verb": "get", "resource": "configmaps", "namespace": "default"}}});
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (_, answer) = send(&server, &User::admin(), Method::POST, reviews, review).await;
    let expected = json!({"allowed": false, "denied": true, "reason": "ask ann"});
    assert_eq!(answer["status"], expected);
}

#[tokio::test]
async fn who_cannot_be_asked_denies_or_has_no_opinion() {
    for (policy, code) in
        [("Deny", StatusCode::INTERNAL_SERVER_ERROR), ("NoOpinion", StatusCode::OK)]
    {
        // Nobody listens on the port of a listener that is gone.
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = remote(&format!("http://{}", gone.local_addr().unwrap()));
        drop(gone);
        let text = file(&format!("failurePolicy: {policy}"));
        let server = asking(Authorizers::parse(&text, |_| Ok(nobody.clone())).unwrap()).await;
        let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]});
        grant(&server, "eve", rule).await;
        let (found, answer) = get(&server, &User::new("eve", []), MAPS).await;
        assert_eq!(found, code, "{policy}: {answer}");
        let other = format!("{MAPS}/x");
        let (found, answer) = get(&server, &User::new("eve", []), &other).await;
        assert_eq!(found, StatusCode::INTERNAL_SERVER_ERROR, "{policy}: {answer}");
        let text = answer.as_str().unwrap();
        assert!(text.starts_with("Internal Server Error: \"/api/v1/namespaces/default/configmaps/x\": Post \"http://127.0.0.1"), "{text}");
    }
}

#[tokio::test]
async fn the_chain_may_be_another_from_some_moment_on() {
    let server = asking(Authorizers::default()).await;
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]});
    grant(&server, "eve", rule).await;
    let eve = User::new("eve", []);
    assert_eq!(get(&server, &eve, MAPS).await.0, StatusCode::OK);
    let chain = |kind: &str| {
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{{type: {kind}, name: one}}]}}"
        );
        Authorizers::parse(&text, |_| Err(String::new())).unwrap()
    };
    server.set_authorizers(&chain("AlwaysDeny")).unwrap();
    assert_eq!(get(&server, &eve, MAPS).await.0, StatusCode::FORBIDDEN);
    server.set_authorizers(&chain("RBAC")).unwrap();
    assert_eq!(get(&server, &eve, MAPS).await.0, StatusCode::OK);
}
