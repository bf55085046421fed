//! Ending pods before the board runs out of memory or disk, by kubelet's rules: images that nobody
//! uses go first, then the pod that takes most beyond what it asked for.

use std::time::{Duration, Instant};

use api::placement::requests::{self, Resources};
use client::EventKind;
use k8s_openapi::api::core::v1::Pod;
use runtime::Stats;

use crate::config::Eviction;
use crate::context::Context;
use crate::gc::Images;
use crate::manager::Manager;
use crate::node::machine::{self, Space};
use crate::node::news;
use crate::pod::qos::is_critical;
use crate::pod::status::{Verdict, terminal};
use crate::pod::view::spec;
use crate::quantity;
use crate::server::stats::{Usage, usage};

/// Grace of a pod that is evicted: the board has no more time, whatever the pod asks for.
pub const GRACE: Duration = Duration::from_secs(1);
/// How the message begins where the board, and not the pod, is to blame.
pub const NODE_LOW: &str = "The node was low on resource: ";
/// So long the next pod waits for what the last one gives back.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// What a board can be short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// Memory.
    Memory,
    /// Room on the disk.
    Disk,
    /// Files that can still be made on the disk.
    Inodes,
}

/// A shortage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub of: Scarce,
    /// What there is.
    pub available: u64,
    /// What there must be.
    pub threshold: u64,
}

/// What a board is short of, that which kills first first.
pub fn shortages(limits: &Eviction, memory_available: u64, disk: &Space) -> Vec<Shortage> {
    let share = |of: u64, percent: u64| {
        u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX)
    };
    [
        (Scarce::Memory, memory_available, limits.memory_available_bytes),
        (Scarce::Disk, disk.available, share(disk.capacity, limits.disk_available_percent)),
        (Scarce::Inodes, disk.inodes_free, share(disk.inodes, limits.inodes_free_percent)),
    ]
    .into_iter()
    .filter(|(_, available, threshold)| available < threshold)
    .map(|(of, available, threshold)| Shortage { of, available, threshold })
    .collect()
}

/// What this board is short of now.
pub fn measured(ctx: &Context) -> Vec<Shortage> {
    let disk = machine::space(&ctx.config.data_dir).unwrap_or_default();
    shortages(&ctx.config.eviction, machine::memory_available(), &disk)
}

impl Scarce {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Inodes => "inodes",
        }
    }

    fn shown(self, amount: i64) -> String {
        match self {
            Self::Inodes => amount.to_string(),
            _ => quantity::canonical(&quantity::from_bytes(amount)),
        }
    }

    /// What a container takes of it.
    fn used(self, stats: &Stats) -> i64 {
        let used = match self {
            Self::Memory => stats.memory_working_set,
            Self::Disk => stats.writable_bytes,
            Self::Inodes => stats.writable_inodes,
        };
        i64::try_from(used).unwrap_or(i64::MAX)
    }
}

/// A pod as eviction sees it.
#[derive(Clone, Debug)]
struct Candidate {
    pod: Pod,
    used: i64,
    requested: i64,
    /// What its containers take, by name.
    containers: Vec<(String, i64)>,
}

impl Candidate {
    fn excess(&self) -> i64 {
        self.used - self.requested
    }
}

/// The pod to go first: one that takes more than it asked for before one that does not, a less
/// important one before a more important one, then whoever exceeds its request the most.
fn first(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().max_by_key(|candidate| {
        let priority = spec(&candidate.pod).priority.unwrap_or(0);
        (candidate.excess() > 0, std::cmp::Reverse(priority), candidate.excess())
    })
}

/// Upstream's words: what was short, and which containers took more than they asked for.
fn message(shortage: &Shortage, candidate: &Candidate) -> String {
    let of = shortage.of;
    let shown = |amount: u64| of.shown(i64::try_from(amount).unwrap_or(i64::MAX));
    let mut text = format!(
        "{NODE_LOW}{}. Threshold quantity: {}, available: {}. ",
        of.name(),
        shown(shortage.threshold),
        shown(shortage.available)
    );
    for (name, used) in &candidate.containers {
        let container = spec(&candidate.pod).containers.iter().find(|c| c.name == *name);
        let asked = requests::requested(container.and_then(|c| c.resources.as_ref()));
        let asked = asked.get(of.name());
        if *used > asked {
            text.push_str(&format!(
                "Container {name} was using {}, request is {}, has larger consumption of {}. ",
                of.shown(*used),
                of.shown(asked),
                of.name()
            ));
        }
    }
    text
}

/// Keeps the board from running out, one look after the other.
#[derive(Default)]
pub struct Relief {
    images: Images,
    told: Option<Scarce>,
    /// The pod that was evicted last, until it is gone.
    leaving: Option<(String, String, Instant)>,
}

impl Relief {
    /// Removes images if the disk is rather full.
    pub async fn collect_images(&mut self, ctx: &Context) {
        self.images.collect(ctx, false).await;
    }

