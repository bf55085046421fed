//! One task per pod: looks at the pod's parts, decides with `pod::plan`, sets the actions going
//! and writes the status. Every wake-up means looking again; what takes time runs beside and
//! marks its part busy until it is done.

mod containers;
mod image;
mod leaver;
mod observe;
mod resize;
mod sandbox;
mod start;
mod status;
mod stop;

pub use leaver::Leaver;
pub(crate) use sandbox::NOTE_GRACE;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use runtime::ContainerId;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::pod::plan::{self, Action, Plan};
use crate::pod::resizing::Resizing;
use crate::pod::status::{Life, Verdict, terminal};
use crate::pod::view::{Resize, Run, View, Volumes, spec};
use crate::probe::Probers;
use crate::volumes::PodVolumes;

/// Pause after the runtime did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What the API says of a pod.
#[derive(Clone)]
pub struct Wanted {
    /// The pod as last seen, with the resources that this node has allocated to it.
    pub pod: Arc<Pod>,
    /// It is not in the API any more.
    pub removed: bool,
    /// The API wishes other resources for it, which it does not get.
    pub pending: Option<Pending>,
}

/// A wish for other resources that this node does not fulfil, or not yet.
#[derive(Clone)]
pub struct Pending {
    /// The pod as the API wishes it.
    pub wished: Arc<Pod>,
    /// Why not.
    pub verdict: Verdict,
}

/// A pod that is not let in.
pub struct Refused {
    /// Why.
    pub verdict: Verdict,
    /// When the API may be told.
    pub tell_at: Timestamp,
}

/// The handle on a pod's worker.
pub struct Handle {
    wanted: watch::Sender<Wanted>,
    shared: Arc<Shared>,
    task: tokio::task::AbortHandle,
}

impl Handle {
    /// Tells the worker what the API now says.
    pub fn update(&self, wanted: Wanted) {
        self.wanted.send_replace(wanted);
        self.shared.volumes_wake.notify_one();
        self.shared.wake.notify_one();
    }

    /// Ends the worker without touching the pod.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Tells the worker to look again.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The pod with the status that this node gives it.
    pub fn pod(&self) -> Pod {
        let mut pod = Pod::clone(&self.shared.pod());
        if let Some(status) = self.shared.state().status.clone() {
            pod.status = Some(status);
        }
        pod
    }

    /// Shortens the pod's end to `period`, whatever grace it asks for.
    pub fn end_within(&self, period: Duration) {
        stop::shorten(&self.shared, SignedDuration::try_from(period).unwrap_or_default());
    }

    /// Fails the pod as a whole and ends it.
    pub fn condemn(&self, verdict: Verdict) {
        self.shared.state().verdict.get_or_insert(verdict);
        self.shared.wake.notify_one();
    }

    /// The pod as one that another waits for.
    pub fn leaver(&self) -> Leaver {
        Leaver::new(&self.shared.pod(), self.shared.left.clone())
    }

    /// Whether it has been failed as a whole.
    pub fn is_condemned(&self) -> bool {
        self.shared.state().verdict.is_some()
    }

    /// The pod where it still takes room here: it has been let in, and has neither ended nor gone from
    /// the API.
    pub fn resident(&self) -> Option<Arc<Pod>> {
        let wanted = self.wanted.borrow();
        let takes_room = !wanted.removed && !self.shared.left.is_cancelled();
        takes_room.then(|| wanted.pod.clone())
    }

    /// What the worker was last told.
    pub fn wanted(&self) -> Wanted {
        self.wanted.borrow().clone()
    }

    /// The newest run of a container, or the one before.
    pub fn run(&self, container: &str, previous: bool) -> Option<Run> {
        let state = self.shared.state();
        let slot = state.view.slots.get(container)?;
        if previous { slot.previous.clone() } else { slot.current.clone() }
    }

    /// The ready sandbox's id and the pod's addresses.
    pub fn sandbox(&self) -> Option<crate::pod::view::Sandbox> {
        self.shared.state().view.ready_sandbox().cloned()
    }
}

/// What a worker and the operations it sets going share.
pub(crate) struct Shared {
    pub ctx: Arc<Context>,
    pub uid: String,
    wanted: watch::Receiver<Wanted>,
    state: Mutex<State>,
    /// Look again.
    wake: Arc<Notify>,
    /// The volumes want to be looked at again.
    volumes_wake: Arc<Notify>,
    volumes: tokio::sync::Mutex<PodVolumes>,
    /// Cancelled when the pod is to end: nothing new begins.
    ending: CancellationToken,
    /// Cancelled when it takes no room any more, before the API is told: whoever hears of it there
    /// may send the next pod at once.
    left: CancellationToken,
    /// The moment by which the pod's containers must have ended.
    deadline: watch::Sender<Option<Timestamp>>,
}

