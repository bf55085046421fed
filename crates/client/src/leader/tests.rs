use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// How the API answers.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Never.
    Silent,
    /// It writes and then never answers.
    Mute,
}

/// An API server that knows one Lease.
struct Server {
    lease: Option<Value>,
    version: u64,
    /// When it was written, each time.
    written: Vec<Instant>,
    /// By the candidate's place in the test.
    moods: Vec<Mood>,
    delay: Duration,
}

type Shared = Arc<Mutex<Server>>;

fn server(candidates: usize) -> Shared {
    let moods = vec![Mood::Well; candidates];
    let written = Vec::new();
    Arc::new(Mutex::new(Server { lease: None, version: 0, written, moods, delay: Duration::ZERO }))
}

impl Server {
    fn answer(&mut self, method: &Method, sent: Value) -> (u16, Value) {
        let refuse = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "metadata": {}, "code": code, "reason": reason, "message": reason});
            (code, status)
        };
        let over = sent["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::POST, None) => {}
            (&Method::POST, Some(_)) => return refuse(409, "AlreadyExists"),
            (&Method::PUT, Some(lease)) if lease["metadata"]["resourceVersion"] == over => {}
            (&Method::PUT, Some(_)) => return refuse(409, "Conflict"),
            _ => return refuse(404, "NotFound"),
        }
        self.version += 1;
        self.written.push(Instant::now());
        let mut lease = sent;
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(lease.clone());
        (201, lease)
    }
}

fn client(server: &Shared, candidate: usize) -> Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let sent = body.collect().await.unwrap().to_bytes();
            let sent = serde_json::from_slice(&sent).unwrap_or_default();
            let (mood, delay) = {
                let server = server.lock().unwrap();
                (server.moods[candidate], server.delay)
            };
            tokio::time::sleep(delay).await;
            if mood == Mood::Silent {
                std::future::pending::<()>().await;
            }
            let (code, body) = server.lock().unwrap().answer(&parts.method, sent);
            if mood == Mood::Mute {
                std::future::pending::<()>().await;
            }
            let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// A wall clock that goes with the test's time, or is hours ahead at each look.
struct Wall {
    begin: Instant,
    jumps: bool,
}

impl Clock for Wall {
    fn now(&self) -> jiff::Timestamp {
        // Not on a beat at the beginning.
        let elapsed = self.begin.elapsed() + Duration::from_secs(2);
        let speed = if self.jumps { 7_919 } else { 1 };
        jiff::Timestamp::UNIX_EPOCH + elapsed * speed
    }
}

fn candidate(server: &Shared, candidate: usize, jumps: bool) -> Elector {
    let name = format!("c{candidate}");
    let mut elector = Elector::new(client(server, candidate), "kube-system", "test", &name);
    elector.clock = Arc::new(Wall { begin: Instant::now(), jumps });
    elector
}

/// Who worked from when to when, in seconds of the test.
type Entries = Vec<(usize, u64, Option<u64>)>;

#[derive(Clone)]
struct Log {
    entries: Arc<Mutex<Entries>>,
    epoch: Instant,
}

impl Default for Log {
    fn default() -> Self {
        Log { entries: Arc::default(), epoch: Instant::now() }
    }
}

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap()
    }
}

/// Runs a candidate whose work takes `slow` to end.
fn stand(
    server: &Shared,
    candidate: usize,
    stop: &CancellationToken,
    log: &Log,
    slow: Duration,
) -> tokio::task::JoinHandle<()> {
    run(self::candidate(server, candidate, false), candidate, stop, log, slow)
}

fn run(
    elector: Elector,
    candidate: usize,
    stop: &CancellationToken,
    log: &Log,
    slow: Duration,
) -> tokio::task::JoinHandle<()> {
    let (stop, log) = (stop.clone(), log.clone());
    tokio::spawn(elector.run(stop, move |leading| {
        let log = log.clone();
        let entry = {
            let mut entries = log.lock();
            entries.push((candidate, log.epoch.elapsed().as_secs(), None));
            entries.len() - 1
        };
        let end = Ended { log, entry };
        async move {
            assert!(leading.fence.holds());
            leading.stop.cancelled().await;
            tokio::time::sleep(slow).await;
            drop(end);
        }
    }))
}

