//! Another API server behind this one; the test plays it over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::testing::{config, create, empty, get, send, until};
use crate::user::User;
use crate::{ApiServer, FrontProxy};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

type Issuer = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

fn authority() -> Issuer {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

fn leaf(
    ca: &Issuer,
    name: &str,
    hosts: &[&str],
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn roots(ca: &Issuer) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    Arc::new(roots)
}

#[derive(Debug)]
struct Shown(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Answers the way a small API server would: what it serves, and who it was told is asking.
fn answer(request: &http::Request<hyper::body::Incoming>) -> Value {
    match request.uri().path() {
        "/apis/w.org/v1" => json!({"kind": "APIResourceList", "groupVersion": "w.org/v1",
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true,
                           "kind": "Flunder", "verbs": ["get", "list"]}]}),
        "/openapi/v2" => json!({"swagger": "2.0",
            "paths": {"/apis/w.org/v1/flunders": {"get": {"responses": {"200": {"schema":
                {"$ref": "#/definitions/org.w.Flunder"}}}}}, "/version": {}},
            "definitions": {"org.w.Flunder": {"type": "object"}, "unused": {}}}),
        "/openapi/v3" => json!({"paths": {"apis/w.org/v1":
            {"serverRelativeURL": "/openapi/v3/apis/w.org/v1?hash=7"}}}),
        path => {
            let headers = request.headers();
            let all = |name: &str| -> Vec<String> {
                let values = headers.get_all(name).iter();
                values.map(|value| value.to_str().unwrap().to_owned()).collect()
            };
            json!({"path": path, "query": request.uri().query(), "user": all("x-remote-user"),
                "groups": all("x-remote-group"), "authorization": all("authorization")})
        }
    }
}

/// A server that lets in whoever shows a certificate of `clients`.
async fn backend(rig: &Rig) -> u16 {
    let (opened, described) = (Arc::clone(&rig.opened), Arc::clone(&rig.described));
    let (chain, key) = leaf(&rig.servers, "backend", &["api.wardle.svc"]);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&rig.clients), provider()).build();
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            opened.fetch_add(1, Ordering::Relaxed);
            let (acceptor, described) = (acceptor.clone(), Arc::clone(&described));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service = hyper::service::service_fn(|request| {
                    let described = Arc::clone(&described);
                    async move {
                        let mut text = answer(&request).to_string();
                        let mut response =
                            http::Response::builder().header("content-type", "application/json");
                        if request.uri().path() == "/openapi/v2" {
                            described.fetch_add(1, Ordering::Relaxed);
                            response = response.header("etag", "\"7\"");
                            if request.headers().get("if-none-match").is_some() {
                                (response, text) = (response.status(304), String::new());
                            }
                        }
                        // The body is read so that a connection can be used again.
                        let _ = request.into_body().collect().await;
                        response.body(http_body_util::Full::new(bytes::Bytes::from(text)))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                let _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

async fn condition(server: &Arc<ApiServer>) -> String {
    let (_, object) = get(server, &User::admin(), &format!("{SERVICES}/v1.w.org")).await;
    let condition = &object["status"]["conditions"][0];
    let text = |member: &str| condition[member].as_str().unwrap_or_default().to_owned();
    format!("{} {}: {}", text("status"), text("reason"), text("message"))
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"},
        "spec": {"ports": [{"port": 443, "targetPort": 8443}]}})
}

fn slice(port: u16) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "api-1", "labels": {"kubernetes.io/service-name": "api"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]})
}

struct Rig {
    server: Arc<ApiServer>,
    servers: Issuer,
    clients: Issuer,
    /// Connections that the server behind has seen.
    opened: Arc<AtomicUsize>,
    /// How often it was asked for its OpenAPI v2.
    described: Arc<AtomicUsize>,
}

async fn rig() -> Rig {
    let (servers, clients) = (authority(), authority());
    let (chain, key) = leaf(&clients, FrontProxy::NAME, &[]);
    let key = rustls::sign::CertifiedKey::from_der(chain, key, &provider()).unwrap();
    let mut config = config();
    config.access.front_proxy =
        Some(FrontProxy { ca_pem: clients.pem(), certificate: Arc::new(Shown(Arc::new(key))) });
    let server = empty(config).await;
    server.bootstrap().await.unwrap();
    Rig { server, servers, clients, opened: Arc::default(), described: Arc::default() }
}

impl Rig {
    /// Past the API, which takes no endpoints on loopback.
    async fn endpoint(&self, port: u16) {
        let key = store::Key::new("discovery.k8s.io/endpointslices", "wardle", "api-1");
        let value = crate::registry::codec::encode(&slice(port)).into();
        let written = self.server.context.store.put(key, store::Expect::Any, value).await;
        assert!(written.is_ok());
    }