/// What changes in a worker.
pub(crate) struct State {
    pub view: View,
    /// Ended runs by id: they do not change any more.
    pub ended: HashMap<ContainerId, Run>,
    pub verdict: Option<Verdict>,
    /// What has been told of other resources.
    pub resizing: Resizing,
    /// Failed pulls by container.
    pub pulls: HashMap<String, image::PullFailure>,
    /// The status as the API server has it.
    pub status: Option<PodStatus>,
    pub writing: bool,
    /// The pod's version that our last write made.
    pub written: u64,
    /// A refusal is kept back until then.
    pub tell_at: Option<Timestamp>,
    pub write_retry_at: Option<Timestamp>,
    pub torn_down: bool,
    pub deleted: bool,
    pub started_at: Timestamp,
    pub renew_at: Option<Timestamp>,
    pub mount_failures: u32,
    pub sandbox_failures: u32,
    pub config_failures: u32,
    /// Runs (by id) whose back-off has been told in an event.
    pub told: HashSet<String>,
}

impl Shared {
    pub fn pod(&self) -> Arc<Pod> {
        self.wanted.borrow().pod.clone()
    }

    pub fn removed(&self) -> bool {
        self.wanted.borrow().removed
    }

    fn pending(&self) -> Option<Verdict> {
        Some(self.wanted.borrow().pending.as_ref()?.verdict.clone())
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn look_again(&self) {
        self.wake.notify_one();
    }
}

/// Starts the worker of a pod, of which nothing begins where it has been refused, nor while others leave
/// for it; the task ends when the pod is gone from the API and from here.
pub fn spawn(
    ctx: Arc<Context>,
    wanted: Wanted,
    admitted: Result<Vec<Leaver>, Refused>,
) -> (Handle, tokio::task::JoinHandle<()>) {
    let (leavers, refused) = match admitted {
        Ok(leavers) => (leavers, None),
        Err(refused) => (Vec::new(), Some(refused)),
    };
    let uid = wanted.pod.metadata.uid.clone().unwrap_or_default();
    let status = wanted.pod.status.clone();
    let (sender, receiver) = watch::channel(wanted);
    let volumes_wake = Arc::new(Notify::new());
    let volumes = PodVolumes::new(
        ctx.client.clone(),
        ctx.objects.clone(),
        volumes_wake.clone(),
        ctx.memory_dir(&uid),
        ctx.pod_dir(&uid),
    );
    let left = CancellationToken::new();
    if refused.is_some() || terminal(phase(&status)) {
        left.cancel();
    }
    let state = State {
        view: View::default(),
        ended: HashMap::new(),
        tell_at: refused.as_ref().map(|refused| refused.tell_at),
        verdict: refused.map(|refused| refused.verdict),
        resizing: Resizing::default(),
        pulls: HashMap::new(),
        status,
        writing: false,
        written: 0,
        write_retry_at: None,
        torn_down: false,
        deleted: false,
        started_at: Timestamp::now(),
        renew_at: None,
        mount_failures: 0,
        sandbox_failures: 0,
        config_failures: 0,
        told: HashSet::new(),
    };
    let shared = Arc::new(Shared {
        ctx,
        uid,
        wanted: receiver,
        state: Mutex::new(state),
        wake: Arc::new(Notify::new()),
        volumes_wake,
        volumes: tokio::sync::Mutex::new(volumes),
        ending: CancellationToken::new(),
        left,
        deadline: watch::Sender::new(None),
    });
    let worker =
        Worker { shared: shared.clone(), ops: JoinSet::new(), probers: Probers::default() };
    let task = tokio::spawn(worker.run(leavers));
    (Handle { wanted: sender, shared, task: task.abort_handle() }, task)
}

struct Worker {
    shared: Arc<Shared>,
    ops: JoinSet<()>,
    probers: Probers,
}

impl Worker {
    async fn run(mut self, leavers: Vec<Leaver>) {
        self.let_leave(&leavers).await;
        loop {
            let wake = match self.step().await {
                Step::Wait(wake) => wake,
                Step::Done => return,
            };
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep(until(at)).await,
                    None => std::future::pending().await,
                }
            };
            let shared = self.shared.clone();
            tokio::select! {
                () = shared.wake.notified() => {}
                () = shared.volumes_wake.notified() => self.refresh_volumes(),
                Some(result) = self.ops.join_next() => self.after_op(result),
                () = timer => {}
            }
        }
    }

    /// Waits until those who leave for this pod are gone, unless it is to end itself.
    async fn let_leave(&self, leavers: &[Leaver]) {
        let shared = &self.shared;
        let mut gone = std::pin::pin!(leaver::all_gone(leavers));
        loop {
            tokio::select! {
                () = &mut gone => return,
                () = shared.wake.notified() => {}
            }
            let deleted = shared.removed() || shared.pod().metadata.deletion_timestamp.is_some();
            if deleted || shared.state().verdict.is_some() {
                return;
            }
        }
    }

    fn after_op(&self, result: Result<(), tokio::task::JoinError>) {
        if let Err(error) = result
            && error.is_panic()
        {
            tracing::error!(uid = self.shared.uid, "an operation on a pod has panicked");
        }
    }

    /// Looks, decides, acts, reports.
    async fn step(&mut self) -> Step {
        if let Err(error) = observe::observe(&self.shared).await {
            tracing::warn!(uid = self.shared.uid, error = %base::chain(&error), "runtime does not answer");
            return Step::Wait(Some(
                Timestamp::now() + SignedDuration::try_from(RETRY).unwrap_or_default(),
            ));
        }
        let (pod, removed, now) = (self.shared.pod(), self.shared.removed(), Timestamp::now());
        let mut wake = self.check_deadline(&pod, now);
        let life = self.life(&pod, removed);
        let plan = {
            let state = self.shared.state();
            match life {
                Life::Running => plan::plan(&pod, &state.view, now),
                _ => plan::end(&pod, &state.view),
            }
        };
        self.tell_back_off(&pod, &plan);
        if life == Life::Running {
            resize::tell(&self.shared, &pod);
        }
        self.probe(&pod, &life);
        for action in &plan.actions {
            self.act(&pod, action);
        }
        let mut earlier = |at: Option<Timestamp>| {
            wake = wake.into_iter().chain(at).min();
        };
        earlier(plan.wake);
        earlier(self.renewal(now));
        if life == Life::Ended && self.tear_down().await && removed {
            sandbox::remove_all(&self.shared, &pod).await;
            return Step::Done;
        }
        if !removed {
            earlier(self.report(&pod, &plan, life, now));
        }
        Step::Wait(wake)
    }

    /// Fails a pod that has been active for too long; gives the time to look again.
    fn check_deadline(&self, pod: &Pod, now: Timestamp) -> Option<Timestamp> {
        let seconds = spec(pod).active_deadline_seconds?;
        let mut state = self.shared.state();
        let start = state.status.as_ref()?.start_time.as_ref()?.0;
        let at = start.checked_add(SignedDuration::from_secs(seconds)).ok()?;
        let over = terminal(phase(&state.status));
        if at > now || over {
            return Some(at).filter(|at| *at > now && !over);
        }
        if state.verdict.is_none() {
            let message = "Pod was active on the node longer than the specified deadline";
            let reason = "DeadlineExceeded";
            state.verdict = Some(Verdict { reason: reason.into(), message: message.into() });
            drop(state);
            self.shared.ctx.event(pod, None, EventKind::Normal, reason, message);
        }
        None
    }

    /// Where the pod is in its life; notes when it is to end.
    fn life(&self, pod: &Pod, removed: bool) -> Life {
        let state = self.shared.state();
        let over = terminal(phase(&state.status))
            || state.verdict.is_some()
            || plan::done(pod, &state.view);
        let deleted = removed || pod.metadata.deletion_timestamp.is_some();
        if !over && !deleted {
            return Life::Running;
        }
        let alive = |slot: &crate::pod::view::Slot| {
            slot.busy || slot.current.as_ref().is_some_and(Run::alive)
        };
        let gone = !state.view.slots.values().any(alive)
            && !state.view.sandbox_busy
            && state.view.volumes != Volumes::Doing
            && state.view.ready_sandbox().is_none();
        drop(state);
        if gone {
            self.shared.left.cancel();
        }
        self.shared.ending.cancel();
        stop::set_deadline(&self.shared, pod);
        if gone { Life::Ended } else { Life::Ending }
    }

    /// Writes one event for each run after which a container has to wait.
    fn tell_back_off(&self, pod: &Pod, plan: &Plan) {
        let mut state = self.shared.state();
        let State { view, told, .. } = &mut *state;
        let runs = plan.waiting.iter().filter_map(|(name, _)| Some((name, &view.run(name)?.id)));
        let fresh: Vec<&String> =
            runs.filter(|(_, id)| !told.contains(*id)).map(|(name, _)| name).collect();
        for name in &fresh {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (own, namespace) = (text(&pod.metadata.name), text(&pod.metadata.namespace));
            let note = format!(
                "Back-off restarting failed container {name} in pod {own}_{namespace}({})",
                self.shared.uid
            );
            self.shared.ctx.event(pod, Some(name), EventKind::Warning, "BackOff", &note);
        }
        // Only runs that still count are remembered.
        *told = view
            .slots
            .values()
            .filter_map(|s| Some(s.current.as_ref()?.id.clone()))
            .filter(|id| {
                told.contains(id)
                    || fresh.iter().any(|name| view.run(name).is_some_and(|r| r.id == *id))
            })
            .collect();
    }

    fn act(&mut self, pod: &Arc<Pod>, action: &Action) {
        let shared = self.shared.clone();
        let pod = pod.clone();
        match action.clone() {
            Action::PrepareVolumes => self.prepare_volumes(true),
            Action::CreateSandbox { attempt, replaces } => {
                shared.state().view.sandbox_busy = true;
                self.ops.spawn(sandbox::create(shared, pod, attempt, replaces));
            }
            Action::StopSandbox { id } => {
                shared.state().view.sandbox_busy = true;
                self.ops.spawn(sandbox::stop(shared, id));
            }
            Action::Start { container, attempt, delay_s } => {
                shared.state().view.slots.entry(container.clone()).or_default().busy = true;
                self.ops.spawn(start::start(shared, pod, container, attempt, delay_s));
            }
            Action::Resize => {
                shared.state().view.resize = Resize::Doing;
                self.ops.spawn(resize::resize(shared, pod));
            }
            Action::Kill { container, id, message, again } => {
                let mut state = shared.state();
                let slot = state.view.slots.entry(container.clone()).or_default();
                slot.busy = true;
                slot.replaced = again.then(|| id.clone());
                drop(state);
                self.ops.spawn(stop::kill(shared, pod, container, id, message));
            }
        }
    }

    fn prepare_volumes(&mut self, first: bool) {
        if first {
            self.shared.state().view.volumes = Volumes::Doing;
        }
        self.ops.spawn(start::prepare_volumes(self.shared.clone(), first));
    }

    /// Brings the volumes of a running pod up to date, or tries again what could not be made.
    fn refresh_volumes(&mut self) {
        if self.shared.ending.is_cancelled() {
            return;
        }
        let mut state = self.shared.state();
        match state.view.volumes {
            Volumes::Failed(_) => state.view.volumes = Volumes::Todo,
            Volumes::Ready => {
                drop(state);
                self.prepare_volumes(false);
            }
            Volumes::Todo | Volumes::Doing => {}
        }
    }

    /// Renews tokens when it is time; gives the next time.
    fn renewal(&mut self, now: Timestamp) -> Option<Timestamp> {
        let at = self.shared.state().renew_at?;
        if self.shared.ending.is_cancelled() {
            return None;
        }
        if at <= now {
            self.shared.state().renew_at = None;
            self.refresh_volumes();
            return None;
        }
        Some(at)
    }

    fn probe(&mut self, pod: &Arc<Pod>, life: &Life) {
        let shared = &self.shared;
        self.probers.keep(shared, pod, *life == Life::Running);
    }

    /// Unmounts and removes the volumes of an ended pod; true when that is done.
    async fn tear_down(&self) -> bool {
        if self.shared.state().torn_down {
            return true;
        }
        match self.shared.volumes.lock().await.tear_down() {
            Ok(()) => {
                self.shared.state().torn_down = true;
                true
            }
            Err(error) => {
                tracing::warn!(uid = self.shared.uid, %error, "volumes not removed");
                true
            }
        }
    }

    /// Writes the status if it has changed; of a deleted pod that has ended, deletes the object.
    fn report(
        &mut self,
        pod: &Arc<Pod>,
        plan: &Plan,
        life: Life,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut state = self.shared.state();
        let kept_back = state.tell_at.filter(|_| pod.metadata.deletion_timestamp.is_none());
        let retry = state.write_retry_at.max(kept_back).filter(|at| *at > now);
        if state.writing || state.deleted || retry.is_some() {
            return retry;
        }
        if let Some(ours) = &state.status
            && let Some(conditions) = status::overruled(ours, state.written, pod)
        {
            state.status = Some(PodStatus { conditions: Some(conditions), ..ours.clone() });
        }
        let ended = life == Life::Ended;
        let pending = self.shared.pending();
        let new = status::compute(&self.shared.ctx, pod, &state, pending, plan, life, now);
        let same = status::same(state.status.as_ref(), &new);
        if same && !(ended && pod.metadata.deletion_timestamp.is_some()) {
            return None;
        }
        state.writing = true;
        drop(state);
        if terminal(new.phase.as_deref()) {
            self.shared.left.cancel();
        }
        let shared = self.shared.clone();
        match same {
            true => self.ops.spawn(status::delete(shared, pod.clone())),
            false => self.ops.spawn(status::write(shared, pod.clone(), new)),
        };
        None
    }
}

enum Step {
    Wait(Option<Timestamp>),
    Done,
}

fn phase(status: &Option<PodStatus>) -> Option<&str> {
    status.as_ref()?.phase.as_deref()
}

/// How long from now until `at`.
fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}
