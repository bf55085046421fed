//! API servers behind this one (upstream's kube-aggregator): an APIService names the Service that
//! answers for a group and version, and requests for it are passed on there.
//!
//! What is known of APIServices catches up with the store when it is asked for, as roles do. One
//! task (`available`) looks whether the Services answer; an idle cluster without any has nothing
//! to wake up for.

mod available;
pub(crate) mod discovery;
mod local;
mod openapi;
mod pass;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures::StreamExt;
use serde_json::Value;
use store::Store;

use crate::access::FrontProxy;
use crate::feed::{Change, Feed};
use crate::proxy::Pool;
use crate::request::RequestInfo;
use crate::server::ApiServer;
pub(crate) use local::builtin;
use openapi::Described;
pub(crate) use openapi::{openapi_index, openapi_v2};
pub(crate) use pass::pass_on;
pub(crate) use service::ApiService;

/// Store collection of APIServices.
pub(super) const COLLECTION: &str = "apiregistration.k8s.io/apiservices";
/// Their path.
pub(super) const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// Aggregated servers asked at once.
const ASKED_AT_ONCE: usize = 8;

/// All APIServices by name.
type Table = BTreeMap<String, Arc<ApiService>>;

/// What is known of aggregated API servers.
pub(crate) struct Aggregator {
    store: Store,
    front_proxy: Option<FrontProxy>,
    feed: Mutex<Feed>,
    /// The store's revision that the table has seen everything of.
    seen: AtomicU64,
    table: ArcSwap<Table>,
    /// What each remote APIService said that it serves, by its name: the resources of an
    /// `APIResourceList`.
    documents: Mutex<HashMap<String, Arc<Value>>>,
    /// What it said in OpenAPI v2, once somebody has asked.
    descriptions: Mutex<HashMap<String, Arc<Described>>>,
    /// Connections to their servers.
    pool: Arc<Pool>,
}

impl Aggregator {
    /// An aggregator over the store's own APIServices.
    pub(crate) fn new(store: &Store, front_proxy: Option<FrontProxy>) -> Self {
        Aggregator {
            store: store.clone(),
            front_proxy,
            feed: Mutex::new(Feed::new(store.clone(), COLLECTION)),
            seen: AtomicU64::new(0),
            table: ArcSwap::default(),
            documents: Mutex::default(),
            descriptions: Mutex::default(),
            pool: Arc::default(),
        }
    }

    /// How many connections are kept for later.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.pool.len()
    }

    /// The APIServices as of now.
    pub(crate) fn table(&self) -> Arc<Table> {
        let now = self.store.revision();
        if self.seen.load(Ordering::Acquire) < now {
            let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
            let mut table = None;
            while let Some(change) = feed.try_next() {
                let table = table.get_or_insert_with(|| Table::clone(&self.table.load()));
                self.change(table, change);
            }
            if let Some(table) = table {
                self.table.store(Arc::new(table));
            }
            self.seen.fetch_max(now, Ordering::AcqRel);
        }
        self.table.load_full()
    }

    fn change(&self, table: &mut Table, change: Change) {
        let read = |value: &[u8]| ApiService::read(value, self.front_proxy.as_ref());
        match change {
            Change::Reset(entries) => {
                let services = entries.iter().filter_map(|entry| read(&entry.value));
                *table = services.map(|one| (one.name.clone(), Arc::new(one))).collect();
            }
            Change::Put(entry) => {
                let before = table.remove(&*entry.key.name);
                if let Some(service) = read(&entry.value) {
                    let service = service.keeping(before.as_deref());
                    table.insert(service.name.clone(), Arc::new(service));
                }
            }
            Change::Gone(entry) => {
                table.remove(&*entry.key.name);
                self.forget(&entry.key.name);
            }
        }
    }

    /// The APIService that another server answers for, of a group and version.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        let table = self.table();
        let found = table.get(&format!("{version}.{group}"))?;
        found.service.is_some().then(|| Arc::clone(found))
    }

    /// The APIService whose server answers a request: for `/apis/GROUP/VERSION` and all below.
    pub(crate) fn answering(&self, info: &RequestInfo) -> Option<Arc<ApiService>> {
        if info.is_resource {
            return if info.group.is_empty() {
                None
            } else {
                self.remote(&info.group, &info.version)
            };
        }
        let path = info.path.trim_matches('/');
        let (group, version) = match path.strip_prefix("openapi/v3/") {
            Some(document) => document.strip_prefix("apis/")?.split_once('/')?,
            None => path.strip_prefix("apis/")?.split_once('/')?,
        };
        self.remote(group, version)
    }

    fn document(&self, name: &str) -> Option<Arc<Value>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn learn(&self, name: &str, document: Value) {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        documents.insert(name.to_owned(), Arc::new(document));
    }

    fn described(&self, name: &str) -> Option<Arc<Described>> {
        self.descriptions.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn describe(&self, name: &str, described: Described) {
        let mut all = self.descriptions.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), Arc::new(described));
    }

    fn forget(&self, name: &str) {
        self.descriptions.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Keeps the APIServices of what this server serves itself, and the conditions of all, until the
/// server stops.
pub(crate) fn start(server: &Arc<ApiServer>) {
    let store = server.context.store.clone();
    let mut wakes = available::Wakes::new(&store);
    let stopping = server.context.stopping.clone();
    // A weak reference: this task must not keep a server alive that nobody else holds.
    let server = Arc::downgrade(server);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                open = wakes.next() => if !open { return },
            }
            let Some(server) = server.upgrade() else { return };
            local::reconcile(&server).await;
            let failed = available::reconcile(&server).await;
            wakes.follow(&server.context.aggregator.table(), failed);
        }
    });
}

/// Asks several servers at once; the answers in no particular order.
async fn ask_all<T, F: Future<Output = T>>(questions: impl Iterator<Item = F>) -> Vec<T> {
    futures::stream::iter(questions).buffer_unordered(ASKED_AT_ONCE).collect().await
}
