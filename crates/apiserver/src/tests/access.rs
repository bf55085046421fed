//! Tokens of a file and of other issuers, and the audit log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::{Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::testing::{config, create, empty, get, read, request, send, until};
use crate::user::User;
use crate::{
    Access, ApiServer, AuditOptions, AuthenticationConfiguration, AuthorizationWebhookOptions,
    Authorizers, EventServerOptions, LogOptions, Policy, RemoteConfig, StaticTokens,
    TokenWebhookOptions,
};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

pub(super) async fn server(access: Access) -> Arc<ApiServer> {
    let mut config = config();
    config.access = access;
    let server = empty(config).await;
    server.bootstrap().await.unwrap();
    server
}

async fn bearer(server: &Arc<ApiServer>, token: &str) -> (StatusCode, Value) {
    let mut request = request(Method::POST, WHO, &json!({}));
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, value);
    let (code, review) = read(Arc::clone(server).answer(request, None).await).await;
    (code, review["status"]["userInfo"].clone())
}

#[tokio::test]
async fn a_token_of_the_file_is_a_user() {
    let static_tokens = StaticTokens::parse("abc,ann,7,\"devs,ops\"").unwrap();
    let server = server(Access { static_tokens, ..Access::default() }).await;
    let (code, user) = bearer(&server, "abc").await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(
        user,
        json!({"username": "ann", "uid": "7", "groups": ["devs", "ops", "system:authenticated"]})
    );
    assert_eq!(bearer(&server, "abd").await.0, StatusCode::UNAUTHORIZED);
    let review = json!({"spec": {"token": "abc"}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, review) = send(&server, &User::admin(), Method::POST, path, review).await;
    assert_eq!(review["status"]["user"]["username"], "ann", "{review}");
    assert_eq!(review["status"]["audiences"][0], "https://kubernetes.default.svc.cluster.local");
}

/// An issuer of tokens on loopback.
struct Issuer {
    url: String,
    ca: String,
    key: EcdsaKeyPair,
    /// What it gives at `/claims` to who shows `key`.
    claims: Arc<std::sync::Mutex<String>>,
}

async fn issuer() -> Issuer {
    let random = ring::rand::SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &random);
    let key = key.unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let private = rustls_pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], private.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let point = key.public_key().as_ref().to_vec();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "alg": "ES256",
        "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])});
    let description = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
    let keys = json!({"keys": [jwk]}).to_string();
    let claims = Arc::new(std::sync::Mutex::new(String::new()));
    let given = Arc::clone(&claims);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(tcp).await else { continue };
            let (description, keys) = (description.clone(), keys.clone());
            let given = Arc::clone(&given);
            let service = hyper::service::service_fn(move |asked: http::Request<_>| {
                let _: &hyper::body::Incoming = asked.body();
                let shown = asked.headers().get(header::AUTHORIZATION);
                let text = match asked.uri().path() {
                    "/keys" => keys.clone(),
                    "/claims" if shown.is_some_and(|shown| shown == "Bearer key") => {
                        given.lock().unwrap().clone()
                    }
                    _ => description.clone(),
                };
                let body = http_body_util::Full::new(bytes::Bytes::from(text));
                async move { Ok::<_, std::convert::Infallible>(http::Response::new(body)) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        }
    });
    Issuer { url, ca: own.cert.pem(), key, claims }
}

