//! Whatever is killed: containers keep running, what was acknowledged is kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::harness::{BOARD_ADDRESS, Board, Kubectl, eventually, get, pids_with};
use crate::hello::{manifest, page};

/// Container ids, restart counts and addresses of all pods, as the API shows them.
pub fn containers(kubectl: &Kubectl) -> String {
    let fields = "{.metadata.name} {.status.podIP} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}";
    kubectl.ok(&format!(
        "get pods --sort-by=.metadata.name -o 'jsonpath={{range .items[*]}}{fields} {{end}}'"
    ))
}

/// Asks the NodePort again and again while `work` runs; gives how many answers came and what went
/// wrong.
pub fn under_load(
    board: &Board,
    port: u16,
    clients: u32,
    work: impl FnOnce(),
) -> (u32, Vec<String>) {
    let (over, answers) = (AtomicBool::new(false), AtomicU32::new(0));
    let failures = Mutex::new(Vec::new());
    let ask = || {
        board.client.run(|| {
            while !over.load(Ordering::Relaxed) {
                match get(&format!("{BOARD_ADDRESS}:{port}"), "/") {
                    Ok(response) if response.status == 200 => {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    other => failures.lock().unwrap().push(format!("{other:?}")),
                }
            }
        });
    };
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(ask);
        }
        // The load must end also when `work` panics.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    (answers.into_inner(), failures.into_inner().unwrap())
}

#[test]
fn containers_outlive_the_server() {
    let board = Board::start();
    board.import_hello();
    let kubectl = Kubectl::default(&board);
    kubectl.apply(&manifest(2, 30080));
    kubectl.ok("rollout status deployment/hello --timeout=90s");
    page(&board, 30080);
    let before = containers(&kubectl);
    let shims = board.shims();
    let (answers, failures) = under_load(&board, 30080, 2, || {
        for _ in 0..3 {
            board.kill();
            board.serve();
        }
    });
    assert!(failures.is_empty(), "{} failed of {answers}: {failures:?}", failures.len());
    assert!(answers > 0);
    assert_eq!(containers(&kubectl), before);
    assert_eq!(board.shims(), shims);
    // The new server holds the reins: it can log, exec, scale and delete.
    assert!(kubectl.ok("logs deployment/hello --tail=1").len() < 10_000);
    kubectl.ok("scale deployment/hello --replicas=1");
    kubectl.until_field("deployment/hello", ".status.replicas", "1");
    eventually("one shim is left", || board.shims().len() == 1);
    kubectl.ok("delete deployment hello");
    kubectl.until("get pods -o name", "");
    eventually("no shim is left", || board.shims().is_empty());
}

#[test]
fn an_orderly_stop_leaves_containers_running() {
    let board = Board::start();
    let kubectl = Kubectl::default(&board);
    kubectl.apply(&crate::rollouts::sleeper("s", 2));
    kubectl.ok("rollout status deployment/s --timeout=90s");
    let before = containers(&kubectl);
    let status = board.stop();
    assert!(status.success(), "{status}");
    board.serve();
    assert_eq!(containers(&kubectl), before);
}

#[test]
fn a_killed_shim_is_replaced() {
    let board = Board::start();
    board.import_hello();
    let kubectl = Kubectl::default(&board);
    kubectl.apply(&manifest(1, 30080));
    kubectl.ok("rollout status deployment/hello --timeout=90s");
    let before = containers(&kubectl);
    let [shim] = board.shims()[..] else { panic!("one pod, one shim") };
    // SAFETY: plain system call on a shim of this board.
    unsafe { libc::kill(shim, libc::SIGKILL) };
    eventually("other containers run", || {
        let ready = kubectl.field("deployment/hello", ".status.readyReplicas");
        ready == "1" && containers(&kubectl) != before && !board.shims().contains(&shim)
    });
    page(&board, 30080);
}

#[test]
fn a_pod_that_ends_while_the_server_is_away_is_seen_to() {
    let board = Board::start();
    let kubectl = Kubectl::default(&board);
    kubectl.ok("run brief --image=test.local/busybox:1 --restart=Never -- sh -c 'while [ ! -e /tmp/go ]; do sleep 0.1; done; echo bye; exit 5'");
    kubectl.ok("wait --for=condition=Ready pod/brief --timeout=60s");
    // It decides to leave in two seconds, and the server is gone by then.
    kubectl.ok("exec brief -- sh -c '(sleep 2; touch /tmp/go) >/dev/null 2>&1 &'");
    board.kill();
    let shims = board.shims();
    assert_eq!(shims.len(), 1);
    eventually("the container has ended", || pids_with(b"echo bye; exit 5").is_empty());
    board.serve();
    kubectl.until_field("pod/brief", ".status.containerStatuses[0].state.terminated.exitCode", "5");
    assert_eq!(kubectl.field("pod/brief", ".status.phase"), "Failed");
    assert_eq!(kubectl.ok("logs brief").trim(), "bye");
}

