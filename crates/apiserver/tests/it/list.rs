//! Lists: pages, selectors, versions.

use serde_json::{Value, json};

use crate::harness::{Server, configmap, pod};

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

fn names(list: &Value) -> String {
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    names.join(" ")
}

async fn five() -> Server {
    let server = Server::start().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "x")] {
        server.post(MAPS, configmap(name, json!({"tier": tier}))).await.ok();
    }
    server
}

#[tokio::test]
async fn pages_show_one_state() {
    let server = five().await;
    let first = server.get(&format!("{MAPS}?limit=2")).await.ok();
    assert_eq!(
        (names(&first).as_str(), &first["metadata"]["remainingItemCount"]),
        ("a b", &json!(3))
    );
    server.delete(&format!("{MAPS}/c"), Value::Null).await.ok();
    server.post(MAPS, configmap("cc", json!({}))).await.ok();

    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!(names(&second), "c d");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server.get(&format!("{MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!((names(&third).as_str(), third["metadata"].get("continue")), ("e", None));

    let with_version = format!("{MAPS}?continue={token}&resourceVersion=5");
    assert_eq!(
        server.get(&with_version).await.short(),
        "400 specifying resource version is not allowed when using continue"
    );
    assert_eq!(server.get(&format!("{MAPS}?continue=x")).await.code, 400);
}

#[tokio::test]
async fn selectors_and_pages_go_together() {
    let server = five().await;
    let list = server.get(&format!("{MAPS}?labelSelector=tier%3Dx&limit=2")).await.ok();
    assert_eq!((names(&list).as_str(), list["metadata"].get("remainingItemCount")), ("a c", None));
    let token = list["metadata"]["continue"].as_str().unwrap();
    let rest =
        server.get(&format!("{MAPS}?labelSelector=tier%3Dx&limit=2&continue={token}")).await.ok();
    assert_eq!((names(&rest).as_str(), rest["metadata"].get("continue")), ("e", None));
    let named = server.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.ok();
    assert_eq!(names(&named), "b");
    assert_eq!(
        names(&server.get("/api/v1/configmaps?labelSelector=tier%20in%20(y)").await.ok()),
        "b d"
    );
    assert_eq!(server.get(&format!("{MAPS}?labelSelector=%3D%3D")).await.code, 400);
    for (query, expected) in [
        (
            "fieldSelector=spec.x%3Db",
            r#"400 "spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#,
        ),
        (
            "labelSelector=a%3D(b",
            "400 unable to parse requirement: found '(', expected: identifier",
        ),
    ] {
        assert_eq!(server.get(&format!("{MAPS}?{query}")).await.short(), expected);
    }
}

#[tokio::test]
async fn field_selectors_look_into_objects() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/ns/pods";
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!(node);
        server.post(pods, pod).await.ok();
    }
    assert_eq!(names(&server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await.ok()), "b");
    assert_eq!(
        names(&server.get("/api/v1/pods?fieldSelector=status.phase!%3DPending").await.ok()),
        ""
    );
}

