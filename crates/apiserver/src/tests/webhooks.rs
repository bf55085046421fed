//! Admission webhooks, asked over TLS at a port of this machine.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::testing::{create, send, started};
use crate::user::User;
use crate::{ApiServer, testing};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A webhook that answers what a function says, and what it was asked.
struct Hook {
    client: Value,
    asked: Arc<Mutex<Vec<Value>>>,
}

type Answer = fn(&Value) -> Value;

impl Hook {
    /// Its certificate is its own authority, as many operators make them.
    async fn start(answer: Answer) -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], der)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/hook", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let log = Arc::clone(&log);
                let service =
                    hyper::service::service_fn(move |request: http::Request<Incoming>| {
                        let log = Arc::clone(&log);
                        async move {
                            let bytes = request.into_body().collect().await.unwrap().to_bytes();
                            let review: Value = serde_json::from_slice(&bytes).unwrap();
                            let mut response = answer(&review["request"]);
                            response["uid"] = review["request"]["uid"].clone();
                            log.lock().unwrap().push(review["request"].clone());
                            let answer = json!({"kind": "AdmissionReview",
                            "apiVersion": review["apiVersion"], "response": response});
                            let body = Full::new(bytes::Bytes::from(answer.to_string()));
                            Ok::<_, std::convert::Infallible>(http::Response::new(body))
                        }
                    });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        let client = json!({"url": url, "caBundle": STANDARD.encode(certificate.pem())});
        Hook { client, asked }
    }

    /// As an entry of a configuration, for all of a resource.
    fn entry(&self, operations: &[&str], resource: &str) -> Value {
        json!({"name": "hook.example.com", "clientConfig": self.client, "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchExpressions": [
                {"key": "hooks", "operator": "NotIn", "values": ["off"]}]},
            "rules": [{"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"],
                "resources": [resource]}]})
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

async fn configure(server: &Arc<ApiServer>, path: &str, entries: Vec<Value>) {
    create(server, path, json!({"metadata": {"name": "hooks"}, "webhooks": entries})).await;
}

