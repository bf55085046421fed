//! Service-account tokens from their request to their end.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::testing::{create, get, read, request, send, started};
use crate::user::User;

async fn account(server: &Arc<ApiServer>, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    create(server, "/api/v1/namespaces/default/serviceaccounts", object).await;
}

async fn who(server: &Arc<ApiServer>, token: &str) -> (StatusCode, Value) {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let mut request = request(Method::POST, path, &json!({}));
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let (code, answer) = read(Arc::clone(server).answer(request, None).await).await;
    (code, answer["status"]["userInfo"].clone())
}

async fn token(server: &Arc<ApiServer>, user: &User, spec: Value) -> (StatusCode, Value) {
    let path = "/api/v1/namespaces/default/serviceaccounts/web/token";
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    send(server, user, Method::POST, path, body).await
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_account() {
    let server = started().await;
    account(&server, "web").await;
    let admin = User::admin();
    let (code, answer) = token(&server, &admin, json!({"expirationSeconds": 600})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let text = answer["status"]["token"].as_str().unwrap();
    let (code, user) = who(&server, text).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(user["username"], "system:serviceaccount:default:web");
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let id = &user["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(id.as_str().unwrap().starts_with("JTI="));

    let review = json!({"spec": {"token": text}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, review) = send(&server, &admin, Method::POST, path, review).await;
    assert_eq!(review["status"]["authenticated"], true);
    assert_eq!(
        review["status"]["audiences"],
        json!(["https://kubernetes.default.svc.cluster.local"])
    );

    let mut forged = text.to_owned();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'E' } else { 'A' });
    assert_eq!(who(&server, &forged).await.0, StatusCode::UNAUTHORIZED);

    let path = "/api/v1/namespaces/default/serviceaccounts/web";
    send(&server, &admin, Method::DELETE, path, Value::Null).await;
    account(&server, "web").await;
    assert_eq!(
        who(&server, text).await.0,
        StatusCode::UNAUTHORIZED,
        "another account of that name"
    );
}

#[tokio::test]
async fn audiences_and_times_are_checked() {
    let server = started().await;
    account(&server, "web").await;
    let admin = User::admin();
    let (_, answer) = token(&server, &admin, json!({"audiences": ["vault"]})).await;
    let text = answer["status"]["token"].as_str().unwrap();
    assert_eq!(who(&server, text).await.0, StatusCode::UNAUTHORIZED);
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = json!({"spec": {"token": text, "audiences": ["vault", "other"]}});
    let (_, review) = send(&server, &admin, Method::POST, path, review).await;
    assert_eq!(review["status"]["audiences"], json!(["vault"]));

    let (code, status) = token(&server, &admin, json!({"expirationSeconds": 10})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        status["message"].as_str().unwrap().ends_with(
            "spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes"
        ),
        "{status}"
    );
    let tokens = &server.context.tokens;
    let identity =
        crate::objects::identity(&server.context.store, "serviceaccounts", "default", "web")
            .unwrap();
    let binding = crate::token::Binding {
        namespace: "default".to_owned(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: crate::token::Reference { name: "web".to_owned(), uid: identity.uid },
    };
    let audience = tokens.audiences().to_vec();
    let old = tokens.issue(binding, audience, 600, jiff::Timestamp::now().as_second() - 601);
    assert_eq!(
        tokens.review(&old, tokens.audiences()).map(|(user, _)| user),
        Err(crate::token::TokenError::Expired)
    );
}

#[tokio::test]
async fn a_bound_token_dies_with_its_pod() {
    let server = started().await;
    account(&server, "web").await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = create(
        &server,
        pods,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "web", "nodeName": "pi-1",
            "containers": [{"name": "c", "image": "i"}]}}),
    )
    .await;
    let reference =
        json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let spec = json!({"boundObjectRef": reference});
    let (code, status) = token(&server, &User::node("pi-1"), json!({})).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
    let (code, _) = token(&server, &User::node("pi-2"), spec.clone()).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let (code, answer) = token(&server, &User::node("pi-1"), spec).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let text = answer["status"]["token"].as_str().unwrap();
    let (_, user) = who(&server, text).await;
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    let gone = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    send(&server, &User::admin(), Method::DELETE, &format!("{pods}/p"), gone).await;
    assert_eq!(who(&server, text).await.0, StatusCode::UNAUTHORIZED);
    let wrong = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
    let (code, status) = token(&server, &User::admin(), wrong).await;
    assert_eq!((code, &status["message"]), (StatusCode::NOT_FOUND, &"pods \"p\" not found".into()));
}

