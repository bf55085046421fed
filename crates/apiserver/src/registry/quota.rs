//! Quotas in the store: what a write uses is noted before it, and what is used is counted anew
//! from the objects that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::quota::{self, Amounts};
use api::resource::Resource;
use api::status::{MODIFIED, Status};
use base::Quantity;
use serde_json::{Value, json};
use store::{Entry, Expect, Key, Page, Range, WriteError};
use tokio::sync::Notify;

use super::{Outcome, Registry, codec, meta, negotiate};
use crate::admission::Attributes;
use crate::admission::quota::{Charge, QUOTAS, concerns, plan, shifts};
use crate::cached;

/// How often a charge is tried again because somebody else charged the same quota.
const CHARGE_ATTEMPTS: usize = 64;

/// What stands between charging and counting: a count that sees a charge, but not yet the object
/// that it is for, would give it back.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    some: Notify,
}

#[derive(Default)]
struct State {
    /// Namespaces to be counted anew.
    due: BTreeSet<String>,
    /// Namespaces that are to be counted when nothing is under way in them.
    later: BTreeSet<String>,
    /// Charges whose object is not written yet, by namespace.
    under_way: BTreeMap<String, usize>,
}

/// A charge whose object is not written yet.
pub(super) struct UnderWay<'a> {
    ledger: &'a Ledger,
    namespace: &'a str,
    charged: bool,
    /// Whether the write lets go of something, too.
    shifts: bool,
}

impl UnderWay<'_> {
    /// What was charged for is there.
    pub fn written(mut self) {
        self.charged = false;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.ledger.lock();
        let left = state.under_way.get_mut(self.namespace).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if self.charged || self.shifts {
            state.later.insert(self.namespace.to_owned());
        }
        if left == 0 {
            state.under_way.remove(self.namespace);
            if let Some(namespace) = state.later.take(self.namespace) {
                state.due.insert(namespace);
                self.ledger.some.notify_one();
            }
        }
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin<'a>(&'a self, namespace: &'a str) -> UnderWay<'a> {
        *self.lock().under_way.entry(namespace.to_owned()).or_default() += 1;
        UnderWay { ledger: self, namespace, charged: false, shifts: false }
    }

    /// Whether a count now would be true; if not, it is made later.
    fn is_settled(&self, namespace: &str) -> bool {
        let mut state = self.lock();
        let settled = !state.under_way.contains_key(namespace);
        if !settled {
            state.later.insert(namespace.to_owned());
        }
        settled
    }

    /// Waits for namespaces that are to be counted, and takes them.
    pub(crate) async fn next(&self) -> BTreeSet<String> {
        self.some.notified().await;
        std::mem::take(&mut self.lock().due)
    }
}

