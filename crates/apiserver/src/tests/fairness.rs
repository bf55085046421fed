//! One noisy client does not starve the others, whatever it asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::authorizers::grant;
use crate::testing::{config, empty, request, until};
use crate::{ApiServer, StaticTokens};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What the noisy client asks for at once: more than ten times what the server works on at once.
const NOISE: usize = 200;

/// Asks as a user from outside, where the queues are; the answer's code.
async fn ask(server: Arc<ApiServer>, user: &'static str, path: String) -> StatusCode {
    let mut request = request(Method::GET, &path, &Value::Null);
    let token = format!("Bearer {user}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, token);
    server.answer(request, None).await.status()
}

#[tokio::test]
async fn a_client_with_hundreds_of_slow_lists_and_watches_does_not_hold_up_another() {
    let mut config = config();
    (config.limits.reads_in_flight, config.limits.writes_in_flight) = (8, 4);
    config.access.static_tokens = StaticTokens::parse("noisy,noisy,1\nquiet,quiet,2").unwrap();
    let server = empty(config).await;
    server.bootstrap().await.unwrap();
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]});
    for user in ["noisy", "quiet"] {
        grant(&server, user, rule.clone()).await;
    }
    let done = Arc::new(AtomicUsize::new(0));
    let mut noise = JoinSet::new();
    for number in 0..NOISE {
        // What is not there yet is waited for, and a seat is held as long.
        let path = match number % 4 {
            0 => format!("{MAPS}?watch=true&resourceVersion=99999999"),
            _ => format!("{MAPS}?resourceVersion=99999999&timeout=1s"),
        };
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        noise.spawn(async move {
            ask(server, "noisy", path).await;
            done.fetch_add(1, Ordering::Relaxed);
        });
    }
    until("the noisy client has all seats", async || server.flow.current()[0] > 1).await;
    assert_eq!(ask(Arc::clone(&server), "quiet", MAPS.to_owned()).await, StatusCode::OK);
    let done = done.load(Ordering::Relaxed);
    assert!(done < NOISE / 2, "{done} requests of the other went first");
}