#[tokio::test]
async fn a_node_asks_for_whom_its_pods_talk_to_or_for_whom_it_may() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let server = started().await;
    account(&server, "web").await;
    let volume = json!({"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "t", "audience": "vault"}}]}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "serviceAccountName": "web", "automountServiceAccountToken": false, "nodeName": "pi-1",
        "volumes": [volume], "containers": [{"name": "c", "image": "i"}]}});
    let pod = create(&server, "/api/v1/namespaces/default/pods", pod).await;
    let reference =
        json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let node = User::node("pi-1");
    let refusal = |audiences: &[&str]| {
        let spec = json!({"boundObjectRef": reference, "audiences": audiences});
        let (server, node) = (&server, &node);
        async move {
            let (_, answer) = token(server, node, spec).await;
            answer["message"].as_str().unwrap_or_default().to_owned()
        }
    };
    let unknown = |audience: &str| {
        format!(
            "serviceaccounts \"web\" is forbidden: audience {audience:?} not found in pod spec volume, system:node:pi-1 is not authorized to request tokens for this audience"
        )
    };
    assert_eq!(refusal(&["vault"]).await, "");
    assert_eq!(refusal(&["other"]).await, unknown("other"));
    assert_eq!(refusal(&[]).await, unknown(""), "the pod has no token for this server");
    let two = refusal(&["vault", "other"]).await;
    assert!(two.ends_with("node may only request 0 or 1 audiences"), "{two}");

    let rule = json!({"apiGroups": [""], "resources": ["other"], "resourceNames": ["web"],
        "verbs": ["request-serviceaccounts-token-audience"]});
    let role = json!({"metadata": {"name": "asks"}, "rules": [rule]});
    create(&server, &format!("{RBAC}/roles"), role).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({"metadata": {"name": "asks"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "asks"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "system:node:pi-1"}]});
    create(&server, &format!("{RBAC}/rolebindings"), binding).await;
    assert_eq!(refusal(&["other"]).await, "");
    assert_eq!(refusal(&["third"]).await, unknown("third"));
}

#[tokio::test]
async fn relying_parties_find_the_keys() {
    let server = started().await;
    let pod = User::service_account("default", "default");
    let (_, page) = get(&server, &pod, "/.well-known/openid-configuration").await;
    assert_eq!(page["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(page["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let (_, keys) = get(&server, &pod, "/openid/v1/jwks").await;
    assert_eq!(keys["keys"][0]["crv"], "P-256");
    assert_eq!(keys["keys"][0]["x"].as_str().unwrap().len(), 43);
}

#[tokio::test]
async fn a_secret_may_ask_for_a_token_without_an_end() {
    const SECRETS: &str = "/api/v1/namespaces/default/secrets";
    let server = started().await;
    let admin = User::admin();
    let map = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "PEM"}});
    create(&server, "/api/v1/namespaces/default/configmaps", map).await;
    let asking = |name: &str, account: &str| {
        let notes = json!({"kubernetes.io/service-account.name": account});
        json!({"metadata": {"name": name, "annotations": notes},
            "type": "kubernetes.io/service-account-token", "data": {"extra": "eA=="}})
    };
    let early = create(&server, SECRETS, asking("early", "web")).await;
    assert_eq!(early["data"], json!({"extra": "eA=="}), "there is no such account");
    account(&server, "web").await;
    let made = create(&server, SECRETS, asking("t", "web")).await;
    let data = |object: &Value, key: &str| {
        let text = object["data"][key].as_str().unwrap_or_default();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    };
    assert_eq!((data(&made, "namespace"), data(&made, "ca.crt")), ("default".into(), "PEM".into()));
    let (_, account) = get(&server, &admin, "/api/v1/namespaces/default/serviceaccounts/web").await;
    let uid = &made["metadata"]["annotations"]["kubernetes.io/service-account.uid"];
    assert_eq!(*uid, account["metadata"]["uid"]);
    let text = data(&made, "token");
    let (code, user) = who(&server, &text).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(user["username"], "system:serviceaccount:default:web");
    assert_eq!(user["uid"], account["metadata"]["uid"]);

    // A token that was taken out is replaced, and the old one does not count any more.
    let path = format!("{SECRETS}/t");
    let change = json!({"data": {"token": null, "extra": null}});
    let (_, changed) = send(&server, &admin, Method::PATCH, &path, change).await;
    assert_eq!(changed["data"].as_object().unwrap().len(), 3, "{changed}");
    assert_ne!(data(&changed, "token"), text);
    assert_eq!(who(&server, &text).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(who(&server, &data(&changed, "token")).await.0, StatusCode::CREATED);

    // They end with their account.
    let accounts = "/api/v1/namespaces/default/serviceaccounts/web";
    send(&server, &admin, Method::DELETE, accounts, Value::Null).await;
    assert_eq!(get(&server, &admin, &path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(who(&server, &data(&changed, "token")).await.0, StatusCode::UNAUTHORIZED);
}
