//! Kinds that CustomResourceDefinitions define.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::testing::{get, send, started, until};
use crate::user::User;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/a.test/v1/namespaces/default/boats";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.a.test"},
        "spec": {
            "group": "a.test", "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat", "shortNames": ["bt"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true,
                 "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"}},
                 "additionalPrinterColumns": [{"name": "Crew", "type": "integer", "jsonPath": ".spec.crew"}],
                 "selectableFields": [{"jsonPath": ".spec.colour"}],
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["crew"], "properties": {
                        "crew": {"type": "integer", "maximum": 9},
                        "colour": {"type": "string", "default": "white"},
                        "sails": {"type": "array", "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object",
                            "required": ["name"], "properties": {
                                "name": {"type": "string"}, "area": {"type": "integer"}}}}}},
                    "status": {"type": "object", "properties": {"crew": {"type": "integer"}}}}}}},
                {"name": "v2", "served": true, "storage": false,
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

fn boat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "a.test/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_kind_is_defined_used_and_gone_again() {
    let server = started().await;
    let admin = User::admin();
    let call = async |method, path: &str, body| send(&server, &admin, method, path, body).await;
    let (code, made) = call(Method::POST, CRDS, definition()).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["names"]["listKind"], "BoatList");
    let path = format!("{CRDS}/boats.a.test");
    let crd = async || get(&server, &admin, &path).await.1;
    let established = async || crd().await["status"]["conditions"][1]["type"] == "Established";
    until("it is established", established).await;

    let (code, list) = get(&server, &admin, "/apis/a.test/v2").await;
    assert_eq!(code, StatusCode::OK, "{list}");
    let (_, list) = get(&server, &admin, "/apis/a.test/v1").await;
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["boats", "boats/scale", "boats/status"]);
    let (_, group) = get(&server, &admin, "/apis/a.test").await;
    assert_eq!(group["preferredVersion"]["version"], "v2");
    for path in ["/apis/a.test/v3/boats", "/apis/a.test/v1/oars", "/apis/a.test/v1/boats/one"] {
        let (code, text) = get(&server, &admin, path).await;
        assert_eq!((code.as_u16(), text), (404, json!("404 page not found\n")), "{path}");
    }
    for (method, path, expected) in [
        (Method::GET, "/one/nope", "404 boats.a.test \"one\" not found"),
        (
            Method::POST,
            "/one/status",
            "405 create is not supported on resources of kind \"boats.a.test\"",
        ),
    ] {
        let (code, status) = call(method, &format!("{BOATS}{path}"), Value::Null).await;
        let found = format!("{} {}", code.as_u16(), status["message"].as_str().unwrap_or_default());
        assert_eq!(found, expected);
    }

    let spec = json!({"crew": 2, "odd": 1, "sails": [{"name": "main", "area": 9}]});
    let (code, made) = call(Method::POST, BOATS, boat("one", spec.clone())).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(
        made["spec"],
        json!({"crew": 2, "sails": [{"name": "main", "area": 9}], "colour": "white"})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    let (code, strict) =
        call(Method::POST, &format!("{BOATS}?fieldValidation=Strict"), boat("two", spec)).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(
        strict["message"],
        "Boat in version \"v1\" cannot be handled as a Boat: strict decoding error: unknown field \"spec.odd\""
    );
    let (code, wrong) = call(Method::POST, BOATS, boat("two", json!({"crew": 10}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        wrong["message"],
        "Boat.a.test \"two\" is invalid: spec.crew: Invalid value: 10: spec.crew in body should be less than or equal to 9"
    );
    let one = format!("{BOATS}/one");
    let (_, second) = get(&server, &admin, "/apis/a.test/v2/namespaces/default/boats/one").await;
    assert_eq!((&second["apiVersion"], &second["spec"]["crew"]), (&json!("a.test/v2"), &json!(2)));
    let (_, scale) = get(&server, &admin, &format!("{one}/scale")).await;
    assert_eq!(scale["spec"]["replicas"], 2, "{scale}");
    let more = json!({"spec": {"replicas": 5}});
    let (code, scale) = call(Method::PATCH, &format!("{one}/scale"), more).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (StatusCode::OK, &json!(5)), "{scale}");
    let status = json!({"spec": {"crew": 7}, "status": {"crew": 5, "odd": 1}});
    let (_, shown) = call(Method::PATCH, &format!("{one}/status"), status).await;
    assert_eq!((&shown["spec"]["crew"], &shown["status"]), (&json!(5), &json!({"crew": 5})));
    assert_eq!(shown["metadata"]["generation"], 2);
    let (_, found) =
        get(&server, &admin, &format!("{BOATS}?fieldSelector=spec.colour%3Dwhite")).await;
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let (_, none) = get(&server, &admin, &format!("{BOATS}?fieldSelector=spec.colour%3Dred")).await;
    assert_eq!(none["items"], json!([]));

    let (code, _) = call(Method::DELETE, &path, json!({})).await;
    assert_eq!(code, StatusCode::OK);
    until("it is gone", async || crd().await["code"] == 404).await;
    let (code, _) = get(&server, &admin, BOATS).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

/// A definition with a schema of some size.
fn large(number: usize) -> Value {
    let mut definition = definition();
    let (plural, kind) = (format!("ships{number}"), format!("Ship{number}"));
    definition["metadata"]["name"] = format!("{plural}.a.test").into();
    definition["spec"]["names"] = json!({"plural": plural, "kind": kind});
    let field = |field: usize| {
        let words = format!("What the {field}th field is for, in a sentence of a usual length.");
        let inner = json!({"type": "string", "description": words, "maxLength": 63});
        let list = json!({"type": "array", "description": words, "items": {"type": "object",
            "properties": {"name": inner, "value": inner, "other": inner}}});
        (format!("field{field}"), list)
    };
    let fields: serde_json::Map<_, _> = (0..100).map(field).collect();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["large"] = json!({"type": "object", "properties": fields});
    definition
}

#[tokio::test]
async fn a_definition_that_stays_is_read_once() {
    let server = started().await;
    let kind = |number: usize| {
        let place = ("a.test".to_owned(), "v1".to_owned(), format!("ships{number}"));
        server.context.definitions.get().find(&place).and_then(|row| row.custom.clone())
    };
    crate::testing::create(&server, CRDS, large(0)).await;
    until("the first is established", async || kind(0).is_some()).await;
    let before = kind(0).unwrap();
    crate::testing::create(&server, CRDS, large(1)).await;
    until("the second is established", async || kind(1).is_some()).await;
    assert!(std::sync::Arc::ptr_eq(&before, &kind(0).unwrap()));
    // Words beside the specification change nothing of what was read.
    let path = format!("{CRDS}/ships0.a.test");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, _) = send(&server, &User::admin(), Method::PATCH, &path, label).await;
    assert_eq!(code, StatusCode::OK);
    assert!(std::sync::Arc::ptr_eq(&before, &kind(0).unwrap()));
    let spec = json!({"spec": {"names": {"shortNames": ["x"]}}});
    send(&server, &User::admin(), Method::PATCH, &path, spec).await;
    assert!(!std::sync::Arc::ptr_eq(&before, &kind(0).unwrap()));
}

/// How long definitions take when there are many: run by hand, with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn many_large_definitions() {
    let server = started().await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned()
    };
    println!("{} bytes each; before: {}", large(0).to_string().len(), resident());
    for number in 0..200 {
        let begin = std::time::Instant::now();
        crate::testing::create(&server, CRDS, large(number)).await;
        let created = begin.elapsed();
        let place = ("a.test".to_owned(), "v1".to_owned(), format!("ships{number}"));
        until("established", async || server.context.definitions.get().find(&place).is_some())
            .await;
        let established = begin.elapsed();
        let list = format!("/apis/a.test/v1/namespaces/default/ships{number}");
        assert_eq!(get(&server, &User::admin(), &list).await.0, StatusCode::OK);
        if [0, 49, 99, 199].contains(&number) {
            let listed = begin.elapsed();
            println!(
                "{number}: created {created:?}, established {established:?}, listed {listed:?}; {}",
                resident()
            );
        }
    }
}