/// Notes the end of the work, dropped or returned.
struct Ended {
    log: Log,
    entry: usize,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let end = self.log.epoch.elapsed().as_secs();
        self.log.lock()[self.entry].2 = Some(end);
    }
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn assert_never_two(log: &Log) {
    let log = log.lock();
    for pair in log.windows(2) {
        assert!(pair[0].2.is_some_and(|end| end <= pair[1].1), "two led at once: {log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_hands_over_within_a_retry_period() {
    let (server, log) = (server(2), Log::default());
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let a = stand(&server, 0, &first, &log, Duration::from_secs(1));
    after(1).await;
    let b = stand(&server, 1, &second, &log, Duration::ZERO);
    after(60).await;
    assert_eq!(log.lock().len(), 1);
    first.cancel();
    a.await.unwrap();
    after(3).await;
    second.cancel();
    b.await.unwrap();
    assert_never_two(&log);
    let log = log.lock();
    assert!(matches!(log[..], [(0, 0, Some(62)), (1, 62..=65, Some(_))]), "{log:?}");
    assert_eq!(server.lock().unwrap().lease.as_ref().unwrap()["spec"]["holderIdentity"], "");
}

/// The leader is cut off, its last renewals unanswered or written without an answer, and its work
/// does not end when asked: still the other one begins only after it.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_the_next_begins() {
    for mood in [Mood::Silent, Mood::Mute] {
        for delay in [0, 400, 1900] {
            let (server, log) = (server(2), Log::default());
            server.lock().unwrap().delay = Duration::from_millis(delay);
            let stop = CancellationToken::new();
            let a = stand(&server, 0, &stop, &log, Duration::from_secs(3600));
            after(5).await;
            let b = stand(&server, 1, &stop, &log, Duration::ZERO);
            after(20).await;
            server.lock().unwrap().moods[0] = mood;
            after(120).await;
            assert_never_two(&log);
            let entries = log.lock().clone();
            assert!(entries.len() == 2 && entries[1].0 == 1, "{mood:?} {delay}: {entries:?}");
            // Healed: the first stays a candidate and takes nothing away.
            server.lock().unwrap().moods[0] = Mood::Well;
            after(60).await;
            assert_eq!(log.lock().len(), 2);
            stop.cancel();
            b.await.unwrap();
            a.abort();
        }
    }
}

impl std::fmt::Debug for Mood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mood::Well => "well",
            Mood::Silent => "silent",
            Mood::Mute => "mute",
        })
    }
}

#[tokio::test(start_paused = true)]
async fn renewals_meet_on_the_wall_clocks_beats() {
    let (server, log, stop) = (server(1), Log::default(), CancellationToken::new());
    server.lock().unwrap().delay = Duration::from_millis(300);
    let task = stand(&server, 0, &stop, &log, Duration::ZERO);
    after(24).await;
    let seconds = |at: &Instant| (*at - log.epoch).as_secs_f64();
    let written: Vec<f64> = server.lock().unwrap().written.iter().map(seconds).collect();
    // It was looked for first; the wall clock is two seconds ahead of the test's.
    assert_eq!(written, [0.6, 3.3, 8.3, 13.3, 18.3, 23.3]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_costs_no_leadership() {
    let (server, log, stop) = (server(2), Log::default(), CancellationToken::new());
    let a = run(candidate(&server, 0, true), 0, &stop, &log, Duration::ZERO);
    after(1).await;
    let b = run(candidate(&server, 1, true), 1, &stop, &log, Duration::ZERO);
    after(3600).await;
    assert_eq!(*log.lock(), [(0, 0, None)]);
    let writes = server.lock().unwrap().written.len();
    assert!((3600 / 7..3600 * 4 / 5).contains(&writes), "{writes} writes in an hour");
    stop.cancel();
    a.await.unwrap();
    b.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_fence_refuses_requests_when_a_timer_is_late() {
    let fence = Fence::default();
    let service = tower::service_fn(|_: ()| async { Ok::<_, Infallible>("answer") });
    let mut fenced = fence.around("kube-system/test", service);
    use tower::Service;
    assert!(fenced.call(()).await.is_err());
    fence.set(Some(Instant::now() + Duration::from_secs(10)));
    assert_eq!(fenced.call(()).await.unwrap(), "answer");
    after(10).await;
    let refused = fenced.call(()).await.unwrap_err().to_string();
    assert_eq!(refused, "this server no longer holds the lease kube-system/test");
}

#[tokio::test(start_paused = true)]
async fn everybody_knows_who_leads() {
    let (server, log) = (server(2), Log::default());
    let stop = CancellationToken::new();
    let a = stand(&server, 0, &stop, &log, Duration::ZERO);
    after(1).await;
    let elector = candidate(&server, 1, false);
    let mut holder = elector.holder();
    let b = tokio::spawn(elector.run(stop.clone(), |leading| async move {
        leading.stop.cancelled().await;
    }));
    assert_eq!(*holder.wait_for(|holder| !holder.is_empty()).await.unwrap(), "c0");
    stop.cancel();
    a.await.unwrap();
    b.await.unwrap();
}
