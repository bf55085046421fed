//! Several stores over one datastore that is killed, stopped and cut off: what was acknowledged
//! is there, what was refused is not, and all watches tell one and the same history.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store::{
    Datastore, EventKind, Expect, Key, Options, Range, Revision, Store, TlsFiles, WriteError,
};

use crate::etcds::Etcds;
use crate::proxy::{Network, Proxy};
use crate::sqls::{Kind, Sql};
use crate::support::{Json, key, value};

const STORES: usize = 3;
const WRITERS: usize = 6;
const KEYS: u8 = 4;
/// Troubles in one run.
const TROUBLES: usize = 10;
/// How long a trouble lasts at most: shorter and longer than requests may take.
const TROUBLE_MAX_MS: u64 = 5_000;
/// How long it may take until writes go through again.
const HEAL_PATIENCE: Duration = Duration::from_secs(60);
const PODS: Range<'static> = Range { collection: "pods", namespace: None };

/// The datastore of a run, each store's network to it, and what can be done to them.
struct Far {
    engine: Engine,
    /// By store, then by member.
    networks: Vec<Vec<Proxy>>,
}

enum Engine {
    Etcd(Etcds),
    Sql(Box<Sql>),
}

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// A member is killed and started again.
    Kill(usize),
    /// A member hangs.
    Stop(usize),
    /// A store's network to a member, or to all.
    Network(usize, Option<usize>, Network),
}

impl Far {
    async fn new(engine: Engine) -> Self {
        let ports: Vec<u16> = match &engine {
            Engine::Etcd(etcds) => etcds.members.iter().map(|m| m.port()).collect(),
            Engine::Sql(sql) => vec![sql.port()],
        };
        let mut networks = Vec::new();
        for _ in 0..STORES {
            let mut members = Vec::new();
            for &port in &ports {
                members.push(Proxy::to(port).await);
            }
            networks.push(members);
        }
        Self { engine, networks }
    }

    fn datastore(&self, store: usize) -> Datastore {
        match &self.engine {
            Engine::Etcd(_) => {
                let mut urls: Vec<String> = self.networks[store]
                    .iter()
                    .map(|proxy| format!("http://127.0.0.1:{}", proxy.port))
                    .collect();
                let members = urls.len();
                urls.rotate_left(store % members);
                Datastore::Etcd(store::EtcdOptions::new(urls, TlsFiles::default()))
            }
            Engine::Sql(sql) => sql.named("faults", self.networks[store][0].port),
        }
    }

    fn any_trouble(&self, random: &mut fastrand::Rng) -> Trouble {
        let members = self.networks[0].len();
        let (member, store) = (random.usize(..members), random.usize(..STORES));
        let network = [Network::Holds, Network::Cut][random.usize(..2)];
        match random.u8(..6) {
            0 => Trouble::Kill(member),
            1 => Trouble::Stop(member),
            2 | 3 => Trouble::Network(store, None, network),
            _ => Trouble::Network(store, Some(member), network),
        }
    }

    fn begin(&mut self, trouble: Trouble) {
        match (trouble, &mut self.engine) {
            (Trouble::Kill(member), Engine::Etcd(etcds)) => etcds.members[member].kill(),
            (Trouble::Kill(_), Engine::Sql(sql)) => sql.kill(),
            (Trouble::Stop(member), Engine::Etcd(etcds)) => etcds.members[member].signal("STOP"),
            // Its sessions are processes of their own, so the network hangs in its stead.
            (Trouble::Stop(_), Engine::Sql(_)) => self.set(0..STORES, None, Network::Holds),
            (Trouble::Network(store, member, network), _) => {
                self.set(store..store + 1, member, network);
            }
        }
    }

    fn end(&mut self, trouble: Trouble) {
        match (trouble, &mut self.engine) {
            (Trouble::Kill(member), Engine::Etcd(etcds)) => etcds.members[member].start_alone(),
            (Trouble::Kill(_), Engine::Sql(sql)) => sql.start_again(),
            (Trouble::Stop(member), Engine::Etcd(etcds)) => etcds.members[member].signal("CONT"),
            _ => self.set(0..STORES, None, Network::Flows),
        }
    }

    fn set(&self, stores: std::ops::Range<usize>, member: Option<usize>, network: Network) {
        for members in &self.networks[stores] {
            let affected = members.iter().enumerate();
            for (_, proxy) in affected.filter(|(n, _)| member.is_none_or(|m| m == *n)) {
                proxy.set(network);
            }
        }
    }
}

/// A write somebody tried.
struct Tried {
    key: Key,
    text: String,
    expected: Revision,
    /// When it was asked for and answered, on one clock for all.
    asked: u64,
    answered: u64,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Done(Revision),
    Conflict,
    Failed,
    Unknown,
}

/// What all writers share.
struct Run {
    clock: AtomicU64,
    over: AtomicBool,
    done: AtomicU64,
}

