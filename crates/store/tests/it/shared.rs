//! What datastores that several servers use must do beside the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{
    BarrierError, Compacted, Datastore, DriverError, Dump, Etcd, Expect, Memory, OpenError,
    Options, Page, Range, Store, TlsFiles, WriteError, fill,
};

use crate::etcds::Etcds;
use crate::proxy::{Network, Proxy};
use crate::sqls::{Kind, Sql};
use crate::support::{Json, Medium, key, lease, options, stamped, text, value};

const PODS: Range<'static> = Range { collection: "pods", namespace: None };

/// Waits for something that comes by itself.
async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_agree() {
    for medium in Medium::shared() {
        let (a, b, c) = tokio::join!(medium.open(), medium.open(), medium.open());
        let (a, b, c) = (a.0, b.0, c.0);
        let written = a.put(key("a"), Expect::Absent, value("1")).await.unwrap();
        assert!(b.barrier().await.unwrap() >= written.revision);
        assert_eq!(text(&b.get(&key("a")).unwrap().value), stamped("1", written.revision));
        // Behind or not, a server knows who was first.
        let late = c.put(key("a"), Expect::Absent, value("2")).await.unwrap_err();
        assert!(matches!(late, WriteError::Conflict { current: Some(_) }), "{late:?}");
        let last = c.delete(&key("a"), Expect::Any).await.unwrap();
        assert_eq!(text(&last.value), stamped("1", last.revision));
        let gone = b.delete(&key("a"), Expect::Revision(written.revision)).await.unwrap_err();
        assert!(matches!(gone, WriteError::NotFound), "{gone:?}");
        for store in [a, b, c] {
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_moves_from_each_to_each() {
    let (first, _) =
        Store::open(Memory::default().driver(), Arc::new(Json), options()).await.unwrap();
    for n in 0..300 {
        first.put(key(&format!("p{n}")), Expect::Absent, value("old")).await.unwrap();
    }
    first.put(key("p7"), Expect::Any, value("new")).await.unwrap();
    first.put(lease("l"), Expect::Any, value("held")).await.unwrap();
    first.put(key("large"), Expect::Any, value(&"x".repeat(1_500_000))).await.unwrap();
    first.delete(&key("p8"), Expect::Any).await.unwrap();
    let mut dump = first.dump();
    assert_eq!((dump.revision, dump.entries.len()), (first.revision(), 301));
    for medium in Medium::all() {
        fill(medium.driver(), options(), dump.clone()).await.unwrap();
        let (store, _) = medium.open().await;
        assert!(store.revision() >= dump.revision);
        let slots = |entries: &[Arc<store::Entry>]| -> Vec<_> {
            entries.iter().map(|e| (e.key.clone(), e.labels.get("text").map(str::len))).collect()
        };
        let moved = store.dump();
        if medium.is_shared() {
            // A server that knew the old datastore must not take an old revision for a new one.
            assert!(moved.entries.iter().all(|e| e.revision > dump.revision));
        }
        let (mut old, mut new) = (slots(&dump.entries), slots(&moved.entries));
        assert_eq!(new[299..], old[299..], "the newest stay the newest");
        old.sort();
        new.sort();
        assert_eq!(new, old);
        let next = store.put(key("p9"), Expect::Any, value("x")).await.unwrap();
        assert!(next.revision > dump.revision);
        store.put(key("p9"), Expect::Revision(next.revision), value("old")).await.unwrap();
        dump = store.dump();
        store.close().await.unwrap();
        let again = fill(medium.driver(), options(), dump.clone()).await.unwrap_err();
        let said = base::chain(&again).to_string();
        assert!(said.contains("is not empty: it holds 301 objects (300 pods, 1 leases)"), "{said}");
        assert!(again.hint().is_some());
    }
}

#[tokio::test]
async fn an_interrupted_fill_is_told_and_made_good() {
    let etcds = Etcds::start(1);
    let options = etcds.options();
    etcds.put("/coracle/filling", "").await;
    etcds.put("/coracle/objects/pods//default/half", "{}").await;
    let opened = Store::open(Etcd::driver(options.clone()), Arc::new(Json), Options::default());
    let refused = opened.await.err().expect("it is refused");
    assert!(matches!(refused, OpenError::Driver(DriverError::HalfFilled { .. })), "{refused}");
    let dump = Dump { revision: 1_000, entries: Vec::new() };
    fill(Etcd::driver(options.clone()), Options::default(), dump).await.unwrap();
    let opened = Store::open(Etcd::driver(options), Arc::new(Json), Options::default()).await;
    let (store, _) = opened.unwrap();
    assert!(store.revision() > 1_000 && store.get(&key("half")).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datastore_out_of_reach_is_told() {
    let (etcds, sql) = (Etcds::start(1), Sql::start(Kind::Postgres));
    let to_etcd = Proxy::to(etcds.members[0].port()).await;
    let urls = vec![format!("http://127.0.0.1:{}", to_etcd.port)];
    let etcd = Datastore::Etcd(store::EtcdOptions::new(urls, TlsFiles::default()));
    let to_sql = Proxy::to(sql.port()).await;
    let sql = sql.named("reach", to_sql.port);
    tokio::join!(out_of_reach(etcd, to_etcd), out_of_reach(sql, to_sql));
}

async fn out_of_reach(datastore: Datastore, proxy: Proxy) {
    let opened = Store::open(datastore.driver(), Arc::new(Json), Options::default()).await;
    let (store, _) = opened.unwrap();
    store.put(key("a"), Expect::Any, value("1")).await.unwrap();
    assert_eq!(store.health().error, None);
    assert!(store.health().last_success.is_some());
    proxy.set(Network::Holds);
    eventually("bad health", async || store.health().error.is_some()).await;
    let refused = store.barrier().await.unwrap_err();
    let told = matches!(refused, BarrierError::Datastore(_) | BarrierError::Late { .. });
    assert!(told, "{refused}");
    assert!(store.get(&key("a")).is_some(), "what is known can be read");
    let lost = store.put(key("a"), Expect::Any, value("2")).await.unwrap_err();
    assert!(matches!(lost, WriteError::Unresolved(_) | WriteError::Storage(_)), "{lost}");
    proxy.set(Network::Flows);
    eventually("good health", async || store.health().error.is_none()).await;
    store.barrier().await.unwrap();
    store.put(key("a"), Expect::Any, value("3")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_too_late_is_never_done() {
    let etcds = Etcds::start(3);
    let first = Proxy::to(etcds.members[0].port()).await;
    let mut options = etcds.options();
    options.endpoints[0] = format!("http://127.0.0.1:{}", first.port);
    let (near, _) =
        Store::open(Etcd::driver(options), Arc::new(Json), Options::default()).await.unwrap();
    let far = Etcd::driver(etcds.options_from(1));
    let (far, _) = Store::open(far, Arc::new(Json), Options::default()).await.unwrap();
    for round in 0..5 {
        // The request is on its way and stays there; the store finds another way.
        first.set(Network::Holds);
        let made = near.put(key("a"), Expect::Absent, value("1")).await.unwrap();
        far.delete(&key("a"), Expect::Revision(made.revision)).await.unwrap();
        first.set(Network::Flows);
        // Everything that was held up has arrived when something behind it has.
        let behind = far.put(key("b"), Expect::Any, value(&round.to_string())).await.unwrap();
        assert!(near.barrier().await.unwrap() >= behind.revision);
        far.barrier().await.unwrap();
        assert!(far.get(&key("a")).is_none() && near.get(&key("a")).is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_members_hang_the_one_that_answers_is_found() {
    let etcds = Etcds::start(1);
    let mut options = etcds.options();
    // One after the other they would take longer than a write may.
    let mut hung = Vec::new();
    for place in 0..5 {
        let proxy = Proxy::to(etcds.members[0].port()).await;
        options.endpoints.insert(place, format!("http://127.0.0.1:{}", proxy.port));
        hung.push(proxy);
    }
    let (store, _) =
        Store::open(Etcd::driver(options), Arc::new(Json), Options::default()).await.unwrap();
    store.put(key("a"), Expect::Any, value("1")).await.unwrap();
    hung.iter().for_each(|proxy| proxy.set(Network::Holds));
    store.put(key("a"), Expect::Any, value("2")).await.unwrap();
    store.barrier().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenant_of_the_etcd_is_no_hindrance() {
    let etcds = Etcds::start(1);
    let (store, _) = Store::open(Etcd::driver(etcds.options()), Arc::new(Json), Options::default())
        .await
        .unwrap();
    for n in 0..5 {
        etcds.put("/registry/pods/default/a", &n.to_string()).await;
        let before = store.revision();
        assert!(store.barrier().await.unwrap() > before, "the tenant's write counts");
        store.put(key("a"), Expect::Any, value(&n.to_string())).await.unwrap();
    }
    assert_eq!(store.list(PODS, Page::default()).unwrap().entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_for_too_long_reads_anew() {
    let etcds = Etcds::start(1);
    let proxy = Proxy::to(etcds.members[0].port()).await;
    let mut options = etcds.options();
    // Compaction needs three rounds: to meet, to note, to forget.
    options.compact_interval = Duration::from_millis(300);
    let (near, _) = Store::open(Etcd::driver(options.clone()), Arc::new(Json), Options::default())
        .await
        .unwrap();
    options.endpoints = vec![format!("http://127.0.0.1:{}", proxy.port)];
    options.compact_interval = Duration::from_secs(3600);
    let (away, _) =
        Store::open(Etcd::driver(options), Arc::new(Json), Options::default()).await.unwrap();
    near.put(key("stays"), Expect::Any, value("1")).await.unwrap();
    near.put(key("goes"), Expect::Any, value("1")).await.unwrap();
    away.barrier().await.unwrap();
    let from = away.revision();
    let mut watch = away.watch(PODS, from).unwrap();
    proxy.set(Network::Cut);
    near.delete(&key("goes"), Expect::Any).await.unwrap();
    let newest = near.put(key("comes"), Expect::Any, value("1")).await.unwrap().revision;
    eventually("compaction", async || {
        near.put(key("stays"), Expect::Any, value("2")).await.unwrap();
        etcds.is_compacted(newest).await
    })
    .await;
    proxy.set(Network::Flows);
    assert!(away.barrier().await.unwrap() > newest);
    let told = watch.next().await.unwrap().unwrap_err();
    assert!(matches!(told, Compacted { asked, .. } if asked == from), "{told}");
    let names = |store: &Store| -> Vec<String> {
        let list = store.list(PODS, Page::default()).unwrap();
        list.entries.iter().map(|e| e.key.name.to_string()).collect()
    };
    assert_eq!(names(&away), ["comes", "stays"]);
    away.put(key("goes"), Expect::Absent, value("again")).await.unwrap();
    assert_eq!(names(&away), ["comes", "goes", "stays"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_pruned_and_who_missed_it_reads_anew() {
    for kind in [Kind::Postgres, Kind::Mysql] {
        let sql = Sql::start(kind);
        let proxy = Proxy::to(sql.port()).await;
        let open = async |datastore: Datastore| {
            Store::open(datastore.driver(), Arc::new(Json), Options::default()).await.unwrap().0
        };
        let near = open(sql.named("log", sql.port())).await;
        let away = open(sql.named("log", proxy.port)).await;
        near.put(key("stays"), Expect::Any, value("1")).await.unwrap();
        away.barrier().await.unwrap();
        let mut watch = away.watch(PODS, away.revision()).unwrap();
        proxy.set(Network::Cut);
        let churn = (0..13_000).map(|n| {
            let near = near.clone();
            async move { near.put(lease(&format!("l{}", n % 50)), Expect::Any, value("x")).await }
        });
        use futures::stream::{StreamExt, iter};
        let written = iter(churn).buffer_unordered(500).all(async |w| w.is_ok()).await;
        assert!(written);
        near.put(key("comes"), Expect::Any, value("1")).await.unwrap();
        eventually("pruning", async || sql.oldest_change("log") > 50).await;
        proxy.set(Network::Flows);
        assert!(away.barrier().await.unwrap() > 13_000);
        assert!(watch.next().await.unwrap().is_err(), "the watch has a gap and says so");
        assert!(away.get(&key("comes")).is_some() && away.get(&key("stays")).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_the_etcd_names_step_in_and_the_nearest_is_taken_back() {
    let mut etcds = Etcds::start(3);
    let nearest = Proxy::to(etcds.members[0].port()).await;
    let mut options = etcds.options();
    options.endpoints = vec![format!("http://127.0.0.1:{}", nearest.port)];
    options.discover = true;
    let (store, _) =
        Store::open(Etcd::driver(options), Arc::new(Json), Options::default()).await.unwrap();
    store.put(key("a"), Expect::Any, value("1")).await.unwrap();
    etcds.members[0].kill();
    let before = Instant::now();
    store.put(key("a"), Expect::Any, value("2")).await.unwrap();
    store.barrier().await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    let connections = nearest.passed();
    etcds.members[0].start_alone();
    eventually("the nearest member", async || nearest.passed() > connections).await;
    store.put(key("a"), Expect::Any, value("3")).await.unwrap();
    etcds.members[1].kill();
    store.put(key("a"), Expect::Any, value("4")).await.unwrap();
}
