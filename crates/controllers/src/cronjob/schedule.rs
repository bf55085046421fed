//! Cron schedules: five fields, names, ranges, steps, `@daily` and its like, `@every 90m`.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// How far ahead a match is looked for. 29 February of a leap year is at most eight years off.
const MAX_DAYS_AHEAD: usize = 366 * 8 + 2;

/// When something is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// So many seconds after the last time.
    Every(i64),
    /// At these minutes.
    At(Minutes),
}

impl Schedule {
    /// Parses a schedule; none where it is not one.
    pub fn parse(text: &str) -> Option<Schedule> {
        let Some(pause) = text.trim().strip_prefix("@every ") else {
            return Minutes::parse(text).map(Schedule::At);
        };
        let pause: SignedDuration = pause.trim().parse().ok()?;
        Some(Schedule::Every(pause.as_secs().max(1)))
    }

    /// The first time after `after`; none: never.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(pause) => {
                Timestamp::from_second(after.as_second().checked_add(*pause)?).ok()
            }
            Schedule::At(minutes) => minutes.next(after, zone),
        }
    }

    /// The last time after `after` that is not later than `now`.
    pub fn last(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(pause) => {
                let times = (now.as_second() - after.as_second()) / pause;
                let last = after.as_second() + times * pause;
                (times > 0).then_some(last).and_then(|at| Timestamp::from_second(at).ok())
            }
            Schedule::At(minutes) => minutes.last(after, now, zone),
        }
    }
}

/// The minutes at which something is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Minutes {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day of month and day of week both restrict: either may match (as every cron has it).
    either_day: bool,
}

const MONTHS: &[&str] =
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Minutes {
    fn parse(text: &str) -> Option<Minutes> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else { return None };
        let restricts = |field: &str| !field.starts_with(['*', '?']);
        let seven = field(weekdays, 0, 7, WEEKDAYS, 0)?;
        Some(Minutes {
            minutes: field(minutes, 0, 59, &[], 0)?,
            hours: field(hours, 0, 23, &[], 0)?,
            days: field(days, 1, 31, &[], 0)?,
            months: field(months, 1, 12, MONTHS, 1)?,
            // Sunday is 0 and 7.
            weekdays: (seven | (seven >> 7)) & 0x7f,
            either_day: restricts(days) && restricts(weekdays),
        })
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = after.to_zoned(zone.clone()).datetime();
        let mut date = start.date();
        for day in 0..MAX_DAYS_AHEAD {
            if self.has_date(date) {
                let from = if day == 0 { start.time() } else { Time::midnight() };
                let due = self.times(from).find_map(|time| {
                    let due = date.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp();
                    (due > after).then_some(due)
                });
                if due.is_some() {
                    return due;
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn last(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // Going back in growing steps finds it without walking through years of minutes.
        let mut step = 1_i64;
        loop {
            let from = Timestamp::from_second(now.as_second() - step).ok()?.max(after);
            let mut found = self.next(from, zone).filter(|at| *at <= now);
            while let Some(next) = found.and_then(|at| self.next(at, zone)).filter(|n| *n <= now) {
                found = Some(next);
            }
            if found.is_some() || from == after {
                return found;
            }
            step = step.saturating_mul(4);
        }
    }

    fn has_date(&self, date: Date) -> bool {
        let bit = |set: u64, at: i8| set & (1 << at) != 0;
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.either_day { day || weekday } else { day && weekday };
        fits && bit(self.months, date.month())
    }

    /// The matching times of a day from the minute of `from` on.
    fn times(&self, from: Time) -> impl Iterator<Item = Time> {
        let (hours, minutes) = (self.hours, self.minutes);
        let set = |bits: u64, most: i8| (0..=most).filter(move |n| bits & (1 << n) != 0);
        set(hours, 23)
            .flat_map(move |hour| set(minutes, 59).map(move |minute| (hour, minute)))
            .filter(move |(hour, minute)| (*hour, *minute) >= (from.hour(), from.minute()))
            .filter_map(|(hour, minute)| Time::new(hour, minute, 0, 0).ok())
    }
}

/// A field as a set of bits; `names` stand for the numbers from `first_name` on.
fn field(text: &str, least: u32, most: u32, names: &[&str], first_name: u32) -> Option<u64> {
    let number = |text: &str| {
        let name = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match name.and_then(|at| u32::try_from(at).ok()) {
            Some(at) => Some(at + first_name),
            None => text.parse().ok(),
        }
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|s| *s > 0)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (least, if most == 7 { 6 } else { most }),
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(range)?, if step.is_some() { most } else { number(range)? }),
        };
        if from < least || to > most || from > to {
            return None;
        }
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        bits |= (from..=to).step_by(step).fold(0_u64, |bits, at| bits | (1 << at));
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn next(schedule: &str, after: &str, expected: &str) {
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let next = schedule.next(after.parse().expect("a time"), &TimeZone::UTC);
        assert_eq!(next.map(|at| at.to_string()).as_deref(), Some(expected));
    }

    #[test]
    fn next_times() {
        next("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z");
        next("0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z");
        next("30 6 * * mon-fri", "2026-01-03T00:00:00Z", "2026-01-05T06:30:00Z");
        next("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        next("0 0 13 * 5", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        next("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
        next("@every 1h30m", "2026-01-01T00:10:00Z", "2026-01-01T01:40:00Z");
        next("@monthly", "2026-01-15T00:00:00Z", "2026-02-01T00:00:00Z");
        next("5/20 1 * jan,JUL *", "2026-02-01T00:00:00Z", "2026-07-01T01:05:00Z");
    }

    #[test]
    fn the_last_missed_time() {
        let schedule = Schedule::parse("0 * * * *").expect("a schedule");
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let last = |after, now| schedule.last(at(after), at(now), &TimeZone::UTC);
        assert_eq!(
            last("2020-01-01T00:00:00Z", "2026-01-01T12:30:00Z"),
            Some(at("2026-01-01T12:00:00Z"))
        );
        assert_eq!(last("2026-01-01T12:00:00Z", "2026-01-01T12:30:00Z"), None);
        let schedule = Schedule::parse("@every 7m").expect("a schedule");
        let last = |now| schedule.last(at("2026-01-01T12:00:10Z"), at(now), &TimeZone::UTC);
        assert_eq!(last("2026-01-01T12:30:00Z"), Some(at("2026-01-01T12:28:10Z")));
        assert_eq!(last("2026-01-01T12:07:09Z"), None);
    }

    #[test]
    fn nonsense() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "x * * * *",
            "@every x",
        ] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
    }
}