impl Issuer {
    fn sign(&self, claims: &Value) -> String {
        let head = BASE64.encode(r#"{"alg":"ES256","kid":"k"}"#);
        let text = format!("{head}.{}", BASE64.encode(claims.to_string()));
        let random = ring::rand::SystemRandom::new();
        let signature = self.key.sign(&random, text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64.encode(signature))
    }
}

#[tokio::test]
async fn another_issuer_vouches_for_users() {
    let issuer = issuer().await;
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer.url, "audiences": ["here"], "certificateAuthority": issuer.ca},
            "claimMappings": {"username": {"claim": "sub", "prefix": "i:"},
                              "groups": {"claim": "groups", "prefix": ""}},
        }],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
    });
    let file = AuthenticationConfiguration::parse(&file.to_string()).unwrap();
    let access = Access { jwt: file.jwt, anonymous: file.anonymous, ..Access::default() };
    let server = server(access).await;
    let soon = jiff::Timestamp::now().as_second() + 60;
    let claims = |aud: &str, exp: i64| json!({"iss": issuer.url, "aud": aud, "exp": exp, "sub": "ann", "groups": ["devs"]});
    let (code, user) = bearer(&server, &issuer.sign(&claims("here", soon))).await;
    assert_eq!(code, StatusCode::CREATED, "{user}");
    assert_eq!(user, json!({"username": "i:ann", "groups": ["devs", "system:authenticated"]}));
    let good = issuer.sign(&claims("here", soon));
    for (token, why) in [
        (issuer.sign(&claims("elsewhere", soon)), "another audience"),
        (issuer.sign(&claims("here", soon - 120)), "it has expired"),
        // Not the last letter: some of its bits are of no account.
        (good.replacen(&good[good.len() - 5..good.len() - 1], "AAAA", 1), "a changed signature"),
    ] {
        assert_eq!(bearer(&server, &token).await.0, StatusCode::UNAUTHORIZED, "{why}");
    }
    for (path, expected) in [("/livez", StatusCode::OK), ("/version", StatusCode::UNAUTHORIZED)] {
        let request = request(Method::GET, path, &Value::Null);
        assert_eq!(Arc::clone(&server).answer(request, None).await.status(), expected, "{path}");
    }
}

fn audited(folder: &Path, rules: &str) -> Access {
    let policy = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: {rules}}}");
    let log = LogOptions {
        path: folder.join("audit.log"),
        max_megabytes: 1,
        max_age_days: 1,
        max_backups: 1,
        blocking: true,
        gather: Duration::from_millis(1),
    };
    let policy = Arc::new(Policy::parse(&policy).unwrap());
    Access {
        audit: Some(AuditOptions { policy, log: Some(log), server: None }),
        ..Access::default()
    }
}

