//! Ages as people read them.

use jiff::Timestamp;
use serde_json::Value;

const MINUTE_SECONDS: i64 = 60;
const HOUR_SECONDS: i64 = 60 * MINUTE_SECONDS;
const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;
const YEAR_SECONDS: i64 = 365 * DAY_SECONDS;

/// A duration in seconds, rounded the way upstream does: two units at most, the smaller one only
/// while it says something.
pub fn human_duration(seconds: i64) -> String {
    let two = |unit: i64, name: char, part: i64, part_name: char| match (
        seconds / unit,
        seconds % unit / part,
    ) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, rest) => format!("{whole}{name}{rest}{part_name}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        s if s < 2 * MINUTE_SECONDS => format!("{s}s"),
        s if s < 10 * MINUTE_SECONDS => two(MINUTE_SECONDS, 'm', 1, 's'),
        s if s < 3 * HOUR_SECONDS => format!("{}m", s / MINUTE_SECONDS),
        s if s < 8 * HOUR_SECONDS => two(HOUR_SECONDS, 'h', MINUTE_SECONDS, 'm'),
        s if s < 2 * DAY_SECONDS => format!("{}h", s / HOUR_SECONDS),
        s if s < 8 * DAY_SECONDS => two(DAY_SECONDS, 'd', HOUR_SECONDS, 'h'),
        s if s < 2 * YEAR_SECONDS => format!("{}d", s / DAY_SECONDS),
        s if s < 8 * YEAR_SECONDS => two(YEAR_SECONDS, 'y', DAY_SECONDS, 'd'),
        s => format!("{}y", s / YEAR_SECONDS),
    }
}

/// The time in a field, if there is one.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// How long ago `from` was at `to`.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    human_duration(to.duration_since(from).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_upstream_does() {
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600, "8h"),
            (48 * 3600 - 1, "47h"),
            (48 * 3600, "2d"),
            (50 * 3600, "2d2h"),
            (8 * 86400, "8d"),
            (2 * 365 * 86400 - 1, "729d"),
            (2 * 365 * 86400, "2y"),
            (2 * 365 * 86400 + 86400, "2y1d"),
            (9 * 365 * 86400, "9y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }
}
