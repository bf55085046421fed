//! Snapshots by the clock, on the server that leads, and the removal of old ones.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{EventKind as Kind, Recorder};
use controllers::CronSchedule;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio_util::sync::CancellationToken;

use super::take::{Order, Saved};
use super::{Desk, Folder, Listed, Places, Reason, ScheduleOptions, Storage, retention};
use crate::failure::{Failure, Outcome};

/// A board without a clock of its own gets the time while it runs, and this is how late it is
/// noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// When a snapshot that failed is tried again, unless the schedule comes first.
const RETRY: base::Backoff = base::Backoff::new(Duration::from_secs(60), Duration::from_secs(3600));

/// What the schedule does, and how many snapshots stay.
#[derive(Clone)]
pub struct Plan {
    /// When.
    pub schedule: CronSchedule,
    /// What.
    pub order: Order,
    /// How many stay.
    pub retention: usize,
}

/// What became of this server's snapshots, for metrics.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    taken: u64,
    failed: u64,
    last: Option<(Timestamp, u64)>,
}

impl Tally {
    /// Notes how a snapshot went.
    pub fn note(&self, outcome: &Outcome<Saved>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(saved) => {
                counts.taken += 1;
                counts.last = Some((saved.taken.about.created, saved.taken.size));
            }
            Err(_) => counts.failed += 1,
        }
    }

    /// Writes the metrics.
    pub fn write(&self, page: &mut apiserver::MetricsPage) {
        use apiserver::MetricKind::{Counter, Gauge};
        let counts = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "coracle_snapshots_total";
        page.metric(name, Counter, "Snapshots by this server, by result.");
        page.sample(name, &[("result", "taken")], counts.taken as f64);
        page.sample(name, &[("result", "failed")], counts.failed as f64);
        if let Some((at, size)) = counts.last {
            let name = "coracle_snapshot_last_timestamp_seconds";
            page.metric(name, Gauge, "When this server took its last snapshot.");
            page.sample(name, &[], at.as_second() as f64);
            let name = "coracle_snapshot_last_size_bytes";
            page.metric(name, Gauge, "Size of the last snapshot.");
            page.sample(name, &[], size as f64);
        }
    }
}

/// Takes snapshots by the plan until `stop`.
pub async fn keep(desk: Arc<Desk>, plan: Plan, recorder: Recorder, stop: CancellationToken) {
    let (mut failures, mut due) = (0, plan.next(Timestamp::now()));
    loop {
        let now = Timestamp::now();
        // A clock that was put back must not put the next one off by as much.
        due = match (due, plan.next(now)) {
            (Some(due), Some(next)) => Some(due.min(next)),
            (due, next) => due.or(next),
        };
        let Some(at) = due else { return stop.cancelled().await };
        let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        if !left.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => continue,
                () = stop.cancelled() => return,
            }
        }
        let outcome = desk.take(&plan.order).await;
        let kept = match &outcome {
            Ok(_) => prune_all(&plan).await,
            Err(_) => Ok(()),
        };
        report(&recorder, &desk.source().node, &outcome, kept);
        failures = if outcome.is_ok() { 0 } else { failures + 1 };
        let after = Timestamp::now();
        due = match failures {
            0 => plan.next(after),
            _ => after.checked_add(RETRY.delay(failures)).ok(),
        };
    }
}

impl Plan {
    /// The plan that a server's flags make; none where they say that there shall be none.
    pub fn new(
        options: &ScheduleOptions,
        places: &Places,
        data_dir: &std::path::Path,
    ) -> Outcome<Option<Plan>> {
        let schedule = match CronSchedule::parse(&options.snapshot_schedule_cron) {
            Some(schedule) if !options.disable_snapshots => schedule,
            _ => return Ok(None),
        };
        let order = Order {
            prefix: options.snapshot_name.clone(),
            reason: Reason::Scheduled,
            folder: places.folder(data_dir),
            passphrase: places.passphrase()?,
            s3: places.s3.clone(),
        };
        if order.s3.s3 {
            // A storage that is named wrongly stops the start and not the first snapshot.
            Storage::new(&order.s3)?;
        }
        Ok(Some(Plan { schedule, order, retention: options.snapshot_retention }))
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, &TimeZone::system())
    }
}

fn report(recorder: &Recorder, node: &str, outcome: &Outcome<Saved>, pruned: Outcome) {
    let node = ObjectReference {
        kind: Some("Node".into()),
        name: Some(node.to_owned()),
        // What kubelet's own events have, so that `kubectl describe node` shows it.
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    };
    match outcome {
        Ok(Saved { taken, stored }) => {
            let place = stored.clone().unwrap_or_else(|| taken.path.display().to_string());
            let note = format!("Took snapshot {place} of revision {}", taken.about.revision);
            tracing::info!(objects = taken.totals.objects, size = taken.size, "{note}");
            recorder.event(&node, Kind::Normal, "SnapshotTaken", &note);
        }
        Err(failure) => warn(recorder, &node, "SnapshotFailed", failure),
    }
    if let Err(failure) = pruned {
        warn(recorder, &node, "SnapshotPruneFailed", &failure);
    }
}

fn warn(recorder: &Recorder, node: &ObjectReference, reason: &str, failure: &Failure) {
    let note = base::chain(failure);
    tracing::error!(hint = failure.next_step(), "snapshot: {note}");
    recorder.event(node, Kind::Warning, reason, &note);
}

async fn prune_all(plan: &Plan) -> Outcome {
    let order = &plan.order;
    let passphrase = order.passphrase.as_deref();
    let folder = Folder(order.folder.clone());
    prune(&folder, None, &order.prefix, plan.retention, passphrase).await?;
    if order.s3.s3 {
        let storage = Storage::new(&order.s3)?;
        prune(&folder, Some(&storage), &order.prefix, plan.retention, passphrase).await?;
    }
    Ok(())
}

/// Removes what is too many, in the storage if one is given, else in the folder. Gives what it
/// removed. What a storage holds is fetched into the folder to be looked at.
pub async fn prune(
    folder: &Folder,
    storage: Option<&Storage>,
    prefix: &str,
    keep: usize,
    passphrase: Option<&str>,
) -> Outcome<Vec<Listed>> {
    let listed = match storage {
        Some(storage) => storage.list().await?,
        None => folder.list()?,
    };
    let ours = retention::of_prefix(listed, prefix);
    if retention::too_many(ours.len(), keep) == 0 {
        return Ok(Vec::new());
    }
    let mut newest_good = None;
    for (place, one) in ours.iter().enumerate() {
        let is_good = match storage {
            Some(storage) => storage.is_good(&one.name, folder, passphrase).await?,
            None => folder.look(&one.name, passphrase).await?,
        };
        if is_good {
            newest_good = Some(place);
            break;
        }
        tracing::warn!("the snapshot {} is damaged", one.location);
    }
    let gone = retention::surplus(&ours, keep, newest_good);
    for one in &gone {
        match storage {
            Some(storage) => storage.remove(&one.name).await?,
            None => folder.remove(&one.name)?,
        }
    }
    Ok(gone.into_iter().cloned().collect())
}
