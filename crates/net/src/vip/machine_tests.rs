use super::*;

const INTERVAL: Duration = Duration::from_millis(200);

fn settings(priority: u8) -> Settings {
    Settings { priority, interval: INTERVAL, preempt: true, preempt_delay: Duration::ZERO }
}

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn advert(from: u8, priority: u8) -> Event {
    Event::Heard(Advert { from: ip(from), priority, interval: INTERVAL })
}

/// A started member; .7 has no tie to wait for.
fn member(priority: u8) -> Machine {
    let mut machine = Machine::new(settings(priority));
    machine.handle(Duration::ZERO, Event::Start(ip(7)));
    machine
}

/// One that holds the addresses, from what time on.
fn active(priority: u8) -> (Machine, Duration) {
    let mut machine = member(priority);
    let at = machine.deadline().unwrap();
    let taken = machine.handle(at, Event::Timer);
    assert_eq!(taken, [Action::Take, Action::Advertise(priority), Action::Announce]);
    (machine, at)
}

#[test]
fn silence_makes_active_after_three_intervals_and_the_skew() {
    for (priority, millis) in [(254, 601), (100, 721), (1, 799)] {
        let (machine, at) = active(priority);
        assert_eq!((machine.state(), at.as_millis()), (State::Active, millis), "{priority}");
    }
    let mut owner = Machine::new(settings(255));
    let actions = owner.handle(Duration::ZERO, Event::Start(ip(1)));
    assert_eq!(actions, [Action::Take, Action::Advertise(255)]);
    assert_eq!(owner.handle(Duration::ZERO, Event::Timer), [Action::Announce]);
}

#[test]
fn among_equals_the_one_that_would_win_wakes_first() {
    let wakes = |last: u8| {
        let mut machine = Machine::new(settings(100));
        machine.handle(Duration::ZERO, Event::Start(ip(last)));
        machine.deadline().unwrap()
    };
    assert!(wakes(3) < wakes(2) && wakes(2) < wakes(1));
    assert!(wakes(0) <= ms(800), "all below a second: {:?}", wakes(0));
}

#[test]
fn an_equal_or_better_one_is_let_be_and_a_worse_one_is_not() {
    for (theirs, tolerated) in [(100, true), (101, true), (99, false)] {
        let mut machine = member(100);
        let before = machine.deadline();
        machine.handle(ms(100), advert(1, theirs));
        assert_eq!(machine.deadline() > before, tolerated, "{theirs}");
    }
    let mut patient = Machine::new(Settings { preempt: false, ..settings(100) });
    patient.handle(Duration::ZERO, Event::Start(ip(7)));
    patient.handle(ms(100), advert(1, 1));
    assert_eq!(patient.deadline().unwrap().as_millis(), 821);
}

#[test]
fn a_worse_one_is_let_be_for_the_delay() {
    let delayed = Settings { preempt_delay: Duration::from_secs(3), ..settings(100) };
    let mut machine = Machine::new(delayed);
    machine.handle(Duration::ZERO, Event::Start(ip(7)));
    let mut now = Duration::ZERO;
    while machine.state() == State::Backup {
        now += INTERVAL;
        while machine.deadline().is_some_and(|at| at <= now) {
            machine.handle(now, Event::Timer);
        }
        machine.handle(now, advert(1, 50));
    }
    assert!((ms(3200)..ms(4200)).contains(&now), "{now:?}");
}

#[test]
fn one_that_leaves_is_followed_within_the_skew() {
    let mut machine = member(100);
    machine.handle(ms(100), advert(1, 100));
    machine.handle(ms(200), advert(1, 0));
    assert_eq!(machine.deadline().unwrap().as_millis(), 321);
}

#[test]
fn one_that_leaves_takes_the_addresses_off_before_it_says_so() {
    let (mut machine, at) = active(100);
    assert_eq!(machine.handle(at, Event::Stop), [Action::Release, Action::Advertise(0)]);
    assert_eq!((machine.state(), machine.deadline()), (State::Initialize, None));
    assert_eq!(machine.handle(at, Event::Stop), []);
    assert_eq!(machine.handle(at, advert(1, 1)), []);
}

