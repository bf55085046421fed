//! Requests that were damaged on their way: whatever arrives, the answer is a refusal in
//! upstream's shape or a success, never a failure of the server, and nothing of it stays.

mod connections;
mod damage;
mod process;
mod sound;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::protobuf::{MEDIA_TYPE, encode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::harness::{Server, pod};
use connections::Listening;
use damage::{change, damage, damage_path};
use sound::{JSON, Sound, sound, sound_objects};

const REQUESTS: usize = 10_000;
/// Connections that break, of each round.
const CONNECTIONS: usize = 270;
/// Replays a failure; the message of one names the request's number too.
const SEED: u64 = 20_261_129;
/// Events that the store remembers of a collection.
const WINDOW_EVENTS: usize = 2;
const ROUNDS_BEFORE: usize = 2;
/// What a round may leave, for what the runtime and the store keep by chance: none to two bytes were
/// seen.
const LEFT_MAX_BYTES: isize = 4 << 10;
/// Code that is not optimised needs several times the stack that the server's threads have, where
/// a request and a deeply nested body meet.
const STACK_BYTES: usize = 8 << 20;
/// How long the server may take to notice that its clients are gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Refusals that upstream gives the code 500 too, by their beginning.
const UPSTREAMS_500: [&str; 2] = [
    "failed to create typed patch object",
    "resourceVersion should not be set on objects to be created",
];

#[test]
fn ten_thousand_damaged_requests_are_refused_in_order_and_leave_nothing() {
    let name = "mutated::ten_thousand_damaged_requests_are_refused_in_order_and_leave_nothing";
    if process::is_alone(name) {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(rounds());
        };
        thread.spawn(run).expect("a thread").join().expect("no panic");
    }
}

async fn rounds() {
    // A watch window remembers what was written, up to its limit: with a limit of nearly nothing it
    // is full soon, and what is left after a round is nobody's.
    let options = store::Options { window_max_events: WINDOW_EVENTS, ..Default::default() };
    let server = Server::with(options).await;
    let listening = Listening::start(&server.api).await;
    let sound = sound(&known_objects(&server).await);
    // Two rounds fill what is filled at the first uses: tables, caches, pools.
    for _ in 0..ROUNDS_BEFORE {
        round(&server, &sound, &listening).await;
    }
    let (bytes, handles) = (process::bytes(), process::handles());
    let codes = round(&server, &sound, &listening).await;
    let refused: usize =
        codes.iter().filter(|(code, _)| **code >= 400).map(|(_, count)| count).sum();
    assert!(refused > REQUESTS / 2, "{codes:?}");
    let left = process::bytes() - bytes;
    assert!(left < LEFT_MAX_BYTES, "{left} bytes of {REQUESTS} requests are still there");
    assert_eq!(process::handles(), handles, "file handles are still open");
    println!("{left} bytes and no handles are left; answers: {codes:?}");
    listening.end().await;
}

/// The objects of the requests, with the kind that protobuf has to name.
async fn known_objects(server: &Server) -> Vec<Value> {
    let mut objects = Vec::new();
    for (path, mut object) in sound_objects() {
        let made = server.post(&format!("{path}?dryRun=All"), object.clone()).await;
        // What the server made of it tells the kind.
        if made.body["kind"] != "Status" {
            object["apiVersion"] = made.body["apiVersion"].clone();
            object["kind"] = made.body["kind"].clone();
        }
        objects.push(object);
    }
    objects
}

/// All damaged requests once, and how often each code was the answer.
async fn round(server: &Server, sound: &[Sound], listening: &Listening) -> BTreeMap<u16, usize> {
    server.post("/api/v1/namespaces/ns/pods", pod("kept")).await;
    let handles = process::handles();
    for number in 0..CONNECTIONS {
        listening.half(number).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while process::handles() > handles {
        assert!(Instant::now() < deadline, "connections are open that nobody uses");
        tokio::task::yield_now().await;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut codes = BTreeMap::<u16, usize>::new();
    let mut failures = Vec::new();
    for number in 0..REQUESTS {
        let request = damaged(&mut random, sound);
        let Some((code, failure)) = answer(server, &request).await else { continue };
        *codes.entry(code).or_default() += 1;
        if let Some(failure) = failure {
            let (method, path, kind, body) = &request.0;
            let body = String::from_utf8_lossy(&body[..body.len().min(2_000)]);
            failures.push(format!("request {number}: {method} {path} {kind} {body} -> {failure}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures: {:#?}",
        failures.len(),
        &failures[..failures.len().min(8)]
    );
    codes
}

/// A request, and what its answer may be.
struct Damaged(Sound, &'static str);

fn damaged(random: &mut fastrand::Rng, sound: &[Sound]) -> Damaged {
    let (method, path, kind, body) = &sound[random.usize(..sound.len())];
    let (mut path, mut body) = (path.clone(), body.clone());
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut tree) if random.bool() => {
            for _ in 0..random.usize(1..4) {
                change(random, &mut tree);
            }
            body = match *kind {
                MEDIA_TYPE => encode(&tree).unwrap_or(body),
                _ => tree.to_string().into_bytes(),
            };
        }
        _ if body.is_empty() => path = damage_path(random, &path),
        _ => damage(random, &mut body),
    }
    let accept = if random.bool() { JSON } else { "application/vnd.kubernetes.protobuf,*/*" };
    Damaged((*method, path, *kind, body), accept)
}

/// The answer's code, and what is wrong with it; `None` for what is no request at all.
async fn answer(server: &Server, request: &Damaged) -> Option<(u16, Option<String>)> {
    let Damaged((method, path, kind, body), accept) = request;
    let headers = [("content-type", *kind), ("accept", *accept)];
    let (parts, answer) = server.try_open(method, path, &headers, body).await?.into_parts();
    let code = parts.status.as_u16();
    let answer = answer.collect().await.expect("a body").to_bytes();
    if code < 400 {
        return Some((code, None));
    }
    let status = match parts.headers["content-type"].to_str() {
        Ok(MEDIA_TYPE) => api::protobuf::decode(&answer).ok(),
        _ => serde_json::from_slice(&answer).ok(),
    };
    let wrong = !status.as_ref().is_some_and(|status| is_refusal(code, status));
    Some((code, wrong.then(|| format!("{code} {status:?}"))))
}

/// Whether a refusal has upstream's shape, and a code that upstream gives it.
fn is_refusal(code: u16, status: &Value) -> bool {
    let text = |name: &str| status[name].as_str().unwrap_or_default();
    let message = text("message");
    let is_expected = match code {
        400..500 => !text("reason").is_empty() && text("reason") != "Unknown",
        _ => UPSTREAMS_500.iter().any(|begin| message.starts_with(begin)),
    };
    is_expected
        && text("kind") == "Status"
        && text("apiVersion") == "v1"
        && text("status") == "Failure"
        && status["metadata"].is_object()
        && status["code"] == code
        && !message.is_empty()
}
