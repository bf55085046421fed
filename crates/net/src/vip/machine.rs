//! Who holds the addresses: VRRP's three states (RFC 9568, section 6.4). Pure: time comes in with
//! every event, and what is to be done comes out.
//!
//! Three things go beyond the RFC. A priority that falls while we hold the addresses is an
//! abdication (advertised as 0, so that a better one takes over within its skew). Of several
//! backups with the same priority the one with the highest address wakes first, because it would
//! win anyway. And whoever took over from a peer that turns out to be alive waits longer the next
//! time: on a network that loses packets, addresses that jump are worse than a late take-over.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One unit of VRRP's timers.
const CENTISECOND: Duration = Duration::from_millis(10);
/// When a take-over is announced to the segment again, counted from the take-over: a switch or a
/// client may miss the first, and a rival that was cut off may have announced itself meanwhile.
const ANNOUNCE_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];
/// And so often from then on, for tables that forget.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);
/// A rival's packets make us announce ourselves no more often than this.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);
/// A reign that a living predecessor ends sooner than this was a false alarm.
const SHORT_REIGN: Duration = Duration::from_secs(10);
/// How long a false alarm is remembered.
const REMEMBER: Duration = Duration::from_secs(300);
/// False alarms stretch our patience to at most this factor.
const PATIENCE_MAX: u32 = 8;
/// The steps by which backups of equal priority are kept apart, in centiseconds.
const TIE_STEPS: u8 = 8;

/// What a member of a group is told.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// 1 to 255; 255 owns the addresses.
    pub priority: u8,
    /// How often it speaks while it holds the addresses.
    pub interval: Duration,
    /// Whether it takes over from one of lower priority that is alive.
    pub preempt: bool,
    /// How long it lets such a one be.
    pub preempt_delay: Duration,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It takes no part: there is no link, or it has been stopped.
    Initialize,
    /// Another holds the addresses, or will.
    Backup,
    /// It holds the addresses.
    Active,
}

/// What happens to a member.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The link is there; our packets come from this address.
    Start(IpAddr),
    /// The link is gone, or we are to leave.
    Stop,
    /// An advertisement of the group has come in.
    Heard(Advert),
    /// [`Machine::deadline`] has passed.
    Timer,
    /// Our priority has changed.
    Priority(u8),
}

/// What an advertisement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advert {
    /// Who sent it.
    pub from: IpAddr,
    /// Its priority; 0 means that it leaves.
    pub priority: u8,
    /// How often it speaks.
    pub interval: Duration,
}

/// What is to be done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Put the addresses on the interface.
    Take,
    /// Take them off.
    Release,
    /// Send an advertisement of this priority.
    Advertise(u8),
    /// Tell the segment where the addresses are.
    Announce,
}

/// One member.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    own: Option<IpAddr>,
    state: State,
    /// When the state ends by itself: the others' silence, or our next word.
    wake_at: Option<Duration>,
    /// How often the one who holds the addresses speaks.
    active_interval: Duration,
    /// Who was heard to hold the addresses.
    predecessor: Option<IpAddr>,
    /// From when on one of lower priority is not tolerated any more.
    preempt_at: Option<Duration>,
    since: Duration,
    announced: usize,
    announce_at: Option<Duration>,
    patience: u32,
    patient_until: Duration,
}

