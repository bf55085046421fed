//! What upstream answers in the corners of reading and writing.

use serde_json::{Value, json};

use crate::harness::{Server, configmap};

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

#[tokio::test]
async fn methods_that_a_path_does_not_have() {
    let server = Server::start().await;
    for (method, path) in [
        ("POST", "/api/v1/namespaces/ns/configmaps/a"),
        ("PUT", MAPS),
        ("PATCH", MAPS),
        ("POST", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/namespaces"),
        ("POST", "/api/v1/componentstatuses"),
    ] {
        let answer = server.ask(method, path, &[], "{}").await;
        let text = "405 the server does not allow this method on the requested resource";
        assert_eq!(answer.short(), text, "{method} {path}");
    }
}

#[tokio::test]
async fn a_limit_bounds_what_is_deleted() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.post(MAPS, configmap(name, json!({"x": "y"}))).await.ok();
    }
    let gone = server.delete(&format!("{MAPS}?limit=2"), Value::Null).await.ok();
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&gone), ["a", "b"]);
    assert!(gone["metadata"]["continue"].is_string());
    assert_eq!(names(&server.get(MAPS).await.ok()), ["c"]);
    server.delete(&format!("{MAPS}?labelSelector=x%3Dz"), Value::Null).await.ok();
    assert_eq!(names(&server.get(MAPS).await.ok()), ["c"]);
}

#[tokio::test]
async fn lists_and_watches_that_cannot_be() {
    let server = Server::start().await;
    for (query, expected) in [
        (
            "resourceVersion=abc",
            "400 invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "continue=e30",
            "400 invalid continue token: continue key is not valid: server does not recognize this encoded version",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ] {
        assert_eq!(server.get(&format!("{MAPS}?{query}")).await.short(), expected);
    }
    // Without bookmarks nothing says where the initial state ends.
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let initial = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{MAPS}?{initial}&timeoutSeconds=1")).await;
    assert_eq!(watch.lines(1).await, ["ADDED a"]);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn tables_of_the_older_version() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let accept = |shape: &str| format!("application/json;as={shape};v=v1beta1;g=meta.k8s.io");
    for (path, shape, inside) in [
        (MAPS.to_owned(), "Table", "/rows/0/object/apiVersion"),
        (format!("{MAPS}/a"), "PartialObjectMetadata", "/apiVersion"),
        (MAPS.to_owned(), "PartialObjectMetadataList", "/items/0/apiVersion"),
    ] {
        let answer = server.ask("GET", &path, &[("accept", &accept(shape))], "").await.ok();
        assert_eq!(answer["kind"], shape);
        for pointer in ["/apiVersion", inside] {
            assert_eq!(answer.pointer(pointer).unwrap(), "meta.k8s.io/v1beta1", "{shape}");
        }
    }
}

#[tokio::test]
async fn patches_that_cannot_be_applied() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let path = format!("{MAPS}/a?fieldValidation=Strict");
    for (kind, patch, expected) in [
        (
            "json-patch+json",
            json!({"op": "add"}),
            "400 error decoding patch: a JSON patch is a list of operations",
        ),
        (
            "json-patch+json",
            json!([{"op": "leap", "path": "/data/a"}]),
            "422 the server rejected our request due to an error in our request",
        ),
        (
            "json-patch+json",
            json!([{"op": "add", "path": "/data/a", "value": "b", "odd": 1}]),
            "strict decoding error: json patch unknown field \"[0].odd\"",
        ),
        ("merge-patch+json", json!({"odd": 1}), "strict decoding error: unknown field \"odd\""),
        (
            "merge-patch+json",
            json!({"data": {"k": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "strategic-merge-patch+json",
            json!({"metadata": {"labels": "invalid"}}),
            "422  \"\" is invalid: patch: Invalid value: \"map[metadata:map[labels:invalid]]\": cannot restore map from string",
        ),
        (
            "strategic-merge-patch+json",
            json!({"odd": {"a": 1}}),
            "422  \"\" is invalid: patch: Invalid value: \"map[odd:map[a:1]]\": strict decoding error: unknown field \"odd\"",
        ),
    ] {
        let answer = server.patch(&path, kind, &patch.to_string()).await;
        let found = answer.short();
        assert!(found.ends_with(expected), "{patch}: {found}");
        if found.starts_with("422 the server") {
            assert_eq!(answer.body["details"], json!({}), "upstream gives no cause");
        }
        if !found.starts_with(expected) {
            assert!(
                found.starts_with("422  \"\" is invalid: patch: Invalid value: \"{"),
                "{found}"
            );
            assert_eq!(answer.body["details"]["causes"][0]["field"], "patch");
        }
    }
}

#[tokio::test]
async fn yaml_given_twice_is_told_by_line() {
    let server = Server::start().await;
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: '1'\n  k: '2'\n";
    let line = "yaml: unmarshal errors:\n  line 6: key \"k\" already set in map";
    let yaml = [("content-type", "application/yaml")];
    let made = server.ask("POST", &format!("{MAPS}?fieldValidation=Strict"), &yaml, twice).await;
    let expected = format!(
        "400 ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {line}"
    );
    assert_eq!(made.short(), expected);
    let path = format!("{MAPS}/a?fieldManager=m&fieldValidation=Strict");
    let applied = server.patch(&path, "apply-patch+yaml", twice).await.short();
    let expected = format!("400 error strict decoding YAML: error converting YAML to JSON: {line}");
    assert_eq!(applied, expected);
}

#[tokio::test]
async fn rules_about_requests_are_shown_in_their_order() {
    let server = Server::start().await;
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    for (name, precedence) in [("a", 900), ("b", 100), ("c", 500)] {
        let schema = json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": precedence,
            "priorityLevelConfiguration": {"name": "x"}}});
        server.post(path, schema).await.ok();
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = server.ask("GET", path, &accept, "").await.ok();
    let names: Vec<&str> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|row| row["cells"][0].as_str())
        .filter(|name| name.len() == 1)
        .collect();
    assert_eq!(names, ["b", "c", "a"]);
}