impl Registry {
    /// Charges the namespace's quotas for a write, or says which of them has too little left. To
    /// be told when the object is written; dropped without, the charge is found and undone.
    pub(super) async fn charge<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &Value,
    ) -> Outcome<Option<UnderWay<'a>>> {
        let concerned = concerns(attributes, object);
        let is_pod = attributes.resource.collection() == "pods";
        if !self.admission.is_on("ResourceQuota")
            || !(concerned || is_pod)
            || self.quotas(attributes.namespace).is_empty()
        {
            return Ok(None);
        }
        let shifts = shifts(attributes, object, &*self.clock);
        if !concerned && !shifts {
            return Ok(None);
        }
        let mut under_way = self.ledger.begin(attributes.namespace);
        under_way.shifts = shifts;
        if !concerned {
            return Ok(Some(under_way));
        }
        let mut done: BTreeSet<String> = BTreeSet::new();
        for _ in 0..CHARGE_ATTEMPTS {
            let entries = self.quotas(attributes.namespace);
            let left = entries.iter().filter(|entry| !done.contains(&*entry.key.name));
            let parsed: Outcome<Vec<Value>> =
                left.map(|entry| negotiate::parse(&entry.value)).collect();
            let charges = plan(attributes, object, parsed?, &*self.clock)?;
            if charges.is_empty() || attributes.dry_run {
                return Ok(Some(under_way));
            }
            for charge in charges {
                let name = meta::name(&charge.quota).to_owned();
                if self.note(charge).await? {
                    under_way.charged = true;
                    done.insert(name);
                }
            }
            self.context.fresh().await?;
        }
        Err(Status::conflict(("", QUOTAS), "", MODIFIED))
    }

    fn quotas(&self, namespace: &str) -> Vec<Arc<Entry>> {
        let range = Range { collection: QUOTAS, namespace: Some(namespace) };
        self.store().list(range, Page::default()).map(|list| list.entries).unwrap_or_default()
    }

    /// Writes what a quota has used; false where somebody else wrote it meanwhile.
    async fn note(&self, Charge { mut quota, used }: Charge) -> Outcome<bool> {
        let revision = meta::revision(&quota).unwrap_or(0);
        meta::member(&mut quota, "status").insert("used".to_owned(), quota::to_json(&used));
        self.replace_quota(quota, revision).await
    }

    async fn replace_quota(&self, quota: Value, revision: u64) -> Outcome<bool> {
        let (namespace, name) = (meta::namespace(&quota), meta::name(&quota));
        let key = Key::new(QUOTAS, namespace, name);
        let value = codec::encode(&quota).into();
        match self.store().put(key, Expect::Revision(revision), value).await {
            Ok(_) => Ok(true),
            Err(WriteError::Conflict { .. } | WriteError::NotFound) => Ok(false),
            Err(error) => Err(Status::internal_error(&base::chain(&error))),
        }
    }

    /// What is charged, and where it is to be counted.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// The namespaces that have quotas.
    pub(crate) fn quota_namespaces(&self) -> BTreeSet<String> {
        let quotas = cached::objects(self.store(), QUOTAS, None);
        quotas.iter().map(|quota| meta::namespace(quota).to_owned()).collect()
    }

    /// The collections whose objects count under a name of some quota.
    pub(crate) fn counted_collections(&self) -> BTreeSet<String> {
        let quotas = cached::objects(self.store(), QUOTAS, None);
        let names: BTreeSet<String> = quotas
            .iter()
            .flat_map(|quota| quota::amounts(&quota["spec"]["hard"]).into_keys())
            .collect();
        let rows = self.countable();
        let counted = rows.iter().filter(|row| names.iter().any(|name| quota::counts(row, name)));
        counted.map(|row| row.collection().to_owned()).collect()
    }

    fn countable(&self) -> Vec<Arc<Resource>> {
        let defined = self.context.definitions.get();
        let all = self.resources.values().chain(defined.rows());
        let all = all.filter(|row| row.namespaced && row.stored);
        let rows: BTreeMap<&str, &Arc<Resource>> = all.map(|row| (row.collection(), row)).collect();
        rows.into_values().cloned().collect()
    }

    /// Counts anew what the quotas of a namespace have used.
    pub(crate) async fn recount(&self, namespace: &str) {
        for entry in self.quotas(namespace) {
            // Asked after the quota was read: a later charge makes the write below fail.
            if !self.ledger.is_settled(namespace) {
                return;
            }
            let Ok(mut quota) = negotiate::parse(&entry.value) else { continue };
            let (hard, used) = self.count(namespace, &quota);
            let known = |field: &str| quota::amounts(&quota["status"][field]);
            if known("hard") == hard && known("used") == used {
                continue;
            }
            let status = json!({"hard": quota["spec"]["hard"], "used": quota::to_json(&used)});
            if let Some(whole) = quota.as_object_mut() {
                whole.insert("status".to_owned(), status);
            }
            match self.replace_quota(quota, entry.revision).await {
                // Where somebody else wrote it, that change wakes whoever counts.
                Ok(_) => {}
                Err(status) => {
                    tracing::warn!(namespace, error = status.message, "recounting a quota");
                }
            }
        }
    }

    fn count(&self, namespace: &str, one: &Value) -> (Amounts, Amounts) {
        let hard = quota::amounts(&one["spec"]["hard"]);
        let mut used = Amounts::new();
        for row in self.countable() {
            let names: Vec<&String> =
                hard.keys().filter(|name| quota::counts(&row, name)).collect();
            if names.is_empty() {
                continue;
            }
            used.extend(names.iter().map(|name| ((*name).clone(), Quantity::from_units(0))));
            for object in cached::objects(self.store(), row.collection(), Some(namespace)) {
                if quota::in_scope(one, &row, &object) {
                    let all = quota::usage(&row, &object, self.now());
                    let of_quota = all.into_iter().filter(|(name, _)| hard.contains_key(name));
                    quota::add(&mut used, &of_quota.collect());
                }
            }
        }
        (hard, used)
    }
}
