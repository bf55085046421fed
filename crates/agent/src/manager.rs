//! Which pods are on this node: starts a worker for each, tells it of changes, and clears away
//! what belongs to no pod any more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::{EventKind, Informer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use runtime::{ContainerFilter, Event, SandboxFilter, SandboxInfo};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, LABEL_POD_UID};
use crate::pod::admission::{self, Board};
use crate::pod::preemption;
use crate::pod::resize;
use crate::pod::status::Verdict;
use crate::pod::view::spec;
use crate::refusals::Refusals;
use crate::volumes;
use crate::worker::{self, Handle, Leaver, NOTE_GRACE, Pending, Refused, Wanted};

/// How long the API server may take to say what this node is like now.
const NODE_ANSWER: Duration = Duration::from_secs(2);
/// How often pods that wait for more resources are looked at again.
const TRY_PENDING: Duration = Duration::from_secs(5);
/// Grace of a container whose pod is gone and that says nothing itself.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);

/// The pods of this node.
#[derive(Clone)]
pub struct Manager {
    ctx: Arc<Context>,
    workers: Arc<Mutex<HashMap<String, Handle>>>,
    refusals: Arc<Mutex<Refusals>>,
}

impl Manager {
    /// No pod yet.
    pub fn new(ctx: Arc<Context>) -> Self {
        Manager { ctx, workers: Arc::default(), refusals: Arc::default() }
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods that take room here.
    fn residents(&self) -> Vec<Arc<Pod>> {
        self.workers().values().filter_map(Handle::resident).collect()
    }

    /// What every worker shares.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// All pods with the status that this node gives them.
    pub fn pods(&self) -> Vec<Pod> {
        self.workers().values().map(Handle::pod).collect()
    }

    /// Asks something of the worker of a pod given by namespace and name; of two pods of one
    /// name the one that is not being deleted.
    pub fn with<T>(
        &self,
        namespace: &str,
        name: &str,
        ask: impl Fn(&Handle, &Pod) -> T,
    ) -> Option<T> {
        let workers = self.workers();
        let matching = workers.values().filter_map(|handle| {
            let pod = handle.pod();
            let meta = &pod.metadata;
            let same =
                meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name);
            same.then_some((handle, pod))
        });
        let (handle, pod) =
            matching.max_by_key(|(_, pod)| pod.metadata.deletion_timestamp.is_none())?;
        Some(ask(handle, &pod))
    }

