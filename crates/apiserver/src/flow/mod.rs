//! API priority and fairness: who waits when more is asked than can be worked on, so that one
//! noisy client does not starve the others.
//!
//! A FlowSchema sorts a request into a priority level and a flow; a level has seats of its own and
//! fair queues for its flows (upstream's KEP-1040). Tables catch up with the store when they are
//! asked for, as roles do. What is simpler than upstream: seats are lent at the moment in which
//! they are asked for, not planned for the next ten seconds, and a write's work does not count
//! those who watch.

pub(crate) mod defaults;
mod queues;
mod schema;
mod status;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::status::Status;
use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Method};
use store::Store;

use crate::config::Limits;
use crate::feed::Feed;
use crate::metrics::{MetricKind, MetricsPage};
use crate::request::{Request, RequestInfo, Response, query_value};
use crate::user::User;
use queues::{Refusal, Seat, Seats};
use schema::Table;
pub(crate) use status::Dangling;

/// Store collections of schemas and levels.
const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
/// What a client that is turned away is told to wait.
const RETRY_AFTER_SECONDS: u32 = 1;
/// The longest that a request waits in a queue, as a part of the time that it has in all.
const WAIT_PART: u32 = 4;
/// Objects of a list that make one seat's work, and the most seats that one list takes.
const OBJECTS_PER_SEAT: usize = 100;
const LIST_SEATS_MAX: usize = 10;
static SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The gate that remote requests pass.
pub(crate) struct Flow {
    store: Store,
    /// Seats of all levels together.
    total: usize,
    wait: Duration,
    feeds: Mutex<[Feed; 2]>,
    /// The store's revision that the table has seen everything of.
    seen: AtomicU64,
    table: ArcSwap<Table>,
    seats: Arc<Seats>,
    /// Requests under way: reading, writing.
    current: [AtomicUsize; 2],
}

/// What a request asks for: whether it writes, and its seats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    kind: usize,
    seats: usize,
}

/// A place among the requests that are worked on; given back when it is dropped.
pub(crate) struct Place {
    flow: Arc<Flow>,
    kind: usize,
    headers: [Option<HeaderValue>; 2],
    _seat: Seat,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flow.current[self.kind].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// Says in an answer how its request was sorted.
    pub(crate) fn mark(&self, answer: &mut Response) {
        mark(answer, &self.headers);
    }
}

fn mark(answer: &mut Response, headers: &[Option<HeaderValue>; 2]) {
    for (name, value) in [&SCHEMA_UID, &LEVEL_UID].into_iter().zip(headers) {
        if let Some(value) = value {
            answer.headers_mut().insert(name.clone(), value.clone());
        }
    }
}

impl Flow {
    /// A gate over the store's own schemas and levels.
    pub(crate) fn new(store: &Store, limits: &Limits) -> Arc<Flow> {
        let feeds = [SCHEMAS, LEVELS].map(|collection| Feed::new(store.clone(), collection));
        let flow = Flow {
            store: store.clone(),
            total: limits.reads_in_flight + limits.writes_in_flight,
            wait: limits.request / WAIT_PART,
            feeds: Mutex::new(feeds),
            seen: AtomicU64::new(0),
            table: ArcSwap::from_pointee(Table::default()),
            seats: Arc::default(),
            current: Default::default(),
        };
        flow.rebuild(&Table::default());
        Arc::new(flow)
    }

    fn rebuild(&self, table: &Table) {
        let levels = table.levels(self.total);
        self.seats.configure(&levels);
    }

    fn table(&self) -> Arc<Table> {
        let now = self.store.revision();
        if self.seen.load(Ordering::Acquire) < now {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            let mut changed = None;
            for (index, feed) in feeds.iter_mut().enumerate() {
                while let Some(change) = feed.try_next() {
                    let table = changed.get_or_insert_with(|| Table::clone(&self.table.load()));
                    table.change(index == 0, change);
                }
            }
            if let Some(table) = changed {
                self.rebuild(&table);
                self.table.store(Arc::new(table));
            }
            self.seen.fetch_max(now, Ordering::AcqRel);
        }
        self.table.load_full()
    }

