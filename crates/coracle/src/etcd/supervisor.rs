//! Keeps etcd running: starts it, judges why it ended, and gets it back into the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::admin::{Admin, Alarm, Member};
use super::alone;
use super::care::{self, Act, View};
use super::line::Start;
use super::membership::{self, Joining};
use super::place::{self, Aside, Place};
use super::process::{Ended, Process};
use super::torn::Files;
use super::trust;
use super::verdict::{Verdict, judge};
use super::{Say, kin};
use crate::failure::{Failure, Outcome, While};
use crate::server::Membership;

/// Pause before etcd is started again, the longer the more often it failed.
const RETRY: base::Backoff = base::Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// How often a member that does not serve yet is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often the others are looked at, while they are waited for.
const LOOK_AT_OTHERS: Duration = Duration::from_secs(1);
/// How often a person is told what is waited for.
const SAY_AGAIN: Duration = Duration::from_secs(15);
/// How long joining waits for another server's joining.
const JOIN_PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two attempts at that.
const JOIN_RETRY: Duration = Duration::from_millis(200);
/// How often the files of a member without others are mended in a row.
const MENDS_MAX: u32 = 3;
/// How often a running member is looked after.
const TEND_EVERY: Duration = Duration::from_secs(60);
/// The same after a start, and for as long as there is an alarm.
const TEND_SOON: Duration = Duration::from_secs(5);

/// What keeps this board's member running.
#[derive(Clone)]
pub struct Supervisor {
    place: Place,
    /// Told when the authorities that the member should trust may be others.
    changed: Arc<Notify>,
    /// Told what the start waits for.
    say: Say,
    stop: CancellationToken,
    /// Whether the member has been found to hold what the others hold, so that it may be read.
    agreed: Arc<watch::Sender<bool>>,
}

/// Why a run of etcd came to its end.
enum Turn {
    /// It ended by itself.
    Ended(Ended),
    /// It was ended to be started again.
    Again(Start),
    /// It was ended for good.
    Stopped,
}

/// Why a running member has to be ended.
enum Need {
    /// It is its turn to take authorities that are the cluster's now.
    Restart,
    /// The others hold something else.
    Rebuild,
}

/// When to look again.
enum Look {
    In(Duration),
    /// The member has to be ended.
    Never(Need),
}

/// What was seen at the last look, and done.
#[derive(Debug, Default)]
struct Last {
    revision: u64,
    learner_looks: u32,
    spared: u64,
}

impl Supervisor {
    /// Nothing runs yet.
    pub fn new(place: Place, changed: Arc<Notify>, say: Say, stop: CancellationToken) -> Self {
        Supervisor { place, changed, say, stop, agreed: Arc::new(watch::Sender::new(false)) }
    }

    /// How the member begins. Joins the cluster where it is no member yet.
    pub async fn first(&self, membership: &Membership, endpoints: Vec<String>) -> Outcome<Start> {
        match membership {
            Membership::Init => Ok(Start::New),
            Membership::Join(_) => self.join(endpoints).await,
            Membership::Rejoin => self.rejoin_patiently().await,
            Membership::Present => match self.forgotten().await? {
                None => Ok(Start::Again),
                Some(what) => self.repair(&what).await,
            },
            Membership::Reset => Ok(Start::Alone),
        }
    }

    /// What this board's member has forgotten although it had acknowledged it.
    async fn forgotten(&self) -> Outcome<Option<String>> {
        let folder = self.place.folder.clone();
        let doing = || format!("looking at etcd's data in {}", self.place.folder.display());
        let looked =
            tokio::task::spawn_blocking(move || Files::look(&folder)).await.doing(doing)?;
        Ok(match looked {
            Ok(files) => files.forgotten(),
            Err(error) => Some(error.to_string()),
        })
    }