async fn post(server: &Arc<ApiServer>, path: &str, body: Value) -> (StatusCode, Value) {
    send(server, &User::admin(), Method::POST, path, body).await
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn patching(patch: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

#[tokio::test]
async fn a_validating_webhook_refuses_with_its_own_words() {
    let server = started().await;
    let hook = Hook::start(|request| {
        let bad = request["object"]["data"]["bad"] == "yes" || request["operation"] == "DELETE";
        json!({"allowed": !bad, "status": {"message": "it is bad", "code": 403, "reason": "Forbidden"},
            "warnings": ["looked at"]})
    })
    .await;
    let entry = hook.entry(&["CREATE", "UPDATE", "DELETE"], "configmaps");
    configure(&server, VALIDATING, vec![entry]).await;
    create(&server, MAPS, map("good")).await;
    let mut bad = map("bad");
    bad["data"]["bad"] = "yes".into();
    let (code, status) = post(&server, MAPS, bad.clone()).await;
    assert_eq!((code.as_u16(), &status["reason"]), (403, &json!("Forbidden")));
    let denied = "admission webhook \"hook.example.com\" denied the request: it is bad";
    assert_eq!(status["message"], denied);
    let path = format!("{MAPS}/good");
    let patch = json!({"data": {"bad": "yes"}});
    let (_, status) = send(&server, &User::admin(), Method::PATCH, &path, patch).await;
    assert_eq!(status["message"], denied);
    for path in [path.as_str(), MAPS] {
        let (code, status) = send(&server, &User::admin(), Method::DELETE, path, Value::Null).await;
        assert_eq!((code.as_u16(), &status["message"]), (403, &json!(denied)));
    }
    let request = testing::request(Method::POST, MAPS, &map("warned"));
    let answer = Arc::clone(&server).answer(request, Some(User::admin())).await;
    assert_eq!(answer.headers()["warning"], "299 - \"looked at\"");

    let first = &hook.asked()[0];
    assert_eq!(first["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(first["userInfo"]["username"], "system:admin");
    assert_eq!(first["options"]["kind"], "CreateOptions");
    assert_eq!((&first["name"], &first["namespace"]), (&json!("good"), &json!("default")));
    assert!(first["oldObject"].is_null() && first["object"]["metadata"]["uid"].is_string());
    // A configuration is never held against itself, and counts until it is gone.
    let path = format!("{VALIDATING}/hooks");
    let (code, _) = send(&server, &User::admin(), Method::DELETE, &path, Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    create(&server, MAPS, bad).await;
}

#[tokio::test]
async fn mutating_webhooks_see_each_other_and_are_asked_again() {
    let server = started().await;
    let first = Hook::start(|request| {
        let seen = request["object"]["data"]["second"].is_string();
        let patch = json!([{"op": "add", "path": "/data/first", "value": seen.to_string()}]);
        patching(&patch)
    })
    .await;
    let second = Hook::start(|_| {
        patching(&json!([
            {"op": "add", "path": "/data/second", "value": "x"},
            {"op": "add", "path": "/nonsense", "value": 1},
        ]))
    })
    .await;
    let mut again = first.entry(&["CREATE"], "configmaps");
    again["reinvocationPolicy"] = "IfNeeded".into();
    let mut once = second.entry(&["CREATE"], "configmaps");
    once["name"] = "second.example.com".into();
    configure(&server, MUTATING, vec![again, once]).await;
    let made = create(&server, MAPS, map("m")).await;
    assert_eq!(made["data"], json!({"a": "1", "first": "true", "second": "x"}));
    assert!(made["nonsense"].is_null());
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
}

#[tokio::test]
async fn failure_policy_and_side_effects_count() {
    let server = started().await;
    let gone = json!({"url": "https://127.0.0.1:1/x"});
    let hook = Hook::start(|_| json!({"allowed": true})).await;
    let mut entry = hook.entry(&["CREATE"], "configmaps");
    entry["clientConfig"]["url"] = gone["url"].clone();
    configure(&server, VALIDATING, vec![entry]).await;
    let (code, status) = post(&server, MAPS, map("m")).await;
    let message = status["message"].as_str().unwrap();
    assert_eq!(code.as_u16(), 500);
    assert!(
        message.starts_with("Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/x?timeout=10s\": "),
        "{message}"
    );
    let path = format!("{VALIDATING}/hooks");
    let (_, mut configuration) =
        send(&server, &User::admin(), Method::GET, &path, Value::Null).await;
    configuration["webhooks"][0]["failurePolicy"] = "Ignore".into();
    let (code, _) = send(&server, &User::admin(), Method::PUT, &path, configuration.clone()).await;
    assert_eq!(code, StatusCode::OK);
    create(&server, MAPS, map("m")).await;
}

#[tokio::test]
async fn views_and_connections_are_seen_as_what_they_are() {
    let server = started().await;
    let hook = Hook::start(|request| {
        let allowed = request["operation"] != "CONNECT";
        json!({"allowed": allowed, "status": {"message": "nobody looks inside"}})
    })
    .await;
    create(
        &server,
        "/apis/apps/v1/namespaces/default/replicasets",
        json!({"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    )
    .await;
    let mut entry = hook.entry(&["*"], "replicasets/*");
    entry["rules"][0]["resources"] = json!(["replicasets/*", "pods/exec"]);
    // Matched as the version that the rule names; a condition looks at what is sent.
    entry["matchConditions"] =
        json!([{"name": "no-leases", "expression": "request.resource.resource != 'leases'"}]);
    configure(&server, VALIDATING, vec![entry]).await;
    let path = "/apis/apps/v1/namespaces/default/replicasets/r/scale";
    let patch = json!({"spec": {"replicas": 3}});
    let (code, scale) = send(&server, &User::admin(), Method::PATCH, path, patch).await;
    assert_eq!(code, StatusCode::OK, "{scale}");
    let seen = hook.asked().pop().unwrap();
    assert_eq!(seen["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(
        (&seen["object"]["spec"]["replicas"], &seen["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(seen["subResource"], "scale");
    let path = "/api/v1/namespaces/default/pods/p/exec?command=ls&stdin=true";
    let (code, status) = send(&server, &User::admin(), Method::POST, path, Value::Null).await;
    let denied = "admission webhook \"hook.example.com\" denied the request: nobody looks inside";
    assert_eq!((code.as_u16(), &status["message"]), (400, &json!(denied)));
    let seen = hook.asked().pop().unwrap();
    assert_eq!(
        seen["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "stderr": true,
            "stdin": true, "command": ["ls"]})
    );
}

/// Boats of two versions that a webhook translates: v1 counts a crew, v2 its sailors.
fn converted(request: &Value) -> Value {
    let wanted = &request["desiredAPIVersion"];
    let convert = |object: &Value| {
        let mut object = object.clone();
        let (from, to) = match wanted == "a.test/v2" {
            true => ("crew", "sailors"),
            false => ("sailors", "crew"),
        };
        object["apiVersion"] = wanted.clone();
        let count = object["spec"][from].clone();
        object["spec"] = json!({to: count});
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

#[tokio::test]
async fn webhooks_and_policies_see_objects_translated() {
    let server = started().await;
    let translator = Hook::start(converted).await;
    let version = |name: &str, field: &str| {
        json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                field: {"type": "integer"}}}}}}})
    };
    let definition = json!({"metadata": {"name": "boats.a.test"}, "spec": {"group": "a.test",
        "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"},
        "versions": [version("v1", "crew"), version("v2", "sailors")],
        "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": translator.client,
            "conversionReviewVersions": ["v1"]}}}});
    create(&server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let place = ("a.test".to_owned(), "v1".to_owned(), "boats".to_owned());
    let served = async || server.context.definitions.get().find(&place).is_some();
    testing::until("boats are served", served).await;

    let more = Hook::start(|request| {
        let count = request["object"]["spec"]["sailors"].as_i64().unwrap_or(100) + 1;
        patching(&json!([{"op": "replace", "path": "/spec/sailors", "value": count}]))
    })
    .await;
    let looking = Hook::start(|_| json!({"allowed": true})).await;
    for (path, hook) in [(MUTATING, &more), (VALIDATING, &looking)] {
        let mut entry = hook.entry(&["CREATE", "UPDATE"], "boats");
        entry["rules"][0]["apiVersions"] = json!(["v2"]);
        let mut second = entry.clone();
        second["name"] = "second.example.com".into();
        let both = path == VALIDATING;
        configure(&server, path, [entry, second].into_iter().take(1 + usize::from(both)).collect())
            .await;
    }
    let rule = json!({"operations": ["*"], "apiGroups": ["a.test"], "apiVersions": ["v2"],
        "resources": ["boats"]});
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    create(
        &server,
        policies,
        json!({"metadata": {"name": "few"}, "spec": {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec.sailors < 9"}]}}),
    )
    .await;
    let bindings = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    create(
        &server,
        bindings,
        json!({
        "metadata": {"name": "few"}, "spec": {"policyName": "few", "validationActions": ["Deny"]}}),
    )
    .await;

    let boats = "/apis/a.test/v1/namespaces/default/boats";
    let boat = |name: &str, crew: u64| {
        json!({"apiVersion": "a.test/v1", "kind": "Boat",
        "metadata": {"name": name}, "spec": {"crew": crew}})
    };
    let made = create(&server, boats, boat("one", 3)).await;
    // To v2 for the mutating webhook and back, and to v2 once for all that look: two webhooks and
    // a policy.
    let wanted: Vec<Value> =
        translator.asked().into_iter().map(|asked| asked["desiredAPIVersion"].clone()).collect();
    assert_eq!(wanted, ["a.test/v2", "a.test/v1", "a.test/v2"]);
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("a.test/v1"), &json!({"crew": 4})));
    let seen = looking.asked().pop().unwrap();
    assert_eq!(seen["object"]["apiVersion"], "a.test/v2");
    assert_eq!(seen["object"]["spec"], json!({"sailors": 4}));
    assert_eq!(seen["requestKind"]["version"], "v1");
    let (_, refused) = post(&server, boats, boat("two", 8)).await;
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with("failed expression: object.spec.sailors < 9"), "{message}");
    let patch = json!({"spec": {"crew": 5}});
    let path = format!("{boats}/one");
    let (_, changed) = send(&server, &User::admin(), Method::PATCH, &path, patch).await;
    assert_eq!(changed["spec"], json!({"crew": 6}), "{changed}");
    let seen = looking.asked().pop().unwrap();
    assert_eq!(seen["oldObject"]["spec"], json!({"sailors": 4}));
}