    async fn register(&self) {
        use base64::Engine as _;
        let bundle = base64::engine::general_purpose::STANDARD.encode(self.servers.pem());
        let object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1.w.org"},
            "spec": {"group": "w.org", "version": "v1", "groupPriorityMinimum": 2000,
                "versionPriority": 200, "caBundle": bundle,
                "service": {"namespace": "wardle", "name": "api"}}});
        create(&self.server, SERVICES, object).await;
    }

    async fn becomes(&self, expected: &str) {
        let mut last = String::new();
        let reached = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                last = condition(&self.server).await;
                if last.starts_with(expected) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let reached = reached.await.is_ok();
        assert!(reached, "{expected} expected, but {last}");
    }
}

#[tokio::test]
async fn requests_reach_the_server_behind_an_apiservice() {
    let rig = rig().await;
    let (server, admin) = (&rig.server, User::admin());
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "wardle"}});
    create(server, "/api/v1/namespaces", space).await;
    rig.register().await;
    rig.becomes("False ServiceNotFound: service/api in \"wardle\" is not present").await;
    let flunders = "/apis/w.org/v1/namespaces/default/flunders";
    let (code, text) = get(server, &admin, flunders).await;
    assert_eq!((code, text), (StatusCode::SERVICE_UNAVAILABLE, json!("service unavailable\n")));

    create(server, "/api/v1/namespaces/wardle/services", service()).await;
    rig.becomes("False MissingEndpoints: endpoints for service/api in \"wardle\"").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    rig.endpoint(closed).await;
    rig.becomes("False FailedDiscoveryCheck: failing or missing response from https://").await;
    let port = backend(&rig).await;
    rig.endpoint(port).await;
    rig.becomes("True Passed: all checks passed").await;

    let (code, seen) = get(server, &admin, &format!("{flunders}?limit=5")).await;
    assert_eq!(code, StatusCode::OK, "{seen}");
    assert_eq!(
        seen,
        json!({"path": flunders, "query": "limit=5", "user": ["system:admin"],
            "groups": ["system:masters", "system:authenticated"], "authorization": []})
    );
    // Connections are used again once an answer has been read.
    until("a connection is kept", async || server.context.aggregator.kept() > 0).await;
    for _ in 0..20 {
        assert_eq!(get(server, &admin, flunders).await.0, StatusCode::OK);
    }
    assert!(rig.opened.load(Ordering::Relaxed) < 15);
    let ann = User::new("ann", []);
    assert_eq!(get(server, &ann, flunders).await.0, StatusCode::FORBIDDEN);

    let (_, groups) = get(server, &ann, "/apis").await;
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names.last(), Some(&"w.org"));
    assert_eq!(names.first(), Some(&"apiregistration.k8s.io"));
    let (_, group) = get(server, &ann, "/apis/w.org").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "w.org/v1");
    let (_, list) = get(server, &ann, "/apis/w.org/v1").await;
    assert_eq!(list["resources"][0]["name"], "flunders");
    let (_, index) = get(server, &ann, "/openapi/v3").await;
    assert_eq!(
        index["paths"]["apis/w.org/v1"]["serverRelativeURL"],
        "/openapi/v3/apis/w.org/v1?hash=7"
    );

    let before = rig.described.load(Ordering::Relaxed);
    let (_, v2) = get(server, &ann, "/openapi/v2").await;
    assert!(v2["paths"]["/apis/w.org/v1/flunders"]["get"].is_object());
    assert_eq!(v2["definitions"]["org.w.Flunder"], json!({"type": "object"}));
    assert!(v2["definitions"]["unused"].is_null() && v2["paths"]["/api/v1/pods"].is_object());
    assert_eq!(get(server, &ann, "/openapi/v2").await.1, v2);
    assert_eq!(rig.described.load(Ordering::Relaxed), before + 1, "it is asked once");
    // Another state of the APIService is asked anew, and says by its tag that nothing is new.
    let patch = json!({"spec": {"versionPriority": 201}});
    send(server, &admin, Method::PATCH, &format!("{SERVICES}/v1.w.org"), patch).await;
    assert_eq!(get(server, &ann, "/openapi/v2").await.1, v2);
    assert_eq!(rig.described.load(Ordering::Relaxed), before + 2);

    send(server, &admin, Method::DELETE, &format!("{SERVICES}/v1.w.org"), Value::Null).await;
    assert_eq!(get(server, &admin, flunders).await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(server, &admin, "/apis/w.org").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_the_server_serves_itself_has_apiservices() {
    let rig = rig().await;
    let (server, admin) = (&rig.server, User::admin());
    let (_, apps) = get(server, &admin, &format!("{SERVICES}/v1.apps")).await;
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local", "{apps}");
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (_, map) = get(server, &admin, path).await;
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"system:auth-proxy\"]");
    assert!(map["data"]["requestheader-client-ca-file"].as_str().unwrap().contains("BEGIN"));
    until("nothing is left to write", async || {
        let before = server.context.store.revision();
        tokio::time::sleep(Duration::from_millis(20)).await;
        before == server.context.store.revision()
    })
    .await;
}