impl Machine {
    /// A member that takes no part yet.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            active_interval: settings.interval,
            settings,
            own: None,
            state: State::Initialize,
            wake_at: None,
            predecessor: None,
            preempt_at: None,
            since: Duration::ZERO,
            announced: 0,
            announce_at: None,
            patience: 1,
            patient_until: Duration::ZERO,
        }
    }

    /// Where it stands.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// When [`Event::Timer`] is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        [self.wake_at, self.announce_at].into_iter().flatten().min()
    }

    /// Takes in what happened at `now`.
    pub(super) fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match (event, self.state) {
            (Event::Start(own), State::Initialize) => self.start(now, own, &mut out),
            (Event::Start(own), _) => self.own = Some(own),
            (Event::Stop, _) => self.stop(&mut out),
            (Event::Priority(priority), _) => self.reprioritise(now, priority, &mut out),
            (Event::Heard(advert), State::Backup) => self.heard_as_backup(now, advert),
            (Event::Heard(advert), State::Active) => self.heard_as_active(now, advert, &mut out),
            (Event::Timer, _) => self.timer(now, &mut out),
            (Event::Heard(_), State::Initialize) => {}
        }
        out
    }

    fn start(&mut self, now: Duration, own: IpAddr, out: &mut Vec<Action>) {
        self.own = Some(own);
        self.predecessor = None;
        self.preempt_at = None;
        self.active_interval = self.settings.interval;
        match self.settings.priority {
            u8::MAX => self.take(now, out),
            _ => self.back_up(now),
        }
    }

    fn stop(&mut self, out: &mut Vec<Action>) {
        if self.state == State::Active {
            // Off first, then the word that lets others take over: nobody may see two.
            out.extend([Action::Release, Action::Advertise(0)]);
        }
        self.state = State::Initialize;
        (self.wake_at, self.announce_at) = (None, None);
    }

    fn reprioritise(&mut self, now: Duration, priority: u8, out: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.settings.priority, priority);
        if self.state == State::Active && priority < before {
            out.extend([Action::Release, Action::Advertise(0)]);
            self.predecessor = None;
            self.active_interval = self.settings.interval;
            self.back_up(now);
        }
    }

    fn timer(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.wake_at.is_some_and(|at| at <= now) {
            match self.state {
                State::Backup => self.take(now, out),
                State::Active => self.advertise(now, out),
                State::Initialize => self.wake_at = None,
            }
        }
        if self.announce_at.is_some_and(|at| at <= now) {
            out.push(Action::Announce);
            let next = ANNOUNCE_AFTER.get(self.announced).map(|after| self.since + *after);
            self.announced = self.announced.saturating_add(1);
            self.announce_at = Some(next.unwrap_or(now + ANNOUNCE_EVERY));
        }
    }

    fn take(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.state = State::Active;
        (self.since, self.announced, self.announce_at) = (now, 1, Some(now));
        out.push(Action::Take);
        self.advertise(now, out);
    }

    fn advertise(&mut self, now: Duration, out: &mut Vec<Action>) {
        out.push(Action::Advertise(self.settings.priority));
        self.wake_at = Some(now + self.settings.interval);
    }

    fn back_up(&mut self, now: Duration) {
        self.state = State::Backup;
        self.announce_at = None;
        self.wake_at = Some(now + self.down_interval(now));
    }

    fn heard_as_backup(&mut self, now: Duration, advert: Advert) {
        if advert.priority == 0 {
            self.predecessor = None;
            self.wake_at = Some(now + self.skew());
            return;
        }
        if !self.tolerates(now, advert.priority) {
            return;
        }
        self.predecessor = Some(advert.from);
        self.active_interval = advert.interval;
        self.wake_at = Some(now + self.down_interval(now));
    }

    /// Whether we let one of this priority hold the addresses.
    fn tolerates(&mut self, now: Duration, priority: u8) -> bool {
        if !self.settings.preempt || priority >= self.settings.priority {
            self.preempt_at = None;
            return true;
        }
        now < *self.preempt_at.get_or_insert(now + self.settings.preempt_delay)
    }

    fn heard_as_active(&mut self, now: Duration, advert: Advert, out: &mut Vec<Action>) {
        let Some(own) = self.own else { return };
        let rank = (advert.priority, advert.from);
        if advert.priority != 0 && rank > (self.settings.priority, own) {
            let alarm = self.predecessor == Some(advert.from) && now < self.since + SHORT_REIGN;
            if alarm {
                self.patience = (self.patience(now) * 2).min(PATIENCE_MAX);
                self.patient_until = now + REMEMBER;
            }
            out.push(Action::Release);
            self.predecessor = Some(advert.from);
            self.active_interval = advert.interval;
            self.back_up(now);
            return;
        }
        // Whoever thinks otherwise is to know, and the segment is to forget it.
        self.advertise(now, out);
        let again = now + ANNOUNCE_AGAIN;
        self.announce_at = Some(self.announce_at.map_or(again, |at| at.min(again)));
    }

    /// How long silence of the one who holds the addresses is borne.
    fn down_interval(&self, now: Duration) -> Duration {
        self.active_interval * 3 * self.patience(now) + self.skew()
    }

    fn patience(&self, now: Duration) -> u32 {
        if now < self.patient_until { self.patience } else { 1 }
    }

    /// The lower the priority the longer.
    fn skew(&self) -> Duration {
        let steps = 256 - u32::from(self.settings.priority);
        self.active_interval * steps / 256 + self.tie()
    }

    fn tie(&self) -> Duration {
        let last = match self.own {
            Some(IpAddr::V4(v4)) => v4.octets()[3],
            Some(IpAddr::V6(v6)) => v6.octets()[15],
            None => 0,
        };
        CENTISECOND * u32::from(TIE_STEPS - 1 - last % TIE_STEPS)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