    /// Evicts one pod if the board is short of something; the next look decides about another.
    pub async fn look(&mut self, manager: &Manager) {
        let ctx = manager.context();
        let short = measured(ctx);
        let Some(worst) = short.first() else {
            self.told = None;
            return;
        };
        if self.told.replace(worst.of) != Some(worst.of) {
            let node = news::reference(&ctx.config.node_name);
            let note = format!("Attempting to reclaim {}", worst.of.name());
            ctx.recorder.event(&node, EventKind::Warning, "EvictionThresholdMet", &note);
        }
        if self.waits(manager) {
            return;
        }
        if worst.of != Scarce::Memory {
            self.images.collect(ctx, true).await;
        }
        let short = measured(ctx);
        let Some(shortage) = short.first() else { return };
        let Some(candidate) = first(candidates(manager, shortage.of).await) else { return };
        let message = message(shortage, &candidate);
        let pod = &candidate.pod;
        ctx.event(pod, None, EventKind::Warning, "Evicted", &message);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &pod.metadata;
        manager.end(&text(&meta.uid), Verdict { reason: "Evicted".to_owned(), message }, GRACE);
        self.leaving = Some((text(&meta.namespace), text(&meta.name), Instant::now()));
    }

    /// Whether the pod that was evicted last still has to give back what it has.
    fn waits(&mut self, manager: &Manager) -> bool {
        let Some((namespace, name, since)) = &self.leaving else { return false };
        let here = manager.with(namespace, name, |handle, _| handle.resident().is_some());
        let waits = here == Some(true) && since.elapsed() < CLEAN_UP;
        if !waits {
            self.leaving = None;
        }
        waits
    }
}

/// Pods that may be evicted, with what they take.
async fn candidates(manager: &Manager, of: Scarce) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for usage in usage(manager).await {
        let pod = manager.with(&usage.namespace, &usage.pod, |_, pod| pod.clone());
        let Some(pod) = pod else { continue };
        let over = terminal(pod.status.as_ref().and_then(|s| s.phase.as_deref()));
        if is_critical(&pod) || over || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let asked: Resources = requests::requests(spec(&pod));
        candidates.push(Candidate {
            used: used(manager.context(), &pod, &usage, of).await,
            requested: asked.get(of.name()),
            containers: usage
                .containers
                .iter()
                .map(|c| (c.name.clone(), of.used(&c.stats)))
                .collect(),
            pod,
        });
    }
    candidates
}

/// What a pod takes: of the disk also its logs and its volumes.
async fn used(ctx: &Context, pod: &Pod, usage: &Usage, of: Scarce) -> i64 {
    if of == Scarce::Memory {
        return usage.total.as_ref().map_or(0, |total| of.used(total));
    }
    let folders = [ctx.log_dir(pod), ctx.pod_dir(&usage.uid)];
    let measured =
        tokio::task::spawn_blocking(move || folders.map(|folder| runtime::disk_usage(&folder)));
    let outside = measured.await.unwrap_or_default().into_iter().map(|(bytes, inodes)| {
        let amount = if of == Scarce::Disk { bytes } else { inodes };
        i64::try_from(amount).unwrap_or(i64::MAX)
    });
    outside.chain(usage.containers.iter().map(|c| of.used(&c.stats))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn candidate(name: &str, priority: i32, used: i64, requested: i64) -> Candidate {
        Candidate {
            pod: serde_json::from_value(json!({"metadata": {"name": name},
                "spec": {"priority": priority, "containers": [
                    {"name": "a", "resources": {"requests": {"memory": "1Mi"}}}, {"name": "b"}]}}))
            .unwrap(),
            used,
            requested,
            containers: vec![("a".into(), 1 << 19), ("b".into(), 3 << 20)],
        }
    }

    #[test]
    fn the_greediest_of_the_least_important_goes_first() {
        let pick = |list: &[Candidate]| first(list.to_vec()).unwrap().pod.metadata.name.unwrap();
        let modest = candidate("modest", 0, 50, 100);
        let greedy = candidate("greedy", 0, 90, 10);
        let greedier = candidate("greedier", 5, 190, 10);
        assert_eq!(pick(&[modest.clone(), greedier.clone()]), "greedier");
        assert_eq!(pick(&[modest, greedier, greedy]), "greedy");
    }

    #[test]
    fn what_a_board_is_short_of() {
        let limits = Eviction {
            memory_available_bytes: 100,
            disk_available_percent: 10,
            inodes_free_percent: 5,
        };
        let found = |memory, available, inodes_free| -> Vec<Scarce> {
            let disk = Space { capacity: 1000, available, inodes: 200, inodes_free };
            shortages(&limits, memory, &disk).into_iter().map(|short| short.of).collect()
        };
        assert_eq!(found(100, 100, 10), []);
        assert_eq!(found(99, 99, 9), [Scarce::Memory, Scarce::Disk, Scarce::Inodes]);
        assert_eq!(found(100, 99, 10), [Scarce::Disk]);
        // A file system that counts no inodes has no lack of them.
        let uncounted = Space { capacity: 1000, available: 1000, inodes: 0, inodes_free: 0 };
        assert_eq!(shortages(&limits, 100, &uncounted), []);
    }

    #[test]
    fn the_evicted_are_told_in_upstreams_words() {
        let shortage = Shortage { of: Scarce::Memory, available: 1 << 20, threshold: 100 << 20 };
        assert_eq!(
            message(&shortage, &candidate("a", 0, 9, 1)),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1Mi. \
             Container b was using 3Mi, request is 0, has larger consumption of memory. "
        );
        let shortage = Shortage { of: Scarce::Inodes, available: 7, threshold: 10 };
        let told = message(&shortage, &candidate("a", 0, 9, 1));
        let start = "The node was low on resource: inodes. Threshold quantity: 10, available: 7. ";
        assert!(told.starts_with(start), "{told}");
    }
}