    /// Waits for the request's turn. An answer with 429 where it will not come.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        info: &RequestInfo,
        user: &User,
        work: Work,
    ) -> Result<Place, Box<Response>> {
        let table = self.table();
        let sorted = table.sort(info, user);
        let header = |uid: &str| HeaderValue::from_str(uid).ok().filter(|uid| !uid.is_empty());
        let headers = [header(sorted.schema_uid), header(sorted.level_uid)];
        let hash = sorted.flow_hash();
        let waited =
            self.seats.take(sorted.level, sorted.schema, hash, work.seats, self.wait).await;
        let seat = waited.map_err(|refusal| {
            let mut answer = crate::response::status(&too_many(refusal));
            mark(&mut answer, &headers);
            Box::new(answer)
        })?;
        self.current[work.kind].fetch_add(1, Ordering::Relaxed);
        Ok(Place { flow: Arc::clone(self), kind: work.kind, headers, _seat: seat })
    }

    /// What a request asks for.
    pub(crate) fn work(&self, info: &RequestInfo, request: &Request) -> Work {
        let kind = usize::from(!matches!(*request.method(), Method::GET | Method::HEAD));
        Work { kind, seats: self.seats_for(info, request) }
    }

    /// How many seats a request takes: one, or more for a list of many objects, which a watch can
    /// begin with.
    fn seats_for(&self, info: &RequestInfo, request: &Request) -> usize {
        let query = request.uri().query().unwrap_or("");
        let initial = || query_value(query, "sendInitialEvents").is_some_and(|it| it == "true");
        let lists = info.verb == "list" || (info.verb == "watch" && initial());
        if !info.is_resource || !lists || !info.name.is_empty() {
            return 1;
        }
        let collection = api::resource::collection_name(&info.group, &info.resource);
        let counts = self.store.counts();
        let stored = counts.iter().find(|count| *count.collection == *collection);
        let stored = stored.map_or(0, |count| count.objects);
        let limit = query_value(query, "limit").and_then(|limit| limit.parse().ok());
        let shown =
            limit.filter(|limit| *limit > 0).map_or(stored, |limit: usize| limit.min(stored));
        shown.div_ceil(OBJECTS_PER_SEAT).clamp(1, LIST_SEATS_MAX)
    }

    /// Requests under way now: reading, writing.
    pub(crate) fn current(&self) -> [usize; 2] {
        [0, 1].map(|kind| self.current[kind].load(Ordering::Relaxed))
    }

    /// Upstream's metrics of levels and flows.
    pub(crate) fn metrics(&self, page: &mut MetricsPage) {
        let levels = self.seats.levels();
        type Column = fn(&queues::Shown) -> f64;
        let columns: [(&str, &str, Column); 4] = [
            ("nominal_limit_seats", "Seats of its own.", |level| level.nominal as f64),
            ("current_executing_seats", "Seats in use.", |level| level.used as f64),
            ("current_executing_requests", "Requests worked on.", |level| level.requests as f64),
            ("current_inqueue_requests", "Requests that wait.", |level| level.waiting as f64),
        ];
        for (name, help, column) in columns {
            let name = format!("apiserver_flowcontrol_{name}");
            page.metric(&name, MetricKind::Gauge, help);
            for (level, shown) in &levels {
                page.sample(&name, &[("priority_level", level)], column(shown));
            }
        }
        let (dispatched, rejected) = self.seats.totals();
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        page.metric(name, MetricKind::Counter, "Requests that were let in.");
        for ((level, schema), count) in dispatched {
            let labels = [("flow_schema", &*schema), ("priority_level", &*level)];
            page.sample(name, &labels, count as f64);
        }
        let name = "apiserver_flowcontrol_rejected_requests_total";
        page.metric(name, MetricKind::Counter, "Requests that were turned away.");
        for ((level, schema, reason), count) in rejected {
            let labels =
                [("flow_schema", &*schema), ("priority_level", &*level), ("reason", reason)];
            page.sample(name, &labels, count as f64);
        }
    }
}

fn too_many(refusal: Refusal) -> Status {
    tracing::debug!(reason = refusal.reason(), "a request is turned away");
    let message = "Too many requests, please try again later.";
    Status::too_many_requests(message, RETRY_AFTER_SECONDS)
}