#[tokio::test]
async fn the_audit_log_says_who_did_what() {
    let folder = tempfile::tempdir().unwrap();
    let rules = r#"[
        {level: RequestResponse, resources: [{resources: [configmaps]}], namespaces: [default], users: [ann], omitStages: [RequestReceived]},
        {level: Metadata, resources: [{resources: [secrets]}], users: [ann], omitStages: [RequestReceived], omitManagedFields: true}]"#;
    let server = server(audited(folder.path(), rules)).await;
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "ann"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    create(&server, bindings, binding).await;
    let ann = User::new("ann", []);
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(send(&server, &ann, Method::POST, maps, map).await.0, StatusCode::CREATED);
    assert_eq!(get(&server, &ann, "/api/v1/secrets/").await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(&server, &ann, "/api/v1/namespaces/default/pods").await.0, StatusCode::OK);
    let path = folder.path().join("audit.log");
    let lines = || {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    until("both events are written", async || lines().len() == 2).await;
    let [created, refused] = <[Value; 2]>::try_from(lines()).unwrap();
    assert_eq!(created["level"], "RequestResponse", "{created}");
    assert_eq!(created["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(created["responseObject"]["kind"], "ConfigMap");
    assert_eq!(created["objectRef"]["name"], "m");
    assert_eq!(created["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(
        created["annotations"]["authorization.k8s.io/reason"],
        "RBAC: allowed by RoleBinding \"ann/default\" of ClusterRole \"edit\" to User \"ann\""
    );
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden", "{refused}");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&refused["requestObject"], &refused["responseObject"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(refused["stage"], "ResponseComplete");
}

#[tokio::test]
async fn answers_say_how_their_requests_were_sorted() {
    let static_tokens = StaticTokens::parse("abc,ann,7").unwrap();
    let server = server(Access { static_tokens, ..Access::default() }).await;
    let admin = User::admin();
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/global-default";
    until("its level is found", async || {
        let (_, schema) = get(&server, &admin, path).await;
        schema["status"]["conditions"][0]["reason"] == "Found"
    })
    .await;
    let (_, schema) = get(&server, &admin, path).await;
    let ask = || {
        let mut request = request(Method::GET, "/version", &Value::Null);
        let value = "Bearer abc".parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        request
    };
    let answer = Arc::clone(&server).answer(ask(), None).await;
    let uid = &answer.headers()["x-kubernetes-pf-flowschema-uid"];
    assert_eq!(uid.to_str().unwrap(), schema["metadata"]["uid"]);
    assert!(answer.headers().contains_key("x-kubernetes-pf-prioritylevel-uid"));
    let (_, page) = get(&server, &admin, "/metrics").await;
    let line = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\"} 1";
    assert!(page.as_str().unwrap().contains(line), "{page}");

    // A level without seats turns its own away, and nobody else.
    let levels = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
    let none = json!({"metadata": {"name": "none"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"}}}});
    create(&server, levels, none).await;
    let schema = json!({"metadata": {"name": "ann"}, "spec": {
        "priorityLevelConfiguration": {"name": "none"}, "matchingPrecedence": 5,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "ann"}}],
                   "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}]}]}});
    create(&server, "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", schema).await;
    let answer = Arc::clone(&server).answer(ask(), None).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    let anonymous = request(Method::GET, "/version", &Value::Null);
    assert_eq!(Arc::clone(&server).answer(anonymous, None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn tokens_of_an_earlier_issuer_are_good() {
    let old = "https://old.example";
    let mut first = config();
    first.service_account.issuer = old.to_owned();
    let key = first.service_account.signing_key_pem.clone();
    let access = Access {
        earlier_issuers: vec![old.to_owned()],
        jwks_uri: Some("https://keys.example/jwks".to_owned()),
        ..Access::default()
    };
    let issuer = first.service_account.issuer.clone();
    let mut second = config();
    second.service_account.signing_key_pem = key;
    second.service_account.audiences = vec![issuer];
    second.access = access;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let (first, second) = (empty(first).await, empty(second).await);
    first.bootstrap().await.unwrap();
    second.bootstrap().await.unwrap();
    let made = create(&first, accounts, account).await;
    let asked = json!({"spec": {"expirationSeconds": 600}});
    let token = create(&first, &format!("{accounts}/a/token"), asked).await;
    // The account as the other server would have it of the same datastore.
    let key = store::Key::new("serviceaccounts", "default", "a");
    let value = crate::registry::codec::encode(&made).into();
    assert!(second.context.store.put(key, store::Expect::Absent, value).await.is_ok());
    let (code, user) = bearer(&second, token["status"]["token"].as_str().unwrap()).await;
    assert_eq!(code, StatusCode::CREATED, "{user}");
    assert_eq!(user["username"], "system:serviceaccount:default:a");
    let path = "/.well-known/openid-configuration";
    let (_, configuration) = get(&second, &User::admin(), path).await;
    assert_eq!(configuration["jwks_uri"], "https://keys.example/jwks");
}

#[tokio::test]
async fn component_statuses_are_made_on_the_spot() {
    let server = server(Access::default()).await;
    let path = "/api/v1/componentstatuses";
    let (_, list) = get(&server, &User::admin(), path).await;
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        (list["kind"].as_str(), names),
        (Some("ComponentStatusList"), vec!["controller-manager", "etcd-0", "scheduler"],)
    );
    let (_, one) = get(&server, &User::admin(), &format!("{path}/etcd-0")).await;
    assert_eq!(one["conditions"][0]["status"], "True", "{one}");
    assert_eq!(get(&server, &User::admin(), &format!("{path}/x")).await.0, StatusCode::NOT_FOUND);
}

/// What a server that is asked says of a token, of images, or of a permission.
fn said(review: &Value) -> Value {
    let spec = &review["spec"];
    match review["kind"].as_str().unwrap_or_default() {
        "TokenReview" => {
            let user = json!({"username": "ann", "groups": ["devs"]});
            json!({"authenticated": spec["token"] == "good", "user": user})
        }
        "ImageReview" if spec["containers"][0]["image"] == "bad" => {
            json!({"allowed": false, "reason": "it is bad"})
        }
        "ImageReview" => json!({"allowed": true, "auditAnnotations": {"seen": "yes"}}),
        _ => {
            let verb = spec["resourceAttributes"]["verb"].as_str().unwrap_or_default();
            let known = ["approve", "create", "escalate", "list", "peek", "update"];
            let allowed = spec["user"] == "ann" && known.contains(&verb);
            json!({"allowed": allowed, "denied": verb == "get", "reason": "ask ann"})
        }
    }
}

#[tokio::test]
async fn groups_that_a_token_lacks_are_fetched_where_it_says() {
    let issuer = issuer().await;
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer.url, "audiences": ["here"], "certificateAuthority": issuer.ca},
            "claimMappings": {"username": {"claim": "sub", "prefix": ""},
                              "groups": {"claim": "groups", "prefix": ""}},
        }],
    });
    let file = AuthenticationConfiguration::parse(&file.to_string()).unwrap();
    let server = server(Access { jwt: file.jwt, ..Access::default() }).await;
    let soon = jiff::Timestamp::now().as_second() + 60;
    let base = json!({"iss": issuer.url, "aud": "here", "exp": soon, "sub": "ann"});
    let with = |more: Value| {
        let mut claims = base.clone();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        issuer.sign(&claims)
    };
    let endpoint = format!("{}/claims", issuer.url);
    let source = |key: &str| {
        with(json!({"_claim_names": {"groups": "s"},
        "_claim_sources": {"s": {"endpoint": endpoint, "access_token": key}}}))
    };
    for (claims, key, expected) in [
        (with(json!({"groups": ["devs"]})), "key", Some(json!(["devs", "system:authenticated"]))),
        (with(json!({})), "key", None),
        (with(json!({"groups": ["devs"], "aud": "elsewhere"})), "key", None),
        (with(json!({"groups": ["devs"], "exp": 1})), "key", None),
        (with(json!({"groups": ["devs"]})) + "A", "key", None),
        ("no token".to_owned(), "key", None),
        (with(json!({"groups": ["devs"]})), "other", None),
    ] {
        issuer.claims.lock().unwrap().clone_from(&claims);
        let (code, user) = bearer(&server, &source(key)).await;
        match expected {
            Some(groups) => assert_eq!((code, &user["groups"]), (StatusCode::CREATED, &groups)),
            None => assert_eq!(code, StatusCode::UNAUTHORIZED, "{claims} {user}"),
        }
    }
}

/// A server that knows tokens, images and permissions; how often it is asked is counted.
pub(super) async fn reviewer() -> (RemoteConfig, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/review", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            let service = hyper::service::service_fn(move |asked: http::Request<_>| {
                count.fetch_add(1, Ordering::Relaxed);
                async move {
                    let body: hyper::body::Incoming = asked.into_body();
                    let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
                    let mut review: Value = serde_json::from_slice(&bytes).unwrap();
                    review["status"] = said(&review);
                    let body = http_body_util::Full::new(bytes::Bytes::from(review.to_string()));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(tcp), service));
        }
    });
    (remote(&url), asked)
}