impl Run {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// Counts objects up, one after the other, until the run is over.
async fn write(store: Store, writer: usize, run: Arc<Run>, seed: u64) -> Vec<Tried> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tried = Vec::new();
    for n in 0.. {
        if run.over.load(Ordering::SeqCst) {
            break;
        }
        let key = key(&format!("p{}", random.u8(..KEYS)));
        let now = store.get(&key);
        let count: u64 = now.as_ref().map_or(0, |e| count_of(e.labels.get("text")));
        let expected = now.map_or(0, |e| e.revision);
        let text = format!("{} {writer}-{n}", count + 1);
        let expect = if expected == 0 { Expect::Absent } else { Expect::Revision(expected) };
        let asked = run.tick();
        let deletes = expected != 0 && random.u8(..10) == 0;
        let result = match deletes {
            true => store.delete(&key, expect).await,
            false => store.put(key.clone(), expect, value(&text)).await,
        };
        let answer = match result {
            Ok(entry) => Answer::Done(entry.revision),
            Err(WriteError::Conflict { .. } | WriteError::NotFound) => Answer::Conflict,
            Err(WriteError::Storage(_)) => Answer::Failed,
            Err(WriteError::Unresolved(_)) => Answer::Unknown,
            Err(other) => panic!("{other}"),
        };
        let answered = run.tick();
        if matches!(answer, Answer::Done(_)) {
            run.done.fetch_add(1, Ordering::SeqCst);
        } else {
            // The index may have to hear of what was in the way.
            tokio::task::yield_now().await;
        }
        let text = if deletes { format!("deleted at {expected}") } else { text };
        tried.push(Tried { key, text, expected, asked, answered, answer });
    }
    tried
}

fn count_of(text: Option<&str>) -> u64 {
    text.and_then(|t| t.split(' ').next()?.parse().ok()).expect("a count")
}

/// Passes the barrier again and again: it must never be behind what was acknowledged before.
async fn read(store: Store, run: Arc<Run>, acknowledged: Arc<AtomicU64>) -> (usize, usize) {
    let (mut passed, mut refused) = (0, 0);
    while !run.over.load(Ordering::SeqCst) {
        let floor = acknowledged.load(Ordering::SeqCst);
        match store.barrier().await {
            Ok(revision) => {
                assert!(revision >= floor, "the barrier gave {revision}, {floor} was acknowledged");
                assert!(store.revision() >= revision);
                passed += 1;
            }
            Err(_) => refused += 1,
        }
        let entry = store.put(Key::new("reads", "", "r"), Expect::Any, value("r")).await;
        if let Ok(entry) = entry {
            acknowledged.fetch_max(entry.revision, Ordering::SeqCst);
        }
    }
    (passed, refused)
}

/// An event as a watcher has seen it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    revision: Revision,
    key: Key,
    text: String,
    before: Revision,
}

async fn watch(
    store: Store,
    run: Arc<Run>,
    last: tokio::sync::watch::Receiver<Revision>,
) -> Vec<Seen> {
    let mut watch = store.watch(PODS, store.revision()).expect("a watch");
    let (mut seen, mut last) = (Vec::new(), last);
    loop {
        tokio::select! {
            next = watch.next() => {
                let event = next.expect("the store is open").expect("the window is wide");
                let before = event.previous.as_ref().map_or(0, |p| p.revision);
                let text = match event.kind {
                    EventKind::Deleted => format!("deleted at {before}"),
                    _ => event.entry.labels.get("text").expect("a text").to_owned(),
                };
                let key = event.entry.key.clone();
                seen.push(Seen { revision: event.revision, key, text, before });
            }
            _ = last.changed() => {}
        }
        let end = *last.borrow();
        if run.over.load(Ordering::SeqCst) && end > 0 && watch.progress() >= end {
            return seen;
        }
    }
}

/// Whether the history explains every answer.
fn judge(history: &[Seen], tried: &[Tried]) {
    assert!(history.windows(2).all(|w| w[0].revision < w[1].revision), "in order");
    let mut states: BTreeMap<&Key, (Revision, u64)> = BTreeMap::new();
    for seen in history {
        let (revision, count) = states.remove(&seen.key).unwrap_or_default();
        assert_eq!(seen.before, revision, "each change builds upon the one before: {seen:?}");
        if !seen.text.starts_with("deleted") {
            assert_eq!(count_of(Some(&seen.text)), count + 1, "no count is lost: {seen:?}");
            states.insert(&seen.key, (seen.revision, count + 1));
        }
    }
    let by_text: HashMap<(&Key, &str), Revision> =
        history.iter().map(|s| ((&s.key, &*s.text), s.revision)).collect();
    let mut explained = HashSet::new();
    for tried in tried {
        let Tried { key, text, expected, answer, .. } = tried;
        let found = by_text.get(&(key, &**text)).copied();
        let deletion = text.starts_with("deleted");
        match answer {
            Answer::Done(revision) => {
                assert_eq!(found, Some(*revision), "acknowledged: {key} {text} upon {expected}");
                assert!(explained.insert(revision), "one change for one acknowledgement");
            }
            // Several may try the same deletion, of which one succeeds.
            Answer::Conflict | Answer::Failed if deletion => {}
            Answer::Conflict | Answer::Failed => {
                assert_eq!(found, None, "refused ({answer:?}): {key} {text} upon {expected}");
            }
            Answer::Unknown => {}
        }
    }
    in_real_time(tried);
}