/// How often the server is killed.
const ROUNDS: u32 = 50;
const WRITERS: usize = 16;
/// Objects that each writer changes.
const NAMES_PER_WRITER: usize = 4;
/// The longest that a server is written to before it is killed.
const MAX_LIFE_MS: u64 = 400;

/// An object as a writer knows it: its counter and its revision; `None` is "not there".
type Known = Option<(u64, u64)>;

/// What was acknowledged for an object, and the one write that was not.
#[derive(Default, Clone, Debug)]
struct Record {
    acknowledged: Known,
    /// The counter that was being written when the server died; `None` inside is a deletion.
    pending: Option<Option<u64>>,
}

#[derive(Default)]
struct Book {
    records: BTreeMap<String, Record>,
    /// Every revision that a write was acknowledged with, and what it wrote.
    revisions: BTreeMap<u64, String>,
    counter: u64,
    writes: u64,
}

impl Book {
    fn acknowledge(&mut self, name: &str, known: Known) {
        let record = self.records.entry(name.into()).or_default();
        *record = Record { acknowledged: known, pending: None };
        self.writes += 1;
        if let Some((counter, revision)) = known {
            self.hand_out(revision, format!("{name}={counter}"));
        }
    }

    /// A revision belongs to one write, for ever.
    fn hand_out(&mut self, revision: u64, write: String) {
        let earlier = self.revisions.insert(revision, write.clone());
        assert!(
            earlier.as_ref().is_none_or(|earlier| *earlier == write),
            "revision {revision} was handed out twice: {earlier:?} and {write:?}"
        );
    }

    /// Holds what is stored against what was acknowledged, and goes on from there.
    fn check(&mut self, stored: &BTreeMap<String, (u64, u64)>) {
        for (name, record) in std::mem::take(&mut self.records) {
            let now = stored.get(&name).copied();
            let landed = record.pending.is_some_and(|p| p == now.map(|(counter, _)| counter));
            assert!(now == record.acknowledged || landed, "{name}: {now:?} is stored, {record:?}");
            self.records.insert(name, Record { acknowledged: now, pending: None });
        }
        for (name, (counter, revision)) in stored {
            self.hand_out(*revision, format!("{name}={counter}"));
        }
    }
}

fn content(map: &ConfigMap) -> (u64, u64) {
    let data = map.data.as_ref().expect("data");
    let revision = map.resource_version().expect("a revision");
    (data["n"].parse().expect("a number"), revision.parse().expect("a number"))
}

/// Writes to its own objects until the server is gone.
async fn writer(api: Api<ConfigMap>, number: usize, seed: u64, book: Arc<Mutex<Book>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let name = format!("w{number}-{}", random.usize(..NAMES_PER_WRITER));
        let (counter, known) = {
            let mut book = book.lock().unwrap();
            book.counter += 1;
            let counter = book.counter;
            (counter, book.records.entry(name.clone()).or_default().acknowledged)
        };
        let delete = known.is_some() && random.u8(..10) == 0;
        let pending = Some((!delete).then_some(counter));
        book.lock().unwrap().records.get_mut(&name).unwrap().pending = pending;
        let data = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"n": counter.to_string()},
        });
        let outcome = if delete {
            api.delete(&name, &DeleteParams::default()).await.map(|_| None)
        } else if known.is_some() {
            let patch = Patch::Merge(&data);
            api.patch(&name, &PatchParams::default(), &patch).await.map(|m| Some(content(&m)))
        } else {
            let map = serde_json::from_value(data).unwrap();
            api.create(&PostParams::default(), &map).await.map(|m| Some(content(&m)))
        };
        match outcome {
            Ok(known) => book.lock().unwrap().acknowledge(&name, known),
            // An answer is an answer: nobody else writes to these objects.
            Err(kube::Error::Api(status)) => panic!("{name}: {status:?}"),
            Err(_) => return,
        }
    }
}

/// What a watcher has seen: the objects as its events made them.
#[derive(Default)]
struct Seen {
    objects: BTreeMap<String, (u64, u64)>,
    revision: u64,
    relists: u32,
}

