//! A driver whose objects others write too, as etcd's will be: proof that the trait fits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use store::{
    Change, Driver, DriverError, Dump, Expect, Feed, Ground, Key, Loaded, Options, Outcome,
    Proposal, Range, Recovery, Revision, Shared, Stats, Store, Verdict,
};

use crate::support::{Json, key, value};

/// The far side: decides, and keeps the order of changes.
#[derive(Default)]
struct Server {
    objects: BTreeMap<Key, (Revision, Revision)>,
    log: Vec<Change>,
    feeds: Vec<Feed>,
}

impl Server {
    fn transact(&mut self, proposal: Proposal) -> Verdict {
        let Proposal { key, expect, value } = proposal;
        let now = self.objects.get(&key).copied();
        match (now, expect) {
            (None, _) if value.is_none() => return Verdict::NotFound,
            (Some(_), Expect::Absent) | (None, Expect::Revision(_)) => return Verdict::Conflict,
            (Some((_, r)), Expect::Revision(e)) if r != e => return Verdict::Conflict,
            _ => {}
        }
        let revision = self.log.last().map_or(1, |c| c.revision) + 1;
        let created = now.map_or(revision, |n| n.0);
        match value {
            Some(_) => self.objects.insert(key.clone(), (created, revision)),
            None => self.objects.remove(&key),
        };
        let change = Change { key, created, revision, value };
        self.log.push(change.clone());
        self.feeds.iter().for_each(|feed| feed.publish(vec![change.clone()], revision));
        Verdict::Applied(change)
    }
}

struct Remote {
    server: Arc<Mutex<Server>>,
    feed: Option<Feed>,
}

struct Newest(Arc<Mutex<Server>>);

impl Shared for Newest {
    fn newest(&self) -> futures::future::BoxFuture<'_, Result<Revision, DriverError>> {
        let newest = self.0.lock().unwrap().log.last().map_or(1, |c| c.revision);
        Box::pin(async move { Ok(newest) })
    }
}

impl Driver for Remote {
    fn name(&self) -> String {
        "a server of the test".into()
    }

    fn load(
        &mut self,
        _options: &Options,
        feed: Feed,
        _sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError> {
        self.feed = Some(feed);
        let shared: Arc<dyn Shared> = Arc::new(Newest(self.server.clone()));
        Ok(Loaded { revision: 1, recovery: Recovery::Fresh, shared: Some(shared) })
    }

    fn begin(&mut self) {
        let server = self.server.clone();
        let mut server = server.lock().unwrap();
        let feed = self.feed.take().unwrap();
        feed.publish(server.log.clone(), server.log.last().map_or(1, |c| c.revision));
        server.feeds.push(feed);
    }

    fn fill(&mut self, _options: &Options, _dump: &Dump) -> Result<(), DriverError> {
        Ok(())
    }

    fn commit(&mut self, batch: Vec<Proposal>, _ground: &dyn Ground) -> Outcome {
        let server = self.server.clone();
        let mut server = server.lock().unwrap();
        let verdicts = batch.into_iter().map(|p| server.transact(p)).collect();
        Outcome { verdicts, changes: Vec::new() }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn tend(&mut self, _now: Instant, _ground: &dyn Ground) {}

    fn flush(&mut self, _ground: &dyn Ground) -> Result<(), DriverError> {
        Ok(())
    }

    fn copy(&mut self) -> Result<(), DriverError> {
        Ok(())
    }

    fn close(&mut self, _ground: &dyn Ground) -> Result<(), DriverError> {
        Ok(())
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Adds one to a counter, again and again, whatever others do meanwhile.
async fn count(store: Store, times: u32) {
    for _ in 0..times {
        loop {
            let now = store.get(&key("counter"));
            let number = now.as_ref().map_or(0, |e| e.labels.get("text").unwrap().parse().unwrap());
            let expect = now.map_or(Expect::Absent, |e| Expect::Revision(e.revision));
            let next: u32 = number + 1;
            if store.put(key("counter"), expect, value(&next.to_string())).await.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_over_one_server_agree() {
    let server = Arc::new(Mutex::new(Server::default()));
    let mut stores = Vec::new();
    for _ in 0..2 {
        let remote = Remote { server: server.clone(), feed: None };
        let opened = Store::open(remote, Arc::new(Json), Options::default()).await;
        stores.push(opened.unwrap().0);
    }
    let (writers, times) = (4, 50);
    let tasks: Vec<_> =
        (0..writers).map(|n| tokio::spawn(count(stores[n % 2].clone(), times))).collect();
    for store in &stores {
        let range = Range { collection: "pods", namespace: None };
        let mut watch = store.watch(range, 1).unwrap();
        for n in 1..=(writers as u32 * times) {
            let event = watch.next().await.unwrap().unwrap();
            assert_eq!(event.entry.labels.get("text"), Some(&*n.to_string()));
            assert_eq!(event.revision, u64::from(n) + 1);
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    drop(stores);
}
