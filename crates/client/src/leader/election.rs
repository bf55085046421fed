//! The decisions of an election, without I/O: what a Lease that was read means, and what to
//! write. Time is only ever this process's own monotonic clock.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// How long a lease holds and how it is kept; the defaults are upstream's for a control plane,
/// but that a leader for whom all goes well renews every five seconds in place of two: each renewal
/// is a sync on every server's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Others wait this long, by their own clock, after the last renewal that they saw.
    pub lease: Duration,
    /// A leader that could not renew for this long stops its work.
    pub renew_deadline: Duration,
    /// Between two renewals; with a quarter more it has to leave room for an attempt before the
    /// deadline.
    pub renew: Duration,
    /// Between two attempts to acquire, and before the next attempt to renew after one that failed.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            renew: Duration::from_secs(5),
            retry: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// What is left for the work to end between the leader's giving up and the moment at which
    /// somebody else may begin; half of it, so that a timer that is late does no harm.
    pub(super) fn grace(&self) -> Duration {
        self.lease.saturating_sub(self.renew_deadline) / 2
    }
}

/// What is known of a Lease, and since when.
#[derive(Debug, Clone, PartialEq)]
struct Observed {
    spec: LeaseSpec,
    version: String,
    at: Instant,
}

/// One candidate's view of the election.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    timing: Timing,
    observed: Option<Observed>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Somebody else holds a lease that may be good.
    Wait,
    /// Write this over the state of that resourceVersion (`None`: where there is no Lease).
    Write {
        /// The new state.
        spec: Box<LeaseSpec>,
        /// What it replaces.
        over: Option<String>,
    },
}

impl Election {
    pub(super) fn new(identity: String, timing: Timing) -> Self {
        Election { identity, timing, observed: None }
    }

    /// Notes a state of the Lease. The time counts from when it was first seen: the times within
    /// are another machine's and are compared with nothing but themselves.
    pub(super) fn observe(&mut self, spec: LeaseSpec, version: String, now: Instant) {
        let same = self.observed.as_ref().is_some_and(|seen| seen.version == version);
        if !same {
            self.observed = Some(Observed { spec, version, at: now });
        }
    }

    /// Forgets the Lease: it is not there.
    pub(super) fn absent(&mut self) {
        self.observed = None;
    }

    /// Who holds the lease by what was seen last; empty where nobody does.
    pub(super) fn holder(&self) -> &str {
        let spec = self.observed.as_ref().map(|seen| &seen.spec);
        spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }

    fn is_holder(&self) -> bool {
        self.holder() == self.identity
    }

    /// What to write in order to acquire or renew, if that is allowed.
    pub(super) fn step(&self, now: Instant, wall: jiff::Timestamp) -> Step {
        let Some(seen) = &self.observed else {
            let spec = Box::new(self.spec(None, 0, wall));
            return Step::Write { spec, over: None };
        };
        let transitions = seen.spec.lease_transitions.unwrap_or(0);
        let spec = if self.is_holder() {
            self.spec(seen.spec.acquire_time.clone(), transitions, wall)
        } else if !self.holder().is_empty() && now < seen.at + held_for(&seen.spec) {
            return Step::Wait;
        } else {
            self.spec(None, transitions.saturating_add(1), wall)
        };
        Step::Write { spec: Box::new(spec), over: Some(seen.version.clone()) }
    }

    /// What to write in order to give the lease up; `None` where it is not ours.
    pub(super) fn release(&self, wall: jiff::Timestamp) -> Option<(LeaseSpec, String)> {
        let seen = self.observed.as_ref().filter(|_| self.is_holder())?;
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            ..seen.spec.clone()
        };
        Some((spec, seen.version.clone()))
    }

    fn spec(
        &self,
        acquired: Option<MicroTime>,
        transitions: i32,
        wall: jiff::Timestamp,
    ) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs().max(1)).ok(),
            acquire_time: Some(acquired.unwrap_or(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }
}

