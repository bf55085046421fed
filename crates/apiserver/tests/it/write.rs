//! create, update, patch.

use serde_json::{Value, json};

use crate::harness::{Server, configmap, pod};

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";
const PODS: &str = "/api/v1/namespaces/ns/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ns/deployments";

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn create_fills_in_what_the_server_knows() {
    let server = Server::start().await;
    let made = server.post(MAPS, configmap("a", json!({}))).await;
    assert_eq!(made.code, 201);
    let metadata = &made.body["metadata"];
    assert_eq!((&made.body["apiVersion"], &made.body["kind"]), (&json!("v1"), &json!("ConfigMap")));
    assert_eq!(metadata["namespace"], "ns");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.body, made.body);
}

#[tokio::test]
async fn refusals_are_worded_as_upstreams() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    for (path, body, expected) in [
        (MAPS, configmap("a", json!({})), "409 configmaps \"a\" already exists"),
        (
            "/api/v1/namespaces/none/configmaps",
            configmap("a", json!({})),
            "404 namespaces \"none\" not found",
        ),
        (
            MAPS,
            json!({"metadata": {}}),
            "422 ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "b", "namespace": "other"}}),
            "400 the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "b", "resourceVersion": "1"}}),
            "500 resourceVersion should not be set on objects to be created",
        ),
        (
            MAPS,
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            "400 the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            PODS,
            json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "x", "containers": []}}),
            "403 pods \"p\" is forbidden: error looking up service account ns/x: serviceaccount \"x\" not found",
        ),
        (
            "/api/v1/configmaps",
            configmap("a", json!({})),
            "405 the server does not allow this method on the requested resource",
        ),
    ] {
        assert_eq!(server.post(path, body).await.short(), expected);
    }
    let typed = server.post(MAPS, json!({"metadata": {"name": "b"}, "data": "x"})).await.short();
    assert!(typed.starts_with("400 ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal string"), "{typed}");
    let broken = server.ask("POST", MAPS, &[], "{").await;
    assert_eq!((broken.code, broken.body["reason"].as_str()), (400, Some("BadRequest")));
    assert_eq!(server.ask("POST", MAPS, &[("content-type", "text/plain")], "x").await.code, 415);
    assert_eq!(server.ask("GET", MAPS, &[("accept", "text/html")], "").await.code, 406);
}

#[tokio::test]
async fn generated_names_and_dry_runs() {
    let server = Server::start().await;
    let made = server.post(MAPS, json!({"metadata": {"generateName": "web-"}})).await.ok();
    let name = made["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");

    let dry = server.post(&format!("{MAPS}?dryRun=All"), configmap("dry", json!({}))).await;
    assert_eq!(dry.code, 201);
    assert!(dry.body["metadata"]["uid"].is_string());
    assert_eq!(
        server.get(&format!("{MAPS}/dry")).await.short(),
        "404 configmaps \"dry\" not found"
    );
    assert_eq!(
        server.post(&format!("{MAPS}?dryRun=Some"), configmap("dry", json!({}))).await.code,
        422
    );

    let mut changed = made.clone();
    changed["data"] = json!({"x": "y"});
    server.put(&format!("{MAPS}/{name}?dryRun=All"), &changed).await.ok();
    server.delete(&format!("{MAPS}/{name}?dryRun=All"), Value::Null).await.ok();
    assert_eq!(server.get(&format!("{MAPS}/{name}")).await.ok(), made);
}

#[tokio::test]
async fn unknown_fields_warn_or_refuse() {
    let server = Server::start().await;
    let body = |name: &str| json!({"metadata": {"name": name}, "nonsense": 1});
    let warned = server.post(MAPS, body("a")).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"nonsense\\\"\"");
    assert!(warned.ok()["nonsense"].is_null());
    let strict = server.post(&format!("{MAPS}?fieldValidation=Strict"), body("b")).await;
    assert_eq!(
        strict.short(),
        "400 ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"nonsense\""
    );
    let twice = r#"{"metadata":{"name":"d"},"data":{"k":"1"},"data":{"k":"2"}}"#;
    let twice = server.ask("POST", MAPS, &[], twice).await;
    assert_eq!(twice.headers["warning"], "299 - \"duplicate field \\\"data\\\"\"");
    assert_eq!(twice.ok()["data"]["k"], "2");
    let ignored = server.post(&format!("{MAPS}?fieldValidation=Ignore"), body("c")).await;
    assert!(ignored.headers.get("warning").is_none());
}

