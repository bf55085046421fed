//! What happens before and after the handlers.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;

use crate::testing::{config, empty, get, read, request, started};
use crate::user::User;
use crate::{Limits, Request};

fn with(mut request: Request, headers: &[(&'static str, &str)]) -> Request {
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

fn plain(uri: &str, headers: &[(&'static str, &str)]) -> Request {
    with(request(Method::GET, uri, &Value::Null), headers)
}

#[tokio::test]
async fn every_answer_to_a_client_has_its_headers() {
    let server = started().await;
    let answer = Arc::clone(&server).answer(plain("/version", &[("audit-id", "mine")]), None).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["audit-id"], "mine");
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-cache, private");
    let answer = Arc::clone(&server).answer(plain("/version", &[]), None).await;
    assert_eq!(answer.headers()["audit-id"].len(), 36);
}

#[tokio::test]
async fn bad_credentials_are_refused_and_no_credentials_are_anonymous() {
    let server = started().await;
    let bad = plain("/version", &[("authorization", "Bearer nonsense")]);
    let (code, status) = read(Arc::clone(&server).answer(bad, None).await).await;
    assert_eq!((code, &status["message"]), (StatusCode::UNAUTHORIZED, &"Unauthorized".into()));
    let mut strict = config();
    strict.anonymous = false;
    let strict = empty(strict).await;
    let answer = Arc::clone(&strict).answer(plain("/version", &[]), None).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn impersonation_needs_permission_and_gives_up_ones_own() {
    let server = started().await;
    let as_ann = plain("/api/v1/namespaces", &[("impersonate-user", "ann")]);
    let answer = Arc::clone(&server).answer(as_ann, Some(User::admin())).await;
    let (code, status) = read(answer).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(status["message"].as_str().unwrap().contains("User \"ann\" cannot list"), "{status}");
    let as_admin = plain("/api/v1/namespaces", &[("impersonate-user", "root")]);
    let answer = Arc::clone(&server).answer(as_admin, Some(User::new("ann", []))).await;
    let (_, status) = read(answer).await;
    assert_eq!(
        status["message"],
        "users \"root\" is forbidden: User \"ann\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    let groups = plain(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        &[("impersonate-user", "ann"), ("impersonate-group", "system:masters")],
    );
    let answer = Arc::clone(&server).answer(groups, Some(User::admin())).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn beyond_the_limit_clients_wait_and_administrators_do_not() {
    let mut small = config();
    small.limits = Limits { reads_in_flight: 0, writes_in_flight: 0, ..Limits::default() };
    let server = empty(small).await;
    let answer = Arc::clone(&server).answer(plain("/version", &[]), None).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let server = started().await;
    let gzip = [("accept-encoding", "gzip, deflate"), ("accept", "application/json")];
    let answer = Arc::clone(&server).answer(plain("/openapi/v2", &gzip), None).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "anonymous may not read it");
    let answer =
        Arc::clone(&server).answer(plain("/openapi/v2", &gzip), Some(User::new("ann", []))).await;
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    let tag = answer.headers()[header::ETAG].to_str().unwrap().to_owned();
    let known = plain("/openapi/v2", &[("if-none-match", &tag), ("accept", "application/json")]);
    let answer = Arc::clone(&server).answer(known, Some(User::new("ann", []))).await;
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);

    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    for (accept, kind) in [
        ("*/*", "application/json"),
        (protobuf, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),
        (
            &format!("application/json;q=0.5, {protobuf}"),
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        ),
        (&format!("{protobuf};q=0.5, */*"), "application/json"),
    ] {
        // The same document through a proxy that compresses, as far as its form is the same.
        let weak = format!("W/{tag}");
        let asked = plain("/openapi/v2", &[("accept", accept), ("if-none-match", &weak)]);
        let answer = Arc::clone(&server).answer(asked, Some(User::new("ann", []))).await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], kind, "{accept}");
        let same = kind == "application/json";
        assert_eq!(answer.status() == StatusCode::NOT_MODIFIED, same, "{accept}");
    }
}

#[tokio::test]
async fn discovery_has_a_tag_and_openapi_a_hash() {
    let server = started().await;
    let ann = User::new("ann", []);
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let ask = |tag: &str| plain("/apis", &[("accept", aggregated), ("if-none-match", tag)]);
    let answer = Arc::clone(&server).answer(ask("x"), Some(ann.clone())).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], aggregated);
    let tag = answer.headers()[header::ETAG].to_str().unwrap().to_owned();
    let (_, list) = read(answer).await;
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    assert_eq!(list["items"][1]["metadata"]["name"], "apps");
    let answer = Arc::clone(&server).answer(ask(&tag), Some(ann.clone())).await;
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);

    let (_, index) = get(&server, &ann, "/openapi/v3").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let answer = Arc::clone(&server).answer(plain(&url, &[]), Some(ann.clone())).await;
    assert!(answer.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let (_, document) = read(answer).await;
    assert_eq!(document["openapi"], "3.0.0");
    let protobuf = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let answer = plain(&url, &[("accept", protobuf)]);
    let answer = Arc::clone(&server).answer(answer, Some(ann.clone())).await;
    assert_eq!(
        answer.headers()[header::CONTENT_TYPE],
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
    );
    let nothing = plain(&url, &[("accept", "text/html")]);
    let answer = Arc::clone(&server).answer(nothing, Some(ann.clone())).await;
    assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);
    let old = plain("/openapi/v3/apis/apps/v1?hash=old", &[]);
    let answer = Arc::clone(&server).answer(old, Some(ann.clone())).await;
    assert_eq!(answer.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(answer.headers()[header::LOCATION], url);
    let (code, _) = get(&server, &ann, "/openapi/v3/apis/nothing/v1").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn health_pages_read_as_upstreams() {
    let server = started().await;
    let anyone = User::anonymous();
    server.add_check("network", || Err("no bridge".to_owned()));
    let text = async |uri: &str| {
        let (code, text) = get(&server, &User::admin(), uri).await;
        (code.as_u16(), text.as_str().unwrap_or_default().to_owned())
    };
    let started = crate::health::STARTED.map(|name| format!("[+]{name} ok\n")).concat();
    let own = "[+]ping ok\n[+]log ok\n[+]etcd ok\n";
    assert_eq!(text("/livez").await, (200, "ok".to_owned()));
    let live = format!("{own}{started}livez check passed\n");
    assert_eq!(text("/livez?verbose").await, (200, live));
    let ready = format!(
        "{own}[+]shutdown ok\n{started}[+]informer-sync ok\n[-]network failed: reason withheld\nreadyz check failed\n"
    );
    assert_eq!(text("/readyz").await, (500, ready));
    assert_eq!(text("/readyz?exclude=network").await, (200, "ok".to_owned()));
    let (_, page) = text("/livez?verbose&exclude=nothing").await;
    assert!(
        page.contains("warn: some health checks cannot be excluded: no matches for \"nothing\"\n")
    );
    assert_eq!(text("/readyz/ping").await, (200, "ok".to_owned()));
    assert_eq!(
        text("/readyz/network").await,
        (500, "internal server error: no bridge\n".to_owned())
    );
    assert_eq!(text("/readyz/nothing").await.0, 404);
    assert_eq!(get(&server, &anyone, "/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_count_what_was_asked() {
    let server = started().await;
    server.add_metrics(|page| {
        page.metric("coracle_test", crate::MetricKind::Gauge, "A test.");
        page.sample("coracle_test", &[("a", "b\"c")], 1.5);
    });
    get(&server, &User::admin(), "/api/v1/namespaces").await;
    let (_, page) = get(&server, &User::admin(), "/metrics").await;
    let page = page.as_str().unwrap();
    for line in [
        "apiserver_request_total{component=\"apiserver\",group=\"\",resource=\"namespaces\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\",code=\"200\"} 1",
        "apiserver_request_duration_seconds_count{component=\"apiserver\",group=\"\",resource=\"namespaces\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1",
        "apiserver_storage_objects{resource=\"namespaces\"} 4",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0",
        "coracle_test{a=\"b\\\"c\"} 1.5",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    assert!(page.contains("process_resident_memory_bytes "));
}

#[test]
fn the_bearer_may_hide_in_a_websocket_protocol() {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        "base64url.bearer.authorization.k8s.io.dG9rZW4, v5.channel.k8s.io".parse().unwrap(),
    );
    assert_eq!(crate::authn::take_token(&mut headers).as_deref(), Some("token"));
    assert_eq!(headers[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
}

#[tokio::test]
async fn the_time_that_a_client_has_must_be_one() {
    let server = started().await;
    let admin = User::admin();
    for (timeout, code) in [("5s", 200), ("1h", 200), ("0", 200), ("-1s", 200), ("soon", 400)] {
        let path = format!("/api/v1/namespaces?timeout={timeout}");
        let (found, answer) = get(&server, &admin, &path).await;
        assert_eq!(found.as_u16(), code, "{timeout}: {answer}");
    }
    let (_, answer) = get(&server, &admin, "/api/v1/namespaces?timeout=soon").await;
    assert_eq!(
        answer["message"],
        "invalid timeout specified in the request URL - time: invalid duration \"soon\""
    );
}

#[tokio::test]
async fn a_request_has_a_deadline_and_a_size() {
    let mut small = config();
    small.limits.request = std::time::Duration::ZERO;
    small.limits.body_bytes = 64;
    let server = empty(small).await;
    let answer = Arc::clone(&server).answer(plain("/openapi/v2", &[]), Some(User::admin())).await;
    let (code, status) = read(answer).await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(status["message"], "Timeout: request did not complete within the allotted timeout");
    let message = "Request entity too large: limit is 64";
    let big = serde_json::json!({"spec": {"namespace": "x".repeat(80)}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    for said in [None, Some("100")] {
        let mut request = request(Method::POST, path, &big);
        if let Some(said) = said {
            request.headers_mut().insert(header::CONTENT_LENGTH, said.parse().unwrap());
        }
        let answer = Arc::clone(&server).answer(request, Some(User::admin())).await;
        let (code, status) = read(answer).await;
        assert_eq!((code.as_u16(), &status["message"]), (413, &message.into()), "{said:?}");
    }
}

#[tokio::test]
async fn notations_nobody_speaks_are_refused() {
    let server = started().await;
    for (accept, expected) in
        [("application/cbor", 406), ("application/cbor,application/vnd.kubernetes.protobuf", 200)]
    {
        let ask = plain("/api/v1/namespaces", &[("accept", accept)]);
        let answer = Arc::clone(&server).answer(ask, Some(User::admin())).await;
        assert_eq!(answer.status().as_u16(), expected, "{accept}");
    }
}
