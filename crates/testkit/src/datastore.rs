use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use store::{
    Change, Driver, DriverError, Dump, Expect, Feed, Ground, Key, Loaded, Options, Outcome,
    Proposal, Recovery, Revision, Shared, Stats, Verdict,
};

/// The revision of an empty datastore.
const FIRST_REVISION: Revision = 1;

/// A datastore in memory that several stores share, as several servers share etcd. Each store
/// is told of the others' writes at once, or, while it [lags](Member::lag), only when it asks
/// for the newest revision; while it is [cut off](Member::cut) it reaches nothing.
#[derive(Clone, Default)]
pub struct Datastore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Change>,
    newest: Revision,
    members: Vec<Link>,
}

/// What is between the datastore and one store.
#[derive(Default)]
struct Link {
    feed: Option<Feed>,
    untold: VecDeque<Change>,
    lags: bool,
    cut: bool,
}

/// One store's way to the datastore.
#[derive(Clone)]
pub struct Member {
    datastore: Datastore,
    number: usize,
}

impl Datastore {
    /// A way in for one more store.
    pub fn member(&self) -> Member {
        let mut state = self.state();
        state.members.push(Link::default());
        Member { datastore: self.clone(), number: state.members.len() - 1 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn revision(&self) -> Revision {
        self.newest.max(FIRST_REVISION)
    }

    fn transact(&mut self, proposal: Proposal) -> Verdict {
        let Proposal { key, expect, value } = proposal;
        let now = self.objects.get(&key);
        match (now, expect) {
            (None, _) if value.is_none() => return Verdict::NotFound,
            (Some(_), Expect::Absent) | (None, Expect::Revision(_)) => return Verdict::Conflict,
            (Some(now), Expect::Revision(r)) if now.revision != r => return Verdict::Conflict,
            _ => {}
        }
        let revision = self.revision() + 1;
        let created = now.map_or(revision, |now| now.created);
        let last = now.and_then(|now| now.value.clone());
        let change = Change { key: key.clone(), created, revision, value };
        match change.value {
            Some(_) => drop(self.objects.insert(key, change.clone())),
            None => drop(self.objects.remove(&key)),
        }
        self.newest = revision;
        for link in &mut self.members {
            link.untold.push_back(change.clone());
            if !link.lags && !link.cut {
                link.tell();
            }
        }
        // The verdict about a deletion has the value that is gone.
        Verdict::Applied(Change { value: change.value.clone().or(last), ..change })
    }
}

impl Link {
    fn tell(&mut self) {
        let Some(feed) = &self.feed else { return };
        let changes: Vec<Change> = self.untold.drain(..).collect();
        if let Some(last) = changes.last().map(|change| change.revision) {
            feed.publish(changes, last);
        }
    }
}

impl Member {
    /// From now on the store hears of writes only when it asks; `false` tells it all and ends that.
    pub fn lag(&self, lags: bool) {
        self.change(|link| link.lags = lags);
    }

    /// From now on nothing gets through; `false` heals that.
    pub fn cut(&self, cut: bool) {
        self.change(|link| link.cut = cut);
    }

    fn change(&self, change: impl FnOnce(&mut Link)) {
        let mut state = self.datastore.state();
        let link = &mut state.members[self.number];
        change(link);
        if !link.lags && !link.cut {
            link.tell();
        }
    }

    fn unreachable(&self) -> DriverError {
        DriverError::Remote {
            doing: "reaching",
            datastore: "the test's datastore".into(),
            hint: None,
            source: "cut off".into(),
        }
    }
}

impl Shared for Member {
    fn newest(&self) -> BoxFuture<'_, Result<Revision, DriverError>> {
        async move {
            let mut state = self.datastore.state();
            let newest = state.revision();
            let link = &mut state.members[self.number];
            if link.cut {
                return Err(self.unreachable());
            }
            link.tell();
            Ok(newest)
        }
        .boxed()
    }
}

impl Driver for Member {
    fn name(&self) -> String {
        "the test's datastore".into()
    }

    fn load(
        &mut self,
        _options: &Options,
        feed: Feed,
        sink: &mut dyn FnMut(Change),
    ) -> Result<Loaded, DriverError> {
        let mut state = self.datastore.state();
        state.objects.values().cloned().for_each(sink);
        let revision = state.revision();
        let link = &mut state.members[self.number];
        link.untold.clear();
        link.feed = Some(feed);
        // Nothing may be told before the store has taken in what was loaded.
        link.lags = true;
        let shared: Arc<dyn Shared> = Arc::new(self.clone());
        Ok(Loaded { revision, recovery: Recovery::Fresh, shared: Some(shared) })
    }

    fn begin(&mut self) {
        self.lag(false);
    }

    fn fill(&mut self, _options: &Options, _dump: &Dump) -> Result<(), DriverError> {
        Err(self.unreachable())
    }

    fn commit(&mut self, batch: Vec<Proposal>, _ground: &dyn Ground) -> Outcome {
        let mut state = self.datastore.state();
        let cut = state.members[self.number].cut;
        let decide = |proposal| match cut {
            true => Verdict::Failed(Arc::new(self.unreachable())),
            false => state.transact(proposal),
        };
        Outcome { verdicts: batch.into_iter().map(decide).collect(), changes: Vec::new() }
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
        self.datastore.state().members[self.number].feed = None;
        Ok(())
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}