#[tokio::test]
async fn versions_of_a_list() {
    let server = five().await;
    let now =
        server.get(MAPS).await.ok()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.post(MAPS, configmap("f", json!({}))).await.ok();
    let exact = format!("{MAPS}?resourceVersion={now}&resourceVersionMatch=Exact");
    assert_eq!(names(&server.get(&exact).await.ok()), "a b c d e");
    let newer = format!("{MAPS}?resourceVersion={now}&resourceVersionMatch=NotOlderThan");
    assert_eq!(names(&server.get(&newer).await.ok()), "a b c d e f");
    assert_eq!(names(&server.get(&format!("{MAPS}?resourceVersion=0")).await.ok()), "a b c d e f");
    assert_eq!(
        server.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.short(),
        "422 ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    );
    const WHY: &str =
        r#"resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#;
    for (path, expected) in [
        (format!("{MAPS}?resourceVersion=x"), format!("400 invalid resource version: {WHY}")),
        (format!("{MAPS}/a?resourceVersion=x"), format!("500 {WHY}")),
        (format!("{MAPS}?watch=true&resourceVersion=x"), format!("500 {WHY}")),
        (
            "/api/v1/namespaces/ns/events/a?resourceVersion=x".to_owned(),
            format!("400 invalid resource version: {WHY}"),
        ),
        (
            format!("{MAPS}/a?resourceVersion=99999999999999999999"),
            format!("500 {WHY}")
                .replace("\"x\"", "\"99999999999999999999\"")
                .replace("invalid syntax", "value out of range"),
        ),
    ] {
        assert_eq!(server.get(&path).await.short(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_list_of_any_version_has_no_pages() {
    let server = five().await;
    let whole = server.get(&format!("{MAPS}?limit=2&resourceVersion=0")).await.ok();
    assert_eq!((names(&whole).as_str(), whole["metadata"].get("continue")), ("a b c d e", None));
    // Upstream's cache has no events.
    for name in ["a", "b"] {
        let event = json!({"metadata": {"name": name}, "involvedObject": {"namespace": "ns"}});
        server.post("/api/v1/namespaces/ns/events", event).await.ok();
    }
    let page = server.get("/api/v1/namespaces/ns/events?limit=1&resourceVersion=0").await.ok();
    assert_eq!(names(&page), "a");
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = format!("{MAPS}?limit=2&resourceVersion=0&continue={token}");
    assert_eq!(names(&server.get(&rest).await.ok()), "b c", "pages go on as pages");
}

#[tokio::test]
async fn items_of_built_in_kinds_do_not_say_what_they_are() {
    let server = five().await;
    let beta = "/apis/events.k8s.io/v1/namespaces/ns/events";
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "ns"}});
    server.post("/api/v1/namespaces/ns/events", event).await.ok();
    for (path, headers, member) in [
        (MAPS, &[("accept", "application/json")][..], "/items/0"),
        (MAPS, &[("user-agent", "curl/8")], "/items/1"),
        (beta, &[], "/items/0"),
    ] {
        let list = server.ask("GET", path, headers, "").await.ok();
        let item = list.pointer(member).unwrap();
        assert!(list["kind"].as_str().unwrap().ends_with("List"), "{list}");
        assert_eq!((item.get("kind"), item.get("apiVersion")), (None, None), "{path}: {item}");
        assert!(item["metadata"]["resourceVersion"].is_string(), "{item}");
    }
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = server.ask("GET", MAPS, &[("accept", partial)], "").await.ok();
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata", "shapes do");
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let rows = format!("{MAPS}?includeObject=Object");
    let list = server.ask("GET", &rows, &[("accept", table)], "").await.ok();
    assert_eq!(list["rows"][0]["object"]["kind"], "ConfigMap", "and so do rows");
    let gone = server.delete(MAPS, Value::Null).await.ok();
    assert_eq!((&gone["kind"], gone["items"][0].get("kind")), (&json!("ConfigMapList"), None));
}

#[tokio::test]
async fn expired_tokens_come_with_a_fresh_one() {
    let options = store::Options { window_max_events: 4, ..store::Options::default() };
    let server = Server::with(options).await;
    for name in ["a", "b", "c"] {
        server.post(MAPS, configmap(name, json!({}))).await.ok();
    }
    let list = server.get(&format!("{MAPS}?limit=1")).await.ok();
    let (token, version) = (
        list["metadata"]["continue"].as_str().unwrap(),
        list["metadata"]["resourceVersion"].as_str().unwrap(),
    );
    for n in 0..8 {
        let body = format!(r#"{{"data":{{"n":"{n}"}}}}"#);
        server.patch(&format!("{MAPS}/a"), "merge-patch+json", &body).await.ok();
    }
    let expired = server.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((expired.code, expired.body["reason"].as_str()), (410, Some("Expired")));
    assert!(expired.short().starts_with("410 The provided continue parameter is too old"));
    let fresh = expired.body["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&server.get(&format!("{MAPS}?continue={fresh}")).await.ok()), "b c");
    let exact = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(
        server.get(&exact).await.short(),
        "410 The resourceVersion for the provided list is too old."
    );
    let watch = server.get(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    assert_eq!((watch.code, watch.body["type"].as_str()), (200, Some("ERROR")), "{}", watch.text);
    let status = &watch.body["object"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
    assert!(watch.text.contains("too old resource version: "), "{}", watch.text);
}

#[tokio::test]
async fn long_lists_arrive_whole() {
    let server = Server::start().await;
    let text = "x".repeat(3000);
    let all = (0..200).map(|n| {
        server.post(MAPS, json!({"metadata": {"name": format!("m{n:03}")}, "data": {"t": text}}))
    });
    for answer in futures::future::join_all(all).await {
        answer.ok();
    }
    let list = server.get("/api/v1/configmaps").await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 200);
    assert_eq!(list["items"][199]["metadata"]["name"], "m199");
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let partial = server.ask("GET", MAPS, &[("accept", partial)], "").await.ok();
    assert_eq!(
        (&partial["kind"], &partial["items"][0]["kind"]),
        (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"))
    );
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::test]
async fn tables_for_people() {
    let server = five().await;
    let table = server.ask("GET", MAPS, &[("accept", TABLE)], "").await.ok();
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    let row = &table["rows"][1];
    assert_eq!((&row["cells"][0], &row["cells"][1]), (&json!("b"), &json!(1)));
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert!(table["metadata"]["resourceVersion"].is_string());
    let path = format!("{MAPS}/a?includeObject=Object");
    let one = server.ask("GET", &path, &[("accept", TABLE)], "").await.ok();
    assert_eq!(one["rows"][0]["object"]["data"]["k"], "v");
}