#[tokio::test]
async fn patches_and_yaml_tell_of_fields_given_twice() {
    let server = Server::start().await;
    let yaml = [("content-type", "application/yaml")];
    let twice = "metadata: {name: twice}\ndata: {k: '1'}\ndata: {k: '2'}\n";
    let made = server.ask("POST", MAPS, &yaml, twice).await;
    let told = "299 - \"line 3: key \\\"data\\\" already set in map\"";
    assert_eq!(made.headers["warning"], told);
    assert_eq!(made.ok()["data"]["k"], "2");
    let strict = format!("{MAPS}/twice?fieldValidation=Strict");
    for kind in ["merge-patch+json", "strategic-merge-patch+json"] {
        let kind = format!("application/{kind}");
        let patch = r#"{"data": {"k": "3", "k": "4"}}"#;
        let refused = server.ask("PATCH", &strict, &[("content-type", &kind)], patch).await;
        let refused = refused.short();
        let why = "strict decoding error: duplicate field \"data.k\"";
        assert!(refused.starts_with("422  \"\" is invalid: patch: Invalid value: "), "{refused}");
        assert!(refused.ends_with(why), "{refused}");
    }
}

#[tokio::test]
async fn invalid_objects_name_every_field() {
    let server = Server::start().await;
    let mut wrong = deployment("web");
    wrong["spec"]["selector"] = json!({"matchLabels": {"no": "such"}});
    wrong["spec"]["template"]["spec"]["containers"][0]["image"] = json!("");
    let labels = wrong["spec"]["template"]["metadata"]["labels"].clone();
    assert_eq!(
        server.post(DEPLOYMENTS, wrong).await.short(),
        format!(
            "422 Deployment.apps \"web\" is invalid: [spec.template.metadata.labels: Invalid value: {labels}: `selector` does not match template `labels`, spec.template.spec.containers[0].image: Required value]"
        )
    );
    let made = server.post(DEPLOYMENTS, deployment("web")).await.ok();
    let mut other = made.clone();
    other["spec"]["selector"] = json!({"matchLabels": {}});
    let refused = server.put(&format!("{DEPLOYMENTS}/web"), &other).await.short();
    assert!(
        refused.contains("spec.selector: Invalid value: {\"matchLabels\":{}}: field is immutable"),
        "{refused}"
    );
}