    /// Follows the API and the runtime until `stop`.
    pub async fn run(&self, pods: Informer<Pod>, stop: CancellationToken) {
        let node = self.ctx.config.node_name.clone();
        let (sender, mut changes) = mpsc::unbounded_channel();
        // Unbounded, but of no more entries than the API server has sent.
        pods.on_change(move |change| {
            let here =
                |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&node);
            if here(change.latest()) {
                let same = |a: &Arc<Pod>, b: &Arc<Pod>| a.metadata.uid == b.metadata.uid;
                if let (Some(old), Some(new)) = (&change.old, &change.new)
                    && !same(old, new)
                {
                    let _ = sender.send(Wanted { pod: old.clone(), removed: true, pending: None });
                }
                let removed = change.new.is_none();
                let _ =
                    sender.send(Wanted { pod: change.latest().clone(), removed, pending: None });
            }
        });
        tokio::select! {
            _ = async { tokio::join!(pods.synced(), self.ctx.nodes.synced()) } => {}
            () = stop.cancelled() => return,
        }
        // Before any worker makes a sandbox that would not be in the list.
        self.free_addresses().await;
        let mut events = self.ctx.runtime.events();
        let mut found: Vec<_> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        found.sort_by_key(|wanted| turn(&wanted.pod));
        for wanted in found {
            self.update(wanted).await;
        }
        let orphans = tokio::spawn(clear_orphans(self.clone()));
        let mut again = tokio::time::interval(TRY_PENDING);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(wanted) = changes.recv() => self.update(wanted).await,
                event = events.recv() => match event {
                    Ok(event) => self.tell(event).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => self.tell_all(),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                _ = again.tick() => self.try_pending(),
                () = stop.cancelled() => break,
            }
        }
        orphans.abort();
        // Containers are left alone; the next agent's workers must be the only ones.
        self.workers().drain().for_each(|(_, handle)| handle.abort());
    }

    /// Frees addresses of sandboxes that the runtime has lost.
    async fn free_addresses(&self) {
        let Ok(all) = self.ctx.runtime.list_sandboxes(SandboxFilter::default()).await else {
            return;
        };
        let live = all.into_iter().map(|sandbox| sandbox.id.0).collect();
        if let Err(error) = self.ctx.network.retain(&live).await {
            tracing::warn!(error, "addresses of lost sandboxes not freed");
        }
    }

    fn uids(&self) -> HashSet<String> {
        self.workers().keys().cloned().collect()
    }

    /// Nobody else calls this: of two pods that come at a time, the second is judged beside the first.
    async fn update(&self, wanted: Wanted) {
        let Some(uid) = wanted.pod.metadata.uid.clone() else { return };
        let has = self.workers().get(&uid).map(|handle| handle.wanted().pod);
        if let Some(has) = has {
            let wanted = self.allocated(wanted, &has);
            if let Some(handle) = self.workers().get(&uid) {
                handle.update(wanted);
            }
            return;
        }
        if wanted.removed {
            return;
        }
        let admitted = self.admit(&wanted.pod).await;
        let wanted = match started(&wanted.pod) {
            true => {
                let has = resize::as_told(&wanted.pod);
                self.allocated(wanted, &has)
            }
            false => wanted,
        };
        let (handle, task) = worker::spawn(self.ctx.clone(), wanted, admitted);
        self.workers().insert(uid.clone(), handle);
        let this = self.clone();
        tokio::spawn(async move {
            let result = task.await;
            if result.is_err_and(|error| error.is_panic()) {
                tracing::error!(uid, "the worker of a pod has ended before its time");
            }
            this.workers().remove(&uid);
        });
    }

    /// The pod with the resources that it gets of those that it wishes: all or what it `has`.
    fn allocated(&self, wanted: Wanted, has: &Pod) -> Wanted {
        if wanted.removed || resize::same_pod(&wanted.pod, has) {
            return wanted;
        }
        let uid = &wanted.pod.metadata.uid;
        let others = self.residents();
        let others = others.iter().filter(|other| other.metadata.uid != *uid);
        let others: Vec<_> = others.map(|other| spec(other)).collect();
        let node = self.ctx.node();
        let verdict = node.and_then(|node| resize::refusal(&wanted.pod, &node, &others));
        let Some(verdict) = verdict else { return wanted };
        let pod = Arc::new(resize::as_in(&wanted.pod, has));
        let pending = Some(Pending { wished: wanted.pod, verdict });
        Wanted { pod, pending, ..wanted }
    }

    /// Tries again what had to wait for others' resources.
    fn try_pending(&self) {
        let all: Vec<Wanted> = self.workers().values().map(Handle::wanted).collect();
        for was in all.into_iter().filter(|wanted| !wanted.removed) {
            let Some(pending) = &was.pending else { continue };
            let wished = Wanted { pod: pending.wished.clone(), pending: None, ..was.clone() };
            let now = self.allocated(wished, &was.pod);
            let verdict = now.pending.as_ref().map(|pending| &pending.verdict);
            let uid = was.pod.metadata.uid.as_deref().unwrap_or_default();
            if verdict != Some(&pending.verdict)
                && let Some(handle) = self.workers().get(uid)
            {
                handle.update(now);
            }
        }
    }

    /// Ends a pod with this verdict, within `period` whatever grace it asks for.
    pub fn end(&self, uid: &str, verdict: Verdict, period: Duration) {
        if let Some(handle) = self.workers().get(uid) {
            handle.end_within(period);
            handle.condemn(verdict);
        }
    }

    /// Who leaves for a new pod, or the verdict over one that cannot run here, told in an event too.
    async fn admit(&self, pod: &Pod) -> Result<Vec<Leaver>, Refused> {
        let Verdict { reason, message } = match self.judge(pod).await {
            Ok(leavers) => return Ok(leavers),
            Err(verdict) => verdict,
        };
        self.ctx.event(pod, None, EventKind::Warning, &reason, &message);
        let verdict = Verdict { reason, message: format!("Pod was rejected: {message}") };
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = refusals.pause(pod, Instant::now());
        Err(Refused { verdict, tell_at: Timestamp::now() + pause })
    }

    /// A pod that has started before keeps its place, also where the agent is new; one that is to end
    /// takes none.
    async fn judge(&self, pod: &Pod) -> Result<Vec<Leaver>, Verdict> {
        if started(pod) || pod.metadata.deletion_timestamp.is_some() {
            return Ok(Vec::new());
        }
        if self.ctx.leaving.is_announced() {
            return Err(Verdict {
                reason: "NodeShutdown".to_owned(),
                message: "Pod was rejected as the node is shutting down.".to_owned(),
            });
        }
        let seen = self.ctx.node();
        if seen.as_ref().is_some_and(|node| self.unfit(pod, node).is_none()) {
            return Ok(Vec::new());
        }
        // The watch of nodes may be behind that of pods: whoever sent the pod has seen more.
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        let newest = tokio::time::timeout(NODE_ANSWER, nodes.get(&self.ctx.config.node_name)).await;
        let newest = newest.ok().and_then(Result::ok).map(Arc::new);
        let Some(node) = newest.or(seen) else { return Ok(Vec::new()) };
        match self.unfit(pod, &node) {
            None => Ok(Vec::new()),
            Some(verdict) => self.makes_room(pod, &node).ok_or(verdict),
        }
    }

    /// Has others leave for a pod that the node leans on, if that is all it needs; it begins when they
    /// are gone.
    fn makes_room(&self, pod: &Pod, node: &Node) -> Option<Vec<Leaver>> {
        let workers = self.workers();
        let staying = workers.values().filter(|handle| !handle.is_condemned());
        let others: Vec<_> = staying.filter_map(Handle::resident).collect();
        let specs: Vec<_> = others.iter().map(|other| spec(other)).collect();
        let unsafe_sysctls = &self.ctx.config.unsafe_sysctls;
        let board = Board { node, others: &specs, unsafe_sysctls };
        let others: Vec<&Pod> = others.iter().map(|other| &**other).collect();
        let victims = admission::lacks_room_only(pod, &board)
            .and_then(|short| preemption::victims(pod, &others, &short))?;
        let mut leavers = Vec::new();
        for victim in victims {
            let (reason, message) = (preemption::REASON, preemption::MESSAGE);
            self.ctx.event(victim, None, EventKind::Warning, reason, message);
            let uid = victim.metadata.uid.as_deref().unwrap_or_default();
            if let Some(handle) = workers.get(uid) {
                let verdict = Verdict { reason: reason.to_owned(), message: message.to_owned() };
                handle.condemn(verdict);
                leavers.push(handle.leaver());
            }
        }
        Some(leavers)
    }

    fn unfit(&self, pod: &Pod, node: &Node) -> Option<Verdict> {
        let others = self.residents();
        let others: Vec<_> = others.iter().map(|pod| spec(pod)).collect();
        let unsafe_sysctls = &self.ctx.config.unsafe_sysctls;
        admission::refusal(pod, &Board { node, others: &others, unsafe_sysctls })
    }

    /// Wakes the worker whose container or sandbox an event is about.
    async fn tell(&self, event: Event) {
        let sandbox = match &event {
            Event::Started { sandbox, .. } | Event::Exited { sandbox, .. } => sandbox,
            Event::SandboxGone { sandbox } => sandbox,
        };
        let filter = SandboxFilter { id: Some(sandbox.clone()), ..SandboxFilter::default() };
        let found = self.ctx.runtime.list_sandboxes(filter).await.unwrap_or_default();
        let uid = found.first().and_then(|s| s.config.labels.get(LABEL_POD_UID));
        if let Some(uid) = uid
            && let Some(handle) = self.workers().get(uid)
        {
            handle.wake();
        }
    }

    fn tell_all(&self) {
        self.workers().values().for_each(Handle::wake);
    }
}