    /// Runs etcd until it is told to stop, or cannot go on.
    pub async fn run(self, mut start: Start) -> Outcome {
        let mut failures = 0;
        loop {
            match self.turn(&start).await? {
                Turn::Stopped => return Ok(()),
                Turn::Again(next) => start = next,
                Turn::Ended(ended) => {
                    let verdict = judge(&ended);
                    failures = if ended.lived > RETRY.max { 1 } else { failures + 1 };
                    let next = self.after(&ended, verdict, failures).await?;
                    start = self.unless_begun(start, next).await?;
                    let pause = tokio::time::sleep(RETRY.jittered(failures));
                    if self.stop.run_until_cancelled(pause).await.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A member that ended before it had a log begins as it was to begin. Started like one that
    /// has been a member, etcd would found a cluster of its own.
    async fn unless_begun(&self, start: Start, next: Start) -> Outcome<Start> {
        match (start, next) {
            (_, next) if next != Start::Again || self.place.has_log() => Ok(next),
            (Start::Again, _) => self.repair("its log is not there").await,
            (start, _) => Ok(start),
        }
    }

    /// What to do after etcd has ended by itself.
    async fn after(&self, ended: &Ended, verdict: Verdict, failures: u32) -> Outcome<Start> {
        let last = ended.tail.last().map_or("nothing", String::as_str);
        match verdict {
            Verdict::Removed => Err(self.removed()?),
            Verdict::Damaged(what) if self.is_alone() && failures > MENDS_MAX => {
                Err(alone::beyond_help(&self.place, &what))
            }
            Verdict::Damaged(what) => self.repair(&what).await,
            Verdict::PortTaken => {
                self.place.await_ports().await?;
                Ok(Start::Again)
            }
            Verdict::DiskFull => {
                tracing::error!(
                    "the disk is full and etcd has ended; this server goes on when there is space \
                     (the others do without it)"
                );
                Ok(Start::Again)
            }
            Verdict::Other => {
                tracing::warn!(status = ended.status, last, failures, "etcd has ended; again");
                Ok(Start::Again)
            }
        }
    }

    fn removed(&self) -> Outcome<Failure> {
        let kept = self.place.set_aside(Aside::Removed)?;
        Ok(Failure::new("this server was removed from the cluster")
            .hint(format!(
                "`coracle uninstall` takes Coracle off this board; started again, it joins anew \
                 (the old data are kept in {})",
                kept.display()
            ))
            .code(crate::failure::REMOVED))
    }

    /// What was read from a member that holds something else is in this server's memory too, so
    /// that all of it has to start again.
    fn rebuilt_from_others(&self) -> Outcome<Failure> {
        self.others()?;
        let kept = self.place.set_aside(Aside::Damaged)?;
        Ok(Failure::new("this server's etcd holds something else than the other members").hint(
            format!(
                "started again, it fetches everything from them (the old data are kept in {}); see \
                 whether the disk is failing",
                kept.display()
            ),
        ))
    }

    /// One run of etcd.
    async fn turn(&self, start: &Start) -> Outcome<Turn> {
        place::make_folder(&self.place.folder)?;
        let trusted = std::fs::read(&self.place.tls.ca).unwrap_or_default();
        let arguments = self.place.line().arguments(start);
        let mut process = Process::spawn(&self.place.binary, arguments).await?;
        tracing::info!(pid = process.id(), "etcd started");
        let alarm = process.alarm();
        let need = tokio::select! {
            ended = process.ended() => return Ok(Turn::Ended(ended)),
            () = self.stop.cancelled() => None,
            need = self.tend(&alarm) => Some(need),
            () = trust::until_restart(&self.place, &trusted, &self.changed) => Some(Need::Restart),
        };
        self.end(process).await;
        match need {
            None => Ok(Turn::Stopped),
            Some(Need::Restart) => {
                tracing::info!("etcd starts again with the cluster's new authorities");
                Ok(Turn::Again(Start::Again))
            }
            Some(Need::Rebuild) if *self.agreed.borrow() => Err(self.rebuilt_from_others()?),
            Some(Need::Rebuild) => {
                self.repair("they are not what the other members hold").await.map(Turn::Again)
            }
        }
    }

    /// Ends etcd in order: the lead first, so that the others need not find out.
    async fn end(&self, mut process: Process) {
        if let Err(failure) = self.hand_over().await {
            tracing::debug!(error = %base::chain(&failure), "etcd's lead was not handed over");
        }
        process.signal(Signal::SIGTERM);
        if tokio::time::timeout(super::STOP_PATIENCE, process.ended()).await.is_err() {
            tracing::warn!("etcd did not end on SIGTERM and is killed");
            process.signal(Signal::SIGKILL);
            process.ended().await;
        }
    }

    async fn hand_over(&self) -> Outcome {
        let local = self.place.local().await?;
        let status = local.status().await?;
        if status.leader != status.id {
            return Ok(());
        }
        let seen = kin::look(local.members().await?, &self.place.tls).await;
        let heir = seen
            .into_iter()
            .find(|(seen, _)| seen.alive && !seen.member.learner && seen.member.id != status.id);
        match heir {
            Some((heir, _)) => {
                local.hand_over(heir.member.id).await?;
                tracing::info!(to = heir.member.label(), "handed etcd's lead over");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Looks after the running member until it has to be ended.
    async fn tend(&self, alarm: &Notify) -> Need {
        if !self.agrees().await {
            return Need::Rebuild;
        }
        self.agreed.send_replace(true);
        let mut last = Last::default();
        let mut pause = TEND_SOON;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = alarm.notified() => {}
            }
            pause = match self.tend_once(&mut last).await {
                Ok(Look::In(pause)) => pause,
                Ok(Look::Never(need)) => return need,
                Err(failure) => {
                    tracing::debug!(error = %base::chain(&failure), "etcd was not looked after");
                    TEND_EVERY
                }
            };
        }
    }

    /// Whether this member holds what the others hold, as soon as a majority can be compared.
    ///
    /// etcd has a check of its own (`--experimental-initial-corrupt-check`), but asks the others
    /// before it answers them: members that start together wait for each other, 9 seconds each.
    async fn agrees(&self) -> bool {
        loop {
            match self.compared().await {
                Ok(Some(agrees)) => return agrees,
                Ok(None) => {}
                Err(failure) => {
                    tracing::debug!(error = %base::chain(&failure), "etcd was not compared yet");
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn compared(&self) -> Outcome<Option<bool>> {
        let local = self.place.local().await?;
        let status = local.status().await?;
        if status.leader == 0 {
            return Ok(None);
        }
        // What comes without a vote was sent by the leader just now.
        if status.learner {
            return Ok(Some(true));
        }
        let held = kin::contents(&local.members().await?, status.revision, &self.place.tls).await;
        Ok(care::agrees(&held, status.leader, status.id))
    }

    async fn tend_once(&self, last: &mut Last) -> Outcome<Look> {
        let local = self.place.local().await?;
        let status = local.status().await?;
        let members = local.members().await?;
        kin::remember(&self.place.data_dir, &members)?;
        let alarms = local.alarms().await?;
        let odd = match alarms.iter().any(|alarm| matches!(alarm, Alarm::Corrupt(_))) {
            true => {
                let held = kin::contents(&members, status.revision, &self.place.tls).await;
                care::odd(&held, status.leader)
            }
            false => None,
        };
        if odd.as_ref().is_some_and(|odd| odd.contains(&status.id)) {
            return Ok(Look::Never(Need::Rebuild));
        }
        let again = if alarms.is_empty() { TEND_EVERY } else { TEND_SOON };
        let writes = status.revision.saturating_sub(last.revision);
        last.revision = status.revision;
        if status.leader != status.id {
            *last = Last { learner_looks: 0, ..*last };
            return Ok(Look::In(again));
        }
        let members = kin::look(members, &self.place.tls).await;
        let away = members.iter().any(|(seen, _)| seen.member.learner && !seen.alive);
        last.learner_looks = if away { last.learner_looks + 1 } else { 0 };
        let view = View {
            members,
            alarms,
            leader: status.leader,
            writes,
            learner_looks: last.learner_looks,
            quota: u64::from(self.place.options.etcd_quota) << 20,
            revision: status.revision,
            odd,
            spared: last.spared,
        };
        let Some(act) = care::decide(&view) else { return Ok(Look::In(again)) };
        let spares = act == Act::MakeSpace;
        care::act(act, &view, &self.place, &local).await?;
        if spares {
            last.spared = view.revision;
        }
        // What was done against an alarm may be what another step waits for.
        Ok(Look::In(if view.alarms.is_empty() { again } else { Duration::ZERO }))
    }

    /// Waits until this member answers for a majority, and says for whom it waits.
    pub async fn await_service(&self) {
        let (problem, seen) = watch::channel(String::new());
        let served = async {
            loop {
                problem.send_replace(match self.serves().await {
                    Ok(None) => return,
                    Ok(Some(problem)) => problem,
                    Err(failure) => base::chain(&failure).to_string(),
                });
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // Apart from the above: asking a member that is silent takes its time.
        tokio::select! {
            () = served => {}
            () = self.tell_whom_it_waits_for(&seen) => {}
        }
    }

    /// Tells it for ever: callers always, the log now and then.
    async fn tell_whom_it_waits_for(&self, problem: &watch::Receiver<String>) {
        let mut told = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOK_AT_OTHERS).await;
            let missing = self.missing().await;
            (self.say)(&format!("it waits for the cluster's other servers: {missing}"));
            if told.elapsed() > SAY_AGAIN {
                told = tokio::time::Instant::now();
                let problem = problem.borrow().clone();
                tracing::warn!("waiting for the cluster's other servers: {missing} ({problem})");
            }
        }
    }

    /// `None` where the member serves; else what is in the way.
    async fn serves(&self) -> Outcome<Option<String>> {
        let local = self.place.local().await?;
        let status = local.status().await?;
        if status.leader == 0 {
            return Ok(Some("etcd has no leader".into()));
        }
        if status.learner {
            self.others()?.connect(&self.place).await?.promote(status.id).await?;
            tracing::info!("this server has caught up and has a vote now");
        }
        if !local.has_quorum().await {
            return Ok(Some("no majority answers".into()));
        }
        let members = local.members().await?;
        let own = members.iter().find(|member| member.id == status.id);
        if own.is_some_and(|own| own.peer_url != self.place.peer_url()) {
            local.moved(status.id, &self.place.peer_url()).await?;
        }
        kin::remember(&self.place.data_dir, &members)?;
        if !*self.agreed.borrow() {
            return Ok(Some("etcd's data have not been compared with the others' yet".into()));
        }
        let voters = members.iter().filter(|member| !member.learner).count();
        if let Some(advice) = membership::advice(voters) {
            tracing::warn!("{advice}");
        }
        Ok(None)
    }

    async fn missing(&self) -> String {
        let members = kin::remembered(&self.place.data_dir);
        let needed = membership::majority(members.len());
        let all = members.len();
        let others = members.into_iter().filter(|member| member.name != self.place.name);
        let seen = kin::look(others.collect(), &self.place.tls).await;
        let away: Vec<String> = seen
            .iter()
            .filter(|(seen, _)| !seen.alive)
            .map(|(seen, _)| format!("{} ({})", seen.member.label(), seen.member.peer_url))
            .collect();
        match away.is_empty() {
            true => "all answer".into(),
            false => format!("no answer from {}; {needed} of {all} are needed", away.join(", ")),
        }
    }

    fn others(&self) -> Outcome<Others> {
        let members = kin::remembered(&self.place.data_dir);
        let urls = kin::client_urls(members.iter().filter(|m| m.name != self.place.name));
        match urls.is_empty() {
            true => Err(Failure::new("no other server of the cluster is known here")),
            false => Ok(Others(urls)),
        }
    }

    /// Gets a member back whose files are of no use: the others forget it and take it in anew, or
    /// where there are none it goes on with what the files still hold.
    async fn repair(&self, what: &str) -> Outcome<Start> {
        let folder = &self.place.folder;
        tracing::error!("etcd's data in {} are damaged: {what}", folder.display());
        if self.is_alone() {
            return alone::mend(&self.place, what).await;
        }
        self.rejoin_patiently().await
    }

    /// Whether this server is known to be the only one.
    fn is_alone(&self) -> bool {
        let members = kin::remembered(&self.place.data_dir);
        !members.is_empty() && members.iter().all(|member| member.name == self.place.name)
    }

    /// Joins the cluster that this server was a member of, as soon as enough of it answers.
    async fn rejoin_patiently(&self) -> Outcome<Start> {
        let mut failures = 0;
        loop {
            let others = self.others().map_err(|failure| {
                failure.hint("name one with --server, and give the cluster's --token")
            })?;
            let failure = match self.join(others.0).await {
                Ok(start) => return Ok(start),
                Err(failure) => failure,
            };
            failures += 1;
            let why = base::chain(&failure).to_string();
            tracing::warn!(error = why, "not joined yet; will try again");
            (self.say)(&format!("it waits to join the cluster again: {why}"));
            let pause = tokio::time::sleep(RETRY.jittered(failures));
            if self.stop.run_until_cancelled(pause).await.is_none() {
                return Err(Failure::new("stopped before the cluster was joined"));
            }
        }
    }

    /// Joins the cluster of the members at `endpoints`.
    async fn join(&self, endpoints: Vec<String>) -> Outcome<Start> {
        let deadline = tokio::time::Instant::now() + JOIN_PATIENCE;
        let mut said = BTreeSet::new();
        loop {
            let why = match self.join_once(&endpoints).await? {
                Ok(start) => return Ok(start),
                Err(why) => why,
            };
            if tokio::time::Instant::now() > deadline {
                return Err(Failure::new(format!("joining the cluster: {why}")).hint(
                    "see that all its servers run (`coracle datastore status` on one of them)",
                ));
            }
            if said.insert(why.clone()) {
                tracing::info!("waiting to join: {why}");
            }
            tokio::time::sleep(JOIN_RETRY).await;
        }
    }

    /// Tries to join; the inner error says what to wait for.
    async fn join_once(&self, endpoints: &[String]) -> Outcome<Result<Start, String>> {
        let place = &self.place;
        let doing = || format!("asking the cluster's etcd at {}", endpoints.join(", "));
        let admin = Admin::new(endpoints, &place.tls).await?;
        let members = admin.members().await.doing(doing)?;
        let seen: Vec<_> = kin::look(members, &place.tls).await.into_iter().map(|s| s.0).collect();
        let stale = match membership::join(&place.name, &place.peer_url(), &seen) {
            Joining::Add { stale } => stale,
            Joining::Wait(why) => return Ok(Err(why)),
            Joining::Refuse { why, hint } => return Err(Failure::new(why).hint(hint)),
        };
        // From here on the old data are of no use: the member that they belong to is no more.
        if place.folder.exists() {
            let kept = place.set_aside(Aside::Damaged)?;
            tracing::warn!("the old data of etcd are kept in {}", kept.display());
        }
        let alive = seen.into_iter().filter(|seen| seen.alive);
        kin::remember(&place.data_dir, &alive.map(|seen| seen.member).collect::<Vec<_>>())?;
        for member in &stale {
            tracing::warn!("removing what is left of {} in the cluster's etcd", member.label());
            admin.remove(member).await?;
        }
        let (id, members) = match admin.add_learner(&place.peer_url()).await {
            Ok(added) => added,
            // Another server was faster.
            Err(failure) => return Ok(Err(base::chain(&failure).to_string())),
        };
        tracing::info!("joining the cluster as member {id:x}");
        Ok(Ok(Start::Joining(self.initial(id, &members))))
    }

    fn initial(&self, id: u64, members: &[Member]) -> Vec<(String, String)> {
        let name = |member: &Member| match member.id == id {
            true => self.place.name.clone(),
            false => member.name.clone(),
        };
        members.iter().map(|member| (name(member), member.peer_url.clone())).collect()
    }
}

/// URLs of other members.
struct Others(Vec<String>);

impl Others {
    async fn connect(&self, place: &Place) -> Outcome<Admin> {
        Admin::new(&self.0, &place.tls).await
    }
}