#[tokio::test]
async fn updates_are_compared_and_counted() {
    let server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let first = server.post(DEPLOYMENTS, deployment("web")).await.ok();
    assert_eq!(first["metadata"]["generation"], 1);

    let same = server.put(&path, &first).await.ok();
    assert_eq!(same["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);

    let mut wish = first.clone();
    wish["spec"]["replicas"] = json!(3);
    let second = server.put(&path, &wish).await.ok();
    assert_eq!(second["metadata"]["generation"], 2);
    assert_eq!(
        server.put(&path, &wish).await.short(),
        "409 Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again"
    );

    let mut unconditional = deployment("web");
    unconditional["metadata"]["uid"] = json!("other");
    let refused = server.put(&path, &unconditional).await;
    assert!(
        refused.short().contains("Precondition failed: UID in precondition: other"),
        "{}",
        refused.text
    );

    let mut renamed = deployment("web");
    renamed["metadata"]["name"] = json!("x");
    assert_eq!(
        server.put(&path, &renamed).await.short(),
        "400 the name of the object (x) does not match the name on the URL (web)"
    );
    assert_eq!(
        server.put(&format!("{DEPLOYMENTS}/none"), &deployment("none")).await.short(),
        "404 deployments.apps \"none\" not found"
    );
}

#[tokio::test]
async fn leases_are_made_by_put_and_replaced_with_their_version_only() {
    let server = Server::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l";
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    assert_eq!(server.put(path, &lease).await.code, 201);
    assert_eq!(
        server.put(path, &lease).await.short(),
        "422 Lease.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );
}

#[tokio::test]
async fn status_and_spec_do_not_mix() {
    let server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut object = server.post(DEPLOYMENTS, deployment("web")).await.ok();
    object["status"] = json!({"replicas": 5});
    object["spec"]["replicas"] = json!(9);
    let written = server.put(&format!("{path}/status"), &object).await.ok();
    assert_eq!(
        (&written["spec"]["replicas"], &written["status"]["replicas"]),
        (&json!(1), &json!(5))
    );
    assert_eq!(written["metadata"]["generation"], 1);

    let body = r#"{"status":{"replicas":7},"spec":{"replicas":2}}"#;
    let merged = server.patch(&path, "merge-patch+json", body).await.ok();
    assert_eq!(
        (&merged["spec"]["replicas"], &merged["status"]["replicas"]),
        (&json!(2), &json!(5))
    );
}

#[tokio::test]
async fn patches_of_each_kind() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({"x": "1"}))).await.ok();
    let path = format!("{MAPS}/a");
    let json =
        r#"[{"op":"test","path":"/data/k","value":"v"},{"op":"add","path":"/data/j","value":"1"}]"#;
    assert_eq!(
        server.patch(&path, "json-patch+json", json).await.ok()["data"],
        json!({"k": "v", "j": "1"})
    );
    let failing = r#"[{"op":"test","path":"/data/k","value":"w"}]"#;
    assert_eq!(server.patch(&path, "json-patch+json", failing).await.code, 422);
    assert_eq!(server.patch(&path, "json-patch+json", "{").await.code, 400);
    let merge = r#"{"data":{"k":null},"metadata":{"labels":{"x":"2"}}}"#;
    let merged = server.patch(&path, "merge-patch+json", merge).await.ok();
    assert_eq!(
        (&merged["data"], &merged["metadata"]["labels"]["x"]),
        (&json!({"j": "1"}), &json!("2"))
    );
    let strategic = r#"{"data":{"s":"t"}}"#;
    let merged = server.patch(&path, "strategic-merge-patch+json", strategic).await.ok();
    assert_eq!(merged["data"], json!({"j": "1", "s": "t"}));
    let stale = r#"{"metadata":{"resourceVersion":"1"},"data":{"z":"z"}}"#;
    assert_eq!(server.patch(&path, "merge-patch+json", stale).await.code, 409);
    assert_eq!(server.patch(&path, "x-patch", "{}").await.code, 415);
    let renamed = r#"{"metadata":{"name":"b"}}"#;
    assert_eq!(
        server.patch(&path, "merge-patch+json", renamed).await.short(),
        "400 the name of the object (b) does not match the name on the URL (a)"
    );
    assert_eq!(server.patch(&format!("{MAPS}/none"), "merge-patch+json", "{}").await.code, 404);
}

#[tokio::test]
async fn applies_create_and_change() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n";
    assert_eq!(
        server.patch(&path, "apply-patch+yaml", yaml).await.short(),
        "422 PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let path = format!("{path}?fieldManager=me");
    assert_eq!(server.patch(&path, "apply-patch+yaml", yaml).await.code, 201);
    let again = server.patch(&path, "apply-patch+yaml", &yaml.replace("k: v", "k: w")).await;
    assert_eq!((again.code, &again.body["data"]["k"]), (200, &json!("w")));
}