/// What leads to a server.
pub(super) fn remote(url: &str) -> RemoteConfig {
    RemoteConfig::parse(&kubeconfig(url), |_| Err(String::new())).unwrap()
}

/// The same as a file.
pub(super) fn kubeconfig(url: &str) -> String {
    json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "s"}}],
        "clusters": [{"name": "s", "cluster": {"server": url}}]})
    .to_string()
}

#[tokio::test]
async fn another_server_gets_the_audit_log() {
    let (remote, asked) = reviewer().await;
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
    let policy = Arc::new(Policy::parse(policy).unwrap());
    let gather = Duration::from_millis(1);
    let server = EventServerOptions { remote, blocking: true, gather };
    let audit = Some(AuditOptions { policy, log: None, server: Some(server) });
    let server = self::server(Access { audit, ..Access::default() }).await;
    get(&server, &User::admin(), "/api/v1/namespaces").await;
    until("events have come", async || asked.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn another_server_knows_tokens_and_permissions() {
    let (remote, asked) = reviewer().await;
    let ttl = Duration::from_secs(60);
    let version = "v1".to_owned();
    let access = Access {
        token_webhook: Some(TokenWebhookOptions {
            remote: remote.clone(),
            version: version.clone(),
            ttl,
        }),
        authorizers: Authorizers::default()
            .with_webhook(AuthorizationWebhookOptions::new(remote, &version, ttl, ttl)),
        ..Access::default()
    };
    let server = server(access).await;
    for _ in 0..2 {
        let (code, user) = bearer(&server, "good").await;
        assert_eq!(code, StatusCode::CREATED, "{user}");
        assert_eq!(user, json!({"username": "ann", "groups": ["devs", "system:authenticated"]}));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the answer is remembered");
    assert_eq!(bearer(&server, "bad").await.0, StatusCode::UNAUTHORIZED);
    let (ann, path) = (User::new("ann", []), "/api/v1/namespaces/default/secrets");
    assert_eq!(get(&server, &ann, path).await.0, StatusCode::OK);
    let (code, refused) = send(&server, &ann, Method::DELETE, path, Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(refused["message"].as_str().unwrap().ends_with("\"default\": ask ann"), "{refused}");
    assert_eq!(get(&server, &User::new("bob", []), path).await.0, StatusCode::FORBIDDEN);
}