/// How long the holder said that it holds.
fn held_for(spec: &LeaseSpec) -> Duration {
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wall(text: &str) -> jiff::Timestamp {
        text.parse().unwrap()
    }

    fn candidate(name: &str) -> Election {
        Election::new(name.into(), Timing::default())
    }

    fn written(step: Step) -> (LeaseSpec, Option<String>) {
        match step {
            Step::Write { spec, over } => (*spec, over),
            Step::Wait => panic!("the lease could have been written"),
        }
    }

    #[test]
    fn the_first_makes_it_and_the_second_waits() {
        let now = Instant::now();
        let (a, mut b) = (candidate("a"), candidate("b"));
        let (spec, over) = written(a.step(now, wall("2026-01-01T00:00:00Z")));
        assert_eq!((spec.lease_transitions, spec.lease_duration_seconds), (Some(0), Some(15)));
        assert_eq!(over, None);
        b.observe(spec, "1".into(), now);
        assert_eq!(
            (b.holder(), b.step(now + 14 * SECOND, wall("2026-01-01T00:00:14Z"))),
            ("a", Step::Wait)
        );
    }

    #[test]
    fn a_renewal_starts_the_wait_anew_and_silence_ends_it() {
        let now = Instant::now();
        let time = wall("2026-01-01T00:00:00Z");
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let (spec, _) = written(a.step(now, time));
        for (at, version) in [(0, "1"), (10, "2"), (10, "2")] {
            a.observe(spec.clone(), version.into(), now);
            b.observe(spec.clone(), version.into(), now + at * SECOND);
        }
        // The same version seen again, later, is no renewal.
        b.observe(spec, "2".into(), now + 20 * SECOND);
        assert_eq!(b.step(now + 24 * SECOND, time), Step::Wait);
        let (spec, over) = written(b.step(now + 25 * SECOND, time));
        assert_eq!(
            (spec.holder_identity.as_deref(), spec.lease_transitions, over.as_deref()),
            (Some("b"), Some(1), Some("2"))
        );
    }

    #[test]
    fn wall_clocks_decide_nothing() {
        let now = Instant::now();
        let (a, mut b) = (candidate("a"), candidate("b"));
        // The holder's clock is a year behind, then a year ahead; ours jumps too.
        for (version, theirs, ours) in [
            ("1", "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2", "2027-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ] {
            let (spec, _) = written(a.step(now, wall(theirs)));
            b.observe(spec, version.into(), now);
            assert_eq!(b.step(now + 14 * SECOND, wall(ours)), Step::Wait);
            assert_ne!(b.step(now + 15 * SECOND, wall(ours)), Step::Wait);
        }
    }

    #[test]
    fn a_renewal_keeps_what_the_acquisition_said() {
        let now = Instant::now();
        let mut a = candidate("a");
        let (spec, _) = written(a.step(now, wall("2026-01-01T00:00:00Z")));
        a.observe(spec.clone(), "1".into(), now);
        let (renewed, over) = written(a.step(now + 60 * SECOND, wall("2026-01-01T00:01:00Z")));
        assert_eq!(renewed.acquire_time, spec.acquire_time);
        assert_ne!(renewed.renew_time, spec.renew_time);
        assert_eq!((renewed.lease_transitions, over.as_deref()), (Some(0), Some("1")));
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let now = Instant::now();
        let time = wall("2026-01-01T00:00:00Z");
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let (spec, _) = written(a.step(now, time));
        a.observe(spec.clone(), "1".into(), now);
        b.observe(spec, "1".into(), now);
        assert_eq!(b.release(time), None);
        let (free, over) = a.release(time).unwrap();
        assert_eq!(over, "1");
        b.observe(free, "2".into(), now);
        let (taken, _) = written(b.step(now, time));
        assert_eq!(taken.lease_transitions, Some(1));
    }
}