#[tokio::test]
async fn concurrent_patches_all_count() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let path = format!("{MAPS}/a");
    let bodies: Vec<String> = (0..20).map(|n| format!(r#"{{"data":{{"n{n}":"x"}}}}"#)).collect();
    let all = bodies.iter().map(|body| server.patch(&path, "merge-patch+json", body));
    for answer in futures::future::join_all(all).await {
        answer.ok();
    }
    assert_eq!(server.get(&path).await.ok()["data"].as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn pods_are_admitted_with_account_priority_and_tolerations() {
    let server = Server::start().await;
    let made = server.post(PODS, pod("p")).await.ok();
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert!(spec["volumes"][0]["projected"].is_object());
    assert_eq!(
        spec["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["metadata"]["generation"], 1);
}

#[tokio::test]
async fn services_get_addresses_of_their_own() {
    let server = Server::start().await;
    let services = "/api/v1/namespaces/ns/services";
    let body = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let fixed = json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53}]});
    server.post(services, body("dns", fixed.clone())).await.ok();
    assert_eq!(
        server.post(services, body("other", fixed.clone())).await.short(),
        "422 Service \"other\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.10\"]: failed to allocate IP 10.43.0.10: provided IP is already allocated"
    );
    server.delete(&format!("{services}/dns"), Value::Null).await.ok();
    server.post(services, body("other", fixed)).await.ok();

    let many = (0..20).map(|n| {
        server.post(
            services,
            body(&format!("s{n}"), json!({"type": "NodePort", "ports": [{"port": 80}]})),
        )
    });
    let mut ports = std::collections::BTreeSet::new();
    let mut addresses = std::collections::BTreeSet::new();
    for answer in futures::future::join_all(many).await {
        let made = answer.ok();
        ports.insert(made["spec"]["ports"][0]["nodePort"].as_u64().unwrap());
        addresses.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned());
    }
    assert_eq!((ports.len(), addresses.len()), (20, 20));
}

#[tokio::test]
async fn events_speak_two_vocabularies() {
    let server = Server::start().await;
    let event = json!({"metadata": {"name": "e"}, "message": "hello", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "ns"}});
    server.post("/api/v1/namespaces/ns/events", event).await.ok();
    let newer = server.get("/apis/events.k8s.io/v1/namespaces/ns/events/e").await.ok();
    assert_eq!(
        (&newer["apiVersion"], &newer["note"]),
        (&json!("events.k8s.io/v1"), &json!("hello"))
    );
    let list = server.get("/apis/events.k8s.io/v1/events").await.ok();
    assert_eq!(
        (&list["kind"], &list["items"][0]["regarding"]["name"]),
        (&json!("EventList"), &json!("p"))
    );
}

#[tokio::test]
async fn answers_in_the_notation_asked_for() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let path = format!("{MAPS}/a");
    let yaml = server.ask("GET", &path, &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.text.contains("\nkind: ConfigMap\n"), "{}", yaml.text);
    let pretty = server.get(&format!("{path}?pretty=true")).await;
    assert!(pretty.text.starts_with("{\n  \"apiVersion\""), "{}", pretty.text);
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let partial = server.ask("GET", &path, &[("accept", partial)], "").await.ok();
    assert_eq!((&partial["kind"], partial.get("data")), (&json!("PartialObjectMetadata"), None));
    let body = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: m}\ndata: {k: \"1\"}\n";
    let made = server.ask("POST", MAPS, &[("content-type", "application/yaml")], body).await.ok();
    assert_eq!(made["data"]["k"], "1");
}

#[tokio::test]
async fn deprecated_kinds_say_so() {
    let server = Server::start().await;
    let answer = server.get("/api/v1/endpoints").await;
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(warning.contains("v1 Endpoints is deprecated in v1.33+"), "{warning}");
    assert!(server.get(MAPS).await.headers.get("warning").is_none());
}

#[tokio::test]
async fn bodies_in_protobuf() {
    let server = Server::start().await;
    // metadata.name "a" and data {"k": "v"}, in the envelope that says v1 ConfigMap.
    let raw = b"\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v";
    let meta = b"\x0a\x02v1\x12\x09ConfigMap";
    let mut body = b"k8s\0\x0a".to_vec();
    body.push(meta.len() as u8);
    body.extend_from_slice(meta);
    body.push(0x12);
    body.push(raw.len() as u8);
    body.extend_from_slice(raw);
    let body = String::from_utf8(body).unwrap();
    let kind = ("content-type", "application/vnd.kubernetes.protobuf");
    let made = server.ask("POST", MAPS, &[kind], &body).await.ok();
    assert_eq!((&made["metadata"]["name"], &made["data"]), (&json!("a"), &json!({"k": "v"})));
    assert_eq!(server.ask("POST", MAPS, &[kind], "{}").await.code, 400);
}