#[test]
fn a_falling_priority_abdicates_and_a_rising_one_does_not() {
    let (mut machine, at) = active(100);
    assert_eq!(machine.handle(at, Event::Priority(200)), []);
    assert_eq!(machine.handle(at, Event::Priority(10)), [Action::Release, Action::Advertise(0)]);
    assert_eq!(machine.state(), State::Backup);
    // Nobody else is there: it is better than none.
    let again = machine.deadline().unwrap();
    assert_eq!(machine.handle(again, Event::Timer)[..2], [Action::Take, Action::Advertise(10)]);
    assert!(again - at < Duration::from_secs(1));
}

#[test]
fn of_two_the_better_one_stays_and_asserts_itself() {
    for (from, priority, stays) in
        [(9, 99, true), (6, 100, true), (8, 100, false), (1, 101, false), (1, 0, true)]
    {
        let (mut machine, at) = active(100);
        let actions = machine.handle(at + ms(50), advert(from, priority));
        let expected: &[Action] =
            if stays { &[Action::Advertise(100)] } else { &[Action::Release] };
        assert_eq!(actions, expected, ".{from} at {priority}");
        assert_eq!(machine.state() == State::Active, stays);
    }
}

#[test]
fn the_take_over_is_announced_again_and_again() {
    let (mut machine, at) = active(100);
    let mut told = vec![Duration::ZERO];
    while told.len() < 7 {
        let now = machine.deadline().unwrap();
        if machine.handle(now, Event::Timer).contains(&Action::Announce) {
            told.push(now - at);
        }
    }
    let secs: Vec<f64> = told.iter().map(Duration::as_secs_f64).collect();
    assert_eq!(secs, [0.0, 0.2, 1.0, 5.0, 65.0, 125.0, 185.0]);
    // A rival's packet brings the next one forward.
    let now = at + Duration::from_secs(200);
    machine.handle(now, advert(1, 1));
    assert!(machine.announce_at.unwrap() <= now + ANNOUNCE_AGAIN);
}

#[test]
fn a_false_alarm_makes_patient_and_is_forgotten() {
    let mut machine = member(100);
    let mut now = ms(100);
    let mut waits = Vec::new();
    for _ in 0..5 {
        machine.handle(now, advert(9, 100));
        let wake = machine.deadline().unwrap();
        waits.push((wake - now).as_millis());
        machine.handle(wake, Event::Timer);
        assert_eq!(machine.state(), State::Active);
        now = wake + ms(30);
        machine.handle(now, advert(9, 100));
        assert_eq!(machine.state(), State::Backup);
    }
    assert_eq!(waits, [721, 1321, 2521, 4921, 4921]);
    now += REMEMBER;
    machine.handle(now, advert(9, 100));
    assert_eq!((machine.deadline().unwrap() - now).as_millis(), 721);
}

#[test]
fn the_interval_is_learnt_from_the_active_one() {
    let mut machine = member(100);
    let slow = Advert { from: ip(1), priority: 100, interval: Duration::from_secs(1) };
    machine.handle(ms(100), Event::Heard(slow));
    assert_eq!(machine.deadline().unwrap().as_millis(), 100 + 3000 + 609);
}

/// Members on a segment that loses, cuts and delays packets; replayed by its seed.
struct Segment {
    members: Vec<(Machine, bool)>,
    now: Duration,
    random: fastrand::Rng,
    loss_percent: u8,
    /// Members of another side do not hear each other.
    sides: Vec<u8>,
    on_the_way: Vec<(Duration, usize, Advert)>,
}

