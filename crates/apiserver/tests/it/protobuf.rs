//! Requests and answers in protobuf, as clients written in Go prefer them.

use api::protobuf::{MEDIA_TYPE, decode, encode};
use apiserver::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::{Server, configmap, pod};

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

/// Code, content type and the decoded answer to a request whose body is protobuf.
async fn ask(server: &Server, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let accept = format!("{MEDIA_TYPE},application/json");
    ask_as(server, method, path, body, &accept).await
}

async fn ask_as(
    server: &Server,
    method: &str,
    path: &str,
    body: Option<Value>,
    accept: &str,
) -> (u16, Value) {
    let headers = [("accept", accept), ("content-type", MEDIA_TYPE)];
    let body = body.map(|body| encode(&body).unwrap()).unwrap_or_default();
    let answer = server.open(method, path, &headers, body).await;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let value = match parts.headers["content-type"].to_str().unwrap() {
        MEDIA_TYPE => decode(&body).unwrap(),
        other => panic!("{method} {path}: {other}: {body:?}"),
    };
    (parts.status.as_u16(), value)
}

#[tokio::test]
async fn objects_lists_and_failures() {
    let server = Server::start().await;
    let mut map = configmap("a", json!({}));
    map["apiVersion"] = "v1".into();
    map["kind"] = "ConfigMap".into();
    let (code, made) = ask(&server, "POST", MAPS, Some(map)).await;
    assert_eq!((code, &made["data"]), (201, &json!({"k": "v"})));
    let (_, read) = ask(&server, "GET", &format!("{MAPS}/a"), None).await;
    assert_eq!(read, server.get(&format!("{MAPS}/a")).await.ok());
    server.post(MAPS, configmap("b", json!({}))).await.ok();
    let (_, list) = ask(&server, "GET", &format!("{MAPS}?limit=1"), None).await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(list["metadata"]["remainingItemCount"], 1);
    assert_eq!(list["items"][0]["metadata"], read["metadata"]);
    let (code, refused) = ask(&server, "GET", &format!("{MAPS}/z"), None).await;
    assert_eq!((code, &refused["details"]["name"]), (404, &json!("z")));
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan", "preconditions": {"uid": "x"}});
    let (code, refused) = ask(&server, "DELETE", &format!("{MAPS}/a"), Some(options)).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
}

#[tokio::test]
async fn other_versions_views_and_kinds_that_are_not_stored() {
    let server = Server::start().await;
    server.post("/api/v1/namespaces/ns/pods", pod("p")).await.ok();
    let partial = format!("{MEDIA_TYPE};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let headers = [("accept", partial.as_str())];
    let answer = server.open("GET", "/api/v1/namespaces/ns/pods/p", &headers, "").await;
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.windows(21).any(|part| part == b"PartialObjectMetadata"));
    let table = format!("{MEDIA_TYPE};as=Table;g=meta.k8s.io;v=v1");
    let refused = server.ask("GET", "/api/v1/namespaces/ns/pods", &[("accept", &table)], "").await;
    assert_eq!(refused.code, 406);

    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, review) = ask(&server, "POST", path, Some(review.clone())).await;
    assert_eq!((code, &review["status"]["allowed"]), (201, &json!(true)));
    let ask_table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    assert_eq!(server.ask("POST", path, &ask_table, &review.to_string()).await.code, 406);

    let (_, groups) = ask(&server, "GET", "/apis", None).await;
    assert_eq!(groups["kind"], "APIGroupList");
    let (_, resources) = ask(&server, "GET", "/apis/apps/v1", None).await;
    assert_eq!(resources["groupVersion"], "apps/v1");

    let hpa = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let path = "/apis/autoscaling/v1/namespaces/ns/horizontalpodautoscalers";
    let (code, _) = ask(&server, "POST", path, Some(hpa)).await;
    assert_eq!(code, 201);
    let (_, list) = ask(&server, "GET", path, None).await;
    assert_eq!(list["items"][0]["spec"]["maxReplicas"], 3);
}

/// The frames of a watch as type and object.
async fn frames(mut body: Body, count: usize) -> Vec<(String, Vec<u8>)> {
    let (mut rest, mut seen) = (Vec::new(), Vec::new());
    while seen.len() < count {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        rest.extend_from_slice(&data);
        while rest.len() >= 4 {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            if rest.len() < 4 + length {
                break;
            }
            let frame: Vec<u8> = rest.drain(..4 + length).skip(4).collect();
            let text = usize::from(frame[1]);
            let kind = String::from_utf8(frame[2..2 + text].to_vec()).unwrap();
            let object = frame.windows(4).position(|part| part == b"k8s\0").unwrap();
            seen.push((kind, frame[object..].to_vec()));
        }
    }
    seen
}

#[tokio::test]
async fn watches_are_frames() {
    let server = Server::start().await;
    server.post(MAPS, configmap("a", json!({}))).await.ok();
    let headers = [("accept", MEDIA_TYPE)];
    let query =
        "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let watch = server.open("GET", &format!("{MAPS}?{query}"), &headers, "").await;
    assert_eq!(watch.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    server.post(MAPS, configmap("b", json!({}))).await.ok();
    server.delete(&format!("{MAPS}/b"), Value::Null).await.ok();
    let seen = frames(watch.into_body(), 4).await;
    let short: Vec<String> = seen
        .iter()
        .map(|(kind, object)| {
            let object = decode(object).unwrap();
            format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or("-"))
        })
        .collect();
    assert_eq!(short, ["ADDED a", "BOOKMARK -", "ADDED b", "DELETED b"]);
}

/// The fields of a message: numbers and contents.
fn fields(mut message: &[u8]) -> Vec<(u8, &[u8])> {
    let mut fields = Vec::new();
    while let [key, rest @ ..] = message {
        assert_eq!(key & 7, 2, "texts and messages only");
        let (mut length, mut shift, mut rest) = (0, 0, rest);
        while let [byte, more @ ..] = rest {
            (length, rest) = (length | usize::from(byte & 0x7f) << shift, more);
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (content, more) = rest.split_at(length);
        fields.push((key >> 3, content));
        message = more;
    }
    fields
}

/// What a path of field numbers leads to first.
fn at<'a>(message: &'a [u8], path: &[u8]) -> &'a str {
    let found = path.iter().fold(message, |message, number| {
        fields(message).into_iter().find(|(own, _)| own == number).expect("the field").1
    });
    std::str::from_utf8(found).expect("text")
}

#[tokio::test]
async fn all_groups_in_one_document() {
    let server = Server::start().await;
    let accept = format!("{MEDIA_TYPE};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    for (path, expected) in [
        ("/api", ["", "v1", "bindings"]),
        ("/apis", ["apiregistration.k8s.io", "v1", "apiservices"]),
    ] {
        let answer = server.open("GET", path, &[("accept", &accept)], "").await;
        assert_eq!(answer.headers()["content-type"], accept.as_str());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let envelope = body.strip_prefix(b"k8s\0").unwrap();
        assert_eq!(at(envelope, &[1, 1]), "apidiscovery.k8s.io/v2");
        let list = fields(envelope).into_iter().find(|(number, _)| *number == 2).unwrap().1;
        let group = fields(list).into_iter().find(|(number, _)| *number == 2).unwrap().1;
        let name = fields(group)[0].1;
        let name = if name.is_empty() { "" } else { at(name, &[1]) };
        assert_eq!([name, at(group, &[2, 1]), at(group, &[2, 2, 1])], expected);
        assert_eq!(at(group, &[2, 2, 2, 2]), "v1", "the version of its kind");
    }
}