/// Watches, and watches again from where it stood, as informers do.
async fn watcher(api: Api<ConfigMap>, seen: Arc<Mutex<Seen>>) {
    loop {
        let from = seen.lock().unwrap().revision;
        let _ = follow(&api, &seen, from).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn follow(api: &Api<ConfigMap>, seen: &Mutex<Seen>, from: u64) -> kube::Result<()> {
    if from == 0 {
        let list = api.list(&ListParams::default()).await?;
        let mut seen = seen.lock().unwrap();
        seen.revision = list.metadata.resource_version.expect("a revision").parse().unwrap();
        seen.objects = ours(list.items);
        seen.relists += 1;
        return Ok(());
    }
    let events = api.watch(&WatchParams::default().disable_bookmarks(), &from.to_string()).await?;
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.try_next().await? {
        let mut seen = seen.lock().unwrap();
        let (map, deleted) = match event {
            WatchEvent::Added(map) | WatchEvent::Modified(map) => (map, false),
            WatchEvent::Deleted(map) => (map, true),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => {
                assert_eq!(status.code, 410, "{status:?}");
                seen.revision = 0;
                return Ok(());
            }
        };
        let revision: u64 = map.resource_version().expect("a revision").parse().unwrap();
        assert!(revision > seen.revision, "{revision} after {}", seen.revision);
        seen.revision = revision;
        let name = map.name_any();
        match deleted {
            true => drop(seen.objects.remove(&name)),
            false if name.starts_with('w') => drop(seen.objects.insert(name, content(&map))),
            false => {}
        }
    }
    Ok(())
}

fn ours(items: Vec<ConfigMap>) -> BTreeMap<String, (u64, u64)> {
    let ours = items.into_iter().filter(|map| map.name_any().starts_with('w'));
    ours.map(|map| (map.name_any(), content(&map))).collect()
}

async fn client(board: &Board) -> Client {
    let kubeconfig = Kubeconfig::read_from(board.kubeconfig()).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options);
    Client::try_from(config.await.expect("a configuration")).expect("a client")
}

#[test]
fn nothing_acknowledged_is_lost_in_fifty_kills() {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let board = Board::unstarted();
    board.serve_api();
    let (book, seen) =
        (Arc::new(Mutex::new(Book::default())), Arc::new(Mutex::new(Seen::default())));
    board.netns.block_on(async || {
        let api: Api<ConfigMap> = Api::namespaced(client(&board).await, "default");
        let watching = tokio::spawn(watcher(api.clone(), seen.clone()));
        for round in 0..ROUNDS {
            // A client of its own for every life, as its connections die with the server.
            let api: Api<ConfigMap> = Api::namespaced(client(&board).await, "default");
            let mut writers = tokio::task::JoinSet::new();
            for number in 0..WRITERS {
                writers.spawn(writer(api.clone(), number, random.u64(..), book.clone()));
            }
            tokio::time::sleep(Duration::from_millis(random.u64(..MAX_LIFE_MS))).await;
            board.kill();
            while let Some(outcome) = writers.join_next().await {
                outcome.unwrap_or_else(|panic| panic!("round {round}, SEED={seed}: {panic}"));
            }
            board.serve_api();
            let api: Api<ConfigMap> = Api::namespaced(client(&board).await, "default");
            let stored = ours(api.list(&ListParams::default()).await.expect("a list").items);
            book.lock().unwrap().check(&stored);
            let caught_up = async {
                while seen.lock().unwrap().objects != stored {
                    assert!(!watching.is_finished(), "the watcher ended, SEED={seed}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let late = tokio::time::timeout(Duration::from_secs(30), caught_up).await;
            if late.is_err() {
                let seen = seen.lock().unwrap();
                let wrong = |(name, known): &(&String, &(u64, u64))| {
                    seen.objects.get(*name) != Some(*known)
                };
                let missed: Vec<_> = stored.iter().filter(wrong).collect();
                let ghosts = seen.objects.keys().filter(|name| !stored.contains_key(*name));
                let ghosts: Vec<_> = ghosts.collect();
                panic!(
                    "round {round}, SEED={seed}: the watcher, at revision {}, missed {missed:?} \
                     and still has {ghosts:?}",
                    seen.revision
                );
            }
        }
        watching.abort();
    });
    let (book, seen) = (book.lock().unwrap(), seen.lock().unwrap());
    println!(
        "{} writes acknowledged in {ROUNDS} lives, {} revisions, the watcher listed {} times",
        book.writes,
        book.revisions.len(),
        seen.relists
    );
    assert!(book.writes > u64::from(ROUNDS), "too few writes to mean anything");
}
