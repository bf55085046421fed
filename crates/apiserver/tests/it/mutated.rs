//! Requests that were damaged on their way: whatever arrives, the answer is a refusal in
//! upstream's shape or a success, never a failure of the server.

use api::protobuf::{MEDIA_TYPE, encode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::harness::{Server, configmap, pod};

const REQUESTS: usize = 10_000;
/// Replays a failure; the message of one names the request's number too.
const SEED: u64 = 20_261_129;
/// Deeper than any decoder follows.
const DEEP: usize = 2_000;
const HUGE_KEY_BYTES: usize = 100_000;

/// Refusals that upstream gives the code 500 too, by their beginning.
const UPSTREAMS_500: [&str; 2] = [
    "failed to create typed patch object",
    "resourceVersion should not be set on objects to be created",
];

/// A sound request: method, path, content type, body.
type Sound = (&'static str, String, &'static str, Vec<u8>);

const JSON: &str = "application/json";

/// An object that is made by a POST.
fn sound_objects() -> Vec<(&'static str, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]});
    vec![
        ("/api/v1/namespaces/ns/pods", pod("p")),
        ("/api/v1/namespaces/ns/configmaps", configmap("c", json!({"a": "b"}))),
        (
            "/api/v1/namespaces/ns/secrets",
            json!({"metadata": {"name": "s"}, "data": {"k": "AP8="}}),
        ),
        (
            "/api/v1/namespaces/ns/services",
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
        ),
        (
            "/apis/apps/v1/namespaces/ns/deployments",
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ),
        (
            "/apis/batch/v1/namespaces/ns/cronjobs",
            json!({"metadata": {"name": "j"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/roles",
            json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies",
            json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}}),
        ),
        (
            "/apis/autoscaling/v2/namespaces/ns/horizontalpodautoscalers",
            json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"metadata": {"name": "tests.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"plural": "tests", "kind": "Test"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "x-kubernetes-validations": [{"rule": "has(self.a)"}]}}}}}]}}),
        ),
        (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            json!({"metadata": {}, "spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        ),
        (
            "/apis/authentication.k8s.io/v1/tokenreviews",
            json!({"metadata": {}, "spec": {"token": "eyJhbGciOiJSUzI1NiJ9.e30.AA"}}),
        ),
        (
            "/api/v1/namespaces/ns/serviceaccounts/default/token",
            json!({"spec": {"audiences": ["a"], "expirationSeconds": 700}}),
        ),
        (
            "/api/v1/namespaces/ns/pods/kept/eviction",
            json!({"metadata": {"name": "kept"}, "deleteOptions": {"dryRun": ["All"]}}),
        ),
    ]
}

/// All sound requests that are then damaged; dry runs, so that each meets the same state.
fn sound(objects: &[Value]) -> Vec<Sound> {
    let mut all: Vec<Sound> = Vec::new();
    for ((path, _), object) in sound_objects().into_iter().zip(objects) {
        let target = format!("{path}?dryRun=All&fieldValidation=Strict");
        all.push(("POST", target.clone(), JSON, object.to_string().into_bytes()));
        all.push(("POST", target.clone(), "application/yaml", object.to_string().into_bytes()));
        if let Ok(message) = encode(object) {
            all.push(("POST", target, MEDIA_TYPE, message));
        }
    }
    let kept = "/api/v1/namespaces/ns/pods/kept";
    let dry = format!("{kept}?dryRun=All");
    let patches: [(&str, &str); 4] = [
        (
            "application/merge-patch+json",
            r#"{"metadata":{"labels":{"x":"y"}},"spec":{"activeDeadlineSeconds":5}}"#,
        ),
        (
            "application/strategic-merge-patch+json",
            r#"{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"c","image":"j","$patch":"merge"}],"$retainKeys":["containers"]}}"#,
        ),
        (
            "application/json-patch+json",
            r#"[{"op":"test","path":"/metadata/name","value":"kept"},{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"move","from":"/metadata/labels","path":"/metadata/annotations"}]"#,
        ),
        (
            "application/apply-patch+yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: kept, labels: {a: b}}\nspec: {containers: [{name: c, image: j}]}\n",
        ),
    ];
    for (kind, body) in patches {
        let path = match kind {
            "application/apply-patch+yaml" => format!("{dry}&fieldManager=m&force=true"),
            _ => dry.clone(),
        };
        all.push(("PATCH", path, kind, body.as_bytes().to_vec()));
    }
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"], "gracePeriodSeconds": 1,
        "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan"});
    all.push(("DELETE", kept.to_owned(), JSON, options.to_string().into_bytes()));
    all.push(("DELETE", kept.to_owned(), MEDIA_TYPE, encode(&options).unwrap_or_default()));
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJucy9hXHUwMDAwIn0";
    for query in [
        "labelSelector=a%20in%20(b,c),!d,e!=f".to_owned(),
        "fieldSelector=metadata.name%3Da,spec.nodeName!%3Db".to_owned(),
        format!("limit=1&continue={token}"),
        "resourceVersion=1&resourceVersionMatch=Exact".to_owned(),
        "timeoutSeconds=1&includeObject=None&pretty=true".to_owned(),
    ] {
        all.push(("GET", format!("/api/v1/namespaces/ns/pods?{query}"), JSON, Vec::new()));
    }
    all
}

/// Puts something else in the place of one value of the tree.
fn change(random: &mut fastrand::Rng, value: &mut Value) {
    let below = random.u8(..) > 60;
    match value {
        Value::Object(fields) if below && !fields.is_empty() => {
            let at = random.usize(..fields.len());
            if let Some(field) = fields.values_mut().nth(at) {
                return change(random, field);
            }
        }
        Value::Array(items) if below && !items.is_empty() => {
            let at = random.usize(..items.len());
            return change(random, &mut items[at]);
        }
        _ => {}
    }
    *value = match random.u8(..12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1.5e300),
        5 => json!(""),
        6 => json!("\u{0}\u{7f}é\u{1F6F6}/../%00"),
        7 => json!([[], {}, null]),
        8 => json!({"": {"": null}, "$patch": "delete"}),
        9 => json!({"k".repeat(HUGE_KEY_BYTES): 1}),
        10 => json!([i64::MIN, "a", "a"]),
        _ => json!("9".repeat(400)),
    };
}

/// Damages bytes: cuts them, changes some, repeats a part, nests them deeply.
fn damage(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.extend_from_slice(b"\xff{");
        return;
    }
    match random.u8(..6) {
        0 => bytes.truncate(random.usize(..bytes.len())),
        1 => {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        2 => {
            for _ in 0..8 {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
        }
        3 => {
            let at = random.usize(..bytes.len());
            let part = bytes[at..].to_vec();
            bytes.splice(at..at, part);
        }
        4 => {
            let at = random.usize(..bytes.len());
            bytes.splice(at..at, b"\xc3\x28\xed\xa0\x80".iter().copied());
        }
        _ => {
            let open = *random.choice([&b"["[..], b"{\"a\":", b"- "].iter()).unwrap_or(&&b"["[..]);
            *bytes = open.repeat(DEEP);
        }
    }
}

/// A query with one of its characters changed.
fn damage_path(random: &mut fastrand::Rng, path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut query: Vec<char> = query.chars().collect();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=query.len());
        let one = *random.choice("=&,()!%2Ff\"'~-0aA".as_bytes()).unwrap_or(&b'=');
        match query.get_mut(at) {
            Some(place) if random.bool() => *place = one.into(),
            _ => query.insert(at.min(query.len()), one.into()),
        }
    }
    format!("{path}?{}", query.into_iter().collect::<String>())
}

#[tokio::test]
async fn ten_thousand_damaged_requests_are_refused_in_order() {
    let server = Server::start().await;
    server.post("/api/v1/namespaces/ns/pods", pod("kept")).await.ok();
    let mut objects: Vec<Value> = sound_objects().into_iter().map(|(_, object)| object).collect();
    for ((path, _), object) in sound_objects().into_iter().zip(&mut objects) {
        let made = server.post(&format!("{path}?dryRun=All"), object.clone()).await;
        // What the server made of it tells the kind, which protobuf has to name.
        if made.body["kind"] != "Status" {
            object["apiVersion"] = made.body["apiVersion"].clone();
            object["kind"] = made.body["kind"].clone();
        }
    }
    let sound = sound(&objects);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut codes = std::collections::BTreeMap::<u16, usize>::new();
    let mut failures = Vec::new();
    for number in 0..REQUESTS {
        let (method, path, kind, body) = &sound[random.usize(..sound.len())];
        let (mut path, mut body) = (path.clone(), body.clone());
        match serde_json::from_slice::<Value>(&body) {
            Ok(mut tree) if random.bool() => {
                for _ in 0..random.usize(1..4) {
                    change(&mut random, &mut tree);
                }
                body = match *kind {
                    MEDIA_TYPE => encode(&tree).unwrap_or(body),
                    _ => tree.to_string().into_bytes(),
                };
            }
            _ if body.is_empty() => path = damage_path(&mut random, &path),
            _ => damage(&mut random, &mut body),
        }
        let accept = if random.bool() { JSON } else { "application/vnd.kubernetes.protobuf,*/*" };
        let headers = [("content-type", *kind), ("accept", accept)];
        let Some(answer) = server.try_open(method, &path, &headers, &body).await else { continue };
        let (parts, answer) = answer.into_parts();
        let code = parts.status.as_u16();
        *codes.entry(code).or_default() += 1;
        let told = || {
            format!(
                "request {number}: {method} {path} {kind} {}",
                String::from_utf8_lossy(&body[..body.len().min(2_000)])
            )
        };
        let answer = answer.collect().await.expect("a body").to_bytes();
        if code < 400 {
            continue;
        }
        let status: Value = match parts.headers["content-type"].to_str() {
            Ok(MEDIA_TYPE) => api::protobuf::decode(&answer).expect("a Status"),
            _ => serde_json::from_slice(&answer).expect("a Status"),
        };
        let message = status["message"].as_str().unwrap_or_default();
        let expected = code < 500 || UPSTREAMS_500.iter().any(|begin| message.starts_with(begin));
        if !expected || status["status"] != "Failure" || status["code"] != code {
            failures.push(format!("{} -> {code} {status}", told()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures: {:#?}",
        failures.len(),
        &failures[..failures.len().min(8)]
    );
    let refused: usize =
        codes.iter().filter(|(code, _)| **code >= 400).map(|(_, count)| count).sum();
    assert!(refused > REQUESTS / 2, "{codes:?}");
}