#[tokio::test]
async fn what_is_allowed_but_means_little_is_told() {
    let server = Server::start().await;
    let volumes = "/api/v1/persistentvolumes";
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Recycle", "nfs": {"server": "s", "path": "/"}}});
    let made = server.post(volumes, volume).await;
    let told = made.headers["warning"].to_str().unwrap();
    assert!(told.contains("The Recycle reclaim policy is deprecated"), "{told}");
    assert!(server.post(MAPS, configmap("a.b", json!({}))).await.headers.get("warning").is_none());
}

#[tokio::test]
async fn paths_that_nobody_knows() {
    let server = Server::start().await;
    let plain = "404 page not found\n";
    for path in [
        "/apis/no.test",
        "/apis/no.test/v1",
        "/apis/no.test/v1/things",
        "/apis/no.test/v1/namespaces/ns/things/a",
        "/nonsense",
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (404, plain), "{path}");
    }
    for path in [
        "/api/v2",
        "/api/v1/things",
        "/api/v1/namespaces/ns/nodes",
        "/apis/apps/v9",
        "/apis/apps/v9/deployments",
        "/apis/apps/v1/namespaces/ns/things/a",
    ] {
        let answer = server.get(path).await;
        let expected = "404 the server could not find the requested resource";
        assert_eq!(
            (answer.short().as_str(), &answer.body["kind"]),
            (expected, &json!("Status")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn people_read_indented_failures_and_heads_have_no_body() {
    let server = Server::start().await;
    let path = format!("{MAPS}/none");
    let curl = [("user-agent", "curl/8.5")];
    let answer = server.ask("GET", &path, &curl, "").await;
    assert!(answer.text.starts_with("{\n  \"kind\": \"Status\",\n"), "{}", answer.text);
    assert!(server.get(&path).await.text.starts_with("{\"kind\":\"Status\","));
    assert!(server.ask("GET", "/api", &curl, "").await.text.starts_with("{\n  \"kind\": "));
    let whole = server.get("/version").await.text.len().to_string();
    let head = server.ask("HEAD", "/version", &[], "").await;
    assert_eq!((head.code, head.text.as_str()), (200, ""));
    assert_eq!(head.headers["content-length"], whole.as_str());
}