/// What was asked for after something else was acknowledged comes after it.
fn in_real_time(tried: &[Tried]) {
    let mut moments: Vec<(u64, Option<u64>, Revision)> = Vec::new();
    for tried in tried {
        if let Answer::Done(revision) = tried.answer {
            moments.push((tried.answered, None, revision));
            moments.push((tried.asked, Some(tried.answered), revision));
        }
    }
    moments.sort_unstable_by_key(|m| m.0);
    let mut acknowledged = 0;
    for (_, asked, revision) in moments {
        match asked {
            None => acknowledged = acknowledged.max(revision),
            Some(_) => assert!(revision > acknowledged, "{revision} after {acknowledged}"),
        }
    }
}

async fn run_with(name: &str, engine: Engine) {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("to replay: SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut far = Far::new(engine).await;
    let mut stores = Vec::new();
    for n in 0..STORES {
        let wide = Options { window_max_events: 1_000_000, ..Options::default() };
        let wide = Options { window_max_bytes: 1 << 30, windows_max_bytes: 1 << 30, ..wide };
        let opened = Store::open(far.datastore(n).driver(), Arc::new(Json), wide).await;
        stores.push(opened.expect("the store opens").0);
    }
    let run = Run { clock: 1.into(), over: false.into(), done: 0.into() };
    let run = Arc::new(run);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (last, end) = tokio::sync::watch::channel(0);
    let watchers: Vec<_> = stores
        .iter()
        .map(|store| tokio::spawn(watch(store.clone(), run.clone(), end.clone())))
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(stores[n % STORES].clone(), n, run.clone(), random.u64(..))))
        .collect();
    let readers: Vec<_> = stores
        .iter()
        .map(|s| tokio::spawn(read(s.clone(), run.clone(), acknowledged.clone())))
        .collect();
    progress(&run).await;
    for _ in 0..TROUBLES {
        let trouble = far.any_trouble(&mut random);
        let lasts = random.u64(50..TROUBLE_MAX_MS);
        println!("{trouble:?} for {lasts} ms");
        far.begin(trouble);
        tokio::time::sleep(Duration::from_millis(lasts)).await;
        far.end(trouble);
        progress(&run).await;
    }
    run.over.store(true, Ordering::SeqCst);
    let mut tried = Vec::new();
    for writer in writers {
        tried.extend(writer.await.expect("a writer"));
    }
    for reader in readers {
        let (passed, refused) = reader.await.expect("a reader");
        assert!(passed > 0);
        println!("{passed} barriers passed, {refused} refused");
    }
    let newest = stores[0].put(key("last"), Expect::Any, value("1 last")).await.expect("healed");
    last.send_replace(newest.revision);
    let mut histories = Vec::new();
    for (store, watcher) in stores.iter().zip(watchers) {
        assert!(store.barrier().await.expect("healed") >= newest.revision);
        histories.push(watcher.await.expect("a watcher"));
    }
    let mut history = histories.pop().expect("a history");
    for other in histories {
        assert!(other == history, "all stores tell one history");
    }
    history.retain(|seen| *seen.key.name != *"last");
    judge(&history, &tried);
    let count = |wanted: fn(&Answer) -> bool| tried.iter().filter(|t| wanted(&t.answer)).count();
    println!(
        "{name}: {} done, {} conflicts, {} failed, {} unknown",
        count(|a| matches!(a, Answer::Done(_))),
        count(|a| matches!(a, Answer::Conflict)),
        count(|a| matches!(a, Answer::Failed)),
        count(|a| matches!(a, Answer::Unknown)),
    );
}

/// Waits until some writes have gone through.
async fn progress(run: &Run) {
    let wanted = run.done.load(Ordering::SeqCst) + 20;
    let deadline = Instant::now() + HEAL_PATIENCE;
    while run.done.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < deadline, "writes do not go through again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_of_three_members() {
    run_with("etcd, 3 members", Engine::Etcd(Etcds::start(3))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_of_one_member() {
    run_with("etcd, 1 member", Engine::Etcd(Etcds::start(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    run_with("PostgreSQL", Engine::Sql(Box::new(Sql::start(Kind::Postgres)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb() {
    run_with("MariaDB", Engine::Sql(Box::new(Sql::start(Kind::Mysql)))).await;
}