fn started(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
}

/// In which order pods are let in that are there already when the agent starts.
fn turn(pod: &Pod) -> (bool, Option<Timestamp>) {
    (!started(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// Ends sandboxes of pods that were deleted while the agent was away, and removes folders that
/// belong to nobody.
async fn clear_orphans(manager: Manager) {
    let ctx = &manager.ctx;
    let all = ctx.runtime.list_sandboxes(SandboxFilter::default()).await.unwrap_or_default();
    let uid = |sandbox: &SandboxInfo| sandbox.config.labels.get(LABEL_POD_UID).cloned();
    // Read after the list: a sandbox is made only for a pod that has a worker already.
    let known = manager.uids();
    let orphans = all.iter().filter(|s| uid(s).is_some_and(|uid| !known.contains(&uid)));
    futures::future::join_all(orphans.map(|sandbox| end_orphan(ctx, sandbox))).await;
    for root in [ctx.config.data_dir.join("pods"), ctx.memory_root()] {
        let entries: Vec<_> = std::fs::read_dir(&root).into_iter().flatten().flatten().collect();
        let known = manager.uids();
        for entry in entries {
            if known.contains(entry.file_name().to_string_lossy().as_ref()) {
                continue;
            }
            if let Err(error) = volumes::remove(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "orphaned folder not removed");
            }
        }
    }
}

async fn end_orphan(ctx: &Context, sandbox: &SandboxInfo) {
    tracing::info!(
        pod = sandbox.config.name,
        namespace = sandbox.config.namespace,
        "ending a pod that is gone from the API"
    );
    let seconds = sandbox.config.annotations.get(NOTE_GRACE).and_then(|s| s.parse().ok());
    let grace = seconds.map_or(ORPHAN_GRACE, Duration::from_secs);
    let filter =
        ContainerFilter { sandbox: Some(sandbox.id.clone()), ..ContainerFilter::default() };
    let containers = ctx.runtime.list_containers(filter).await.unwrap_or_default();
    let stops = containers.iter().map(|c| ctx.runtime.stop_container(&c.id, grace));
    futures::future::join_all(stops).await;
    let _ = ctx.network.detach(&sandbox.id.0).await;
    match ctx.runtime.remove_sandbox(&sandbox.id).await {
        Ok(()) => {
            let _ = volumes::remove(&sandbox.config.log_directory);
        }
        Err(error) => {
            tracing::warn!(sandbox = %sandbox.id, error = %base::chain(&error), "orphan not removed");
        }
    }
}