impl Segment {
    fn new(seed: u64, count: u8) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let member = |last: u8, random: &mut fastrand::Rng| {
            let priority = [100, 100, 150][random.usize(0..3)];
            let mut machine = Machine::new(settings(priority));
            machine.handle(Duration::ZERO, Event::Start(ip(last)));
            (machine, false)
        };
        Self {
            members: (1..=count).map(|last| member(last, &mut random)).collect(),
            now: Duration::ZERO,
            random,
            loss_percent: 0,
            sides: vec![0; usize::from(count)],
            on_the_way: Vec::new(),
        }
    }

    fn apply(&mut self, index: usize, event: Event) {
        let actions = self.members[index].0.handle(self.now, event);
        for action in actions {
            match action {
                Action::Take => {
                    assert!(!self.members[index].1, "taken twice");
                    self.members[index].1 = true;
                }
                Action::Release => {
                    assert!(self.members[index].1, "released without having");
                    self.members[index].1 = false;
                }
                Action::Advertise(priority) => self.send(index, priority),
                Action::Announce => assert!(self.members[index].1, "announced without having"),
            }
        }
    }

    fn send(&mut self, index: usize, priority: u8) {
        let from = ip(u8::try_from(index).unwrap() + 1);
        for other in 0..self.members.len() {
            let heard = self.sides[other] == self.sides[index]
                && self.random.u8(0..100) >= self.loss_percent;
            if other != index && heard {
                let at = self.now + ms(self.random.u64(0..3));
                self.on_the_way.push((at, other, Advert { from, priority, interval: INTERVAL }));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += ms(1);
            for index in 0..self.members.len() {
                while self.members[index].0.deadline().is_some_and(|at| at <= self.now) {
                    self.apply(index, Event::Timer);
                }
            }
            let now = self.now;
            let due: Vec<_> = self.on_the_way.extract_if(.., |(at, ..)| *at <= now).collect();
            for (_, to, advert) in due {
                self.apply(to, Event::Heard(advert));
            }
        }
    }

    fn holders(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|index| self.members[*index].1).collect()
    }
}

#[test]
fn whatever_happens_in_the_end_there_is_one() {
    for seed in 0..300 {
        let mut segment = Segment::new(seed, 3);
        for _ in 0..6 {
            match segment.random.u8(0..5) {
                0 => segment.loss_percent = segment.random.u8(0..60),
                1 => segment.sides = (0..3).map(|_| segment.random.u8(0..2)).collect(),
                2 => {
                    let index = segment.random.usize(0..3);
                    segment.apply(index, Event::Stop);
                    segment.run(ms(500));
                    segment.apply(index, Event::Start(ip(u8::try_from(index).unwrap() + 1)));
                }
                3 => {
                    let index = segment.random.usize(0..3);
                    let priority = [10, 100, 150][segment.random.usize(0..3)];
                    segment.apply(index, Event::Priority(priority));
                }
                _ => {}
            }
            let time = ms(segment.random.u64(100..3000));
            segment.run(time);
        }
        (segment.loss_percent, segment.sides) = (0, vec![0; 3]);
        // A patient one may wait eight times as long.
        segment.run(Duration::from_secs(8));
        assert_eq!(segment.holders().len(), 1, "seed {seed}");
        let before = segment.holders();
        segment.run(Duration::from_secs(10));
        assert_eq!(segment.holders(), before, "it stays where it is, seed {seed}");
    }
}

#[test]
fn a_segment_that_loses_a_third_of_all_packets_settles() {
    let mut moves = Vec::new();
    for seed in 0..20 {
        let mut segment = Segment::new(seed, 3);
        segment.loss_percent = 35;
        segment.run(Duration::from_secs(2));
        let mut holders = segment.holders();
        let mut count = 0;
        for _ in 0..600 {
            segment.run(ms(100));
            let now = segment.holders();
            count += usize::from(now != holders);
            holders = now;
        }
        moves.push(count);
    }
    // Without patience the median is 14 in this minute.
    moves.sort_unstable();
    assert!(moves[10] <= 4, "{moves:?}");
}
