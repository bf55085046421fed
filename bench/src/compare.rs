//! Ours beside upstream's, from several rounds of the same load in one run: medians, their spread
//! and the ratio that was promised.

use crate::Outcome;
use crate::figures::{Figures, rounded};

/// What is compared, and what ours is to be: theirs times a factor at least or at most.
struct Row {
    figure: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: Goal,
}

enum Goal {
    /// A rate, or a time turned around: at least this many times theirs.
    Faster(f64),
    /// At most this part of theirs.
    Smaller(f64),
}

const fn row(figure: &'static str, what: &'static str, unit: &'static str, goal: Goal) -> Row {
    Row { figure, what, unit, goal }
}

const TIMES: Goal = Goal::Faster(2.0);
const PART: Goal = Goal::Smaller(0.1);
const ROWS: [Row; 12] = [
    row("create_1_rate", "pod creates, one writer", "/s", TIMES),
    row("create_1_p50", "pod create, one writer, p50", "ms", TIMES),
    row("create_16_rate", "pod creates, 16 writers", "/s", TIMES),
    row("create_16_cpu", "CPU of the servers for a pod create, with all that follows", "ms", TIMES),
    row("update_16_rate", "pod updates, 16 writers", "/s", TIMES),
    row("get_rate", "pod gets, one client", "/s", TIMES),
    row("list_1000_p50", "list of 1,000 pods, p50", "ms", TIMES),
    row("fan_out_rate", "events to 100 watchers while 16 writers create", "/s", TIMES),
    row("replay_rate", "100 watchers catching up with 2,000 events", "/s", TIMES),
    row("memory_idle_rss", "memory, idle, RSS", "MiB", PART),
    row("pods_5000_server_rss", "memory, 5,000 pods stored, RSS", "MiB", PART),
    row("after_load_server_rss", "memory after the whole load, RSS", "MiB", PART),
];

/// Prints the table; each side is its rounds' files, with commas between them.
pub fn run(ours: &str, theirs: &str) -> Outcome {
    let open = |files: &str| files.split(',').map(Figures::open).collect::<Outcome<Vec<_>>>();
    let (ours, theirs) = (open(ours)?, open(theirs)?);
    println!("| what | Coracle | upstream | ratio | goal | |");
    println!("|---|---:|---:|---:|---:|---|");
    for row in &ROWS {
        println!("{}", line(row, &values(&ours, row.figure), &values(&theirs, row.figure)));
    }
    Ok(())
}

fn values(rounds: &[Figures], figure: &str) -> Vec<f64> {
    let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.get(figure)).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn line(row: &Row, ours: &[f64], theirs: &[f64]) -> String {
    let (Some(our), Some(their)) = (ours.get(ours.len() / 2), theirs.get(theirs.len() / 2)) else {
        return format!("| {} | not measured | | | | |", row.what);
    };
    let ratio = our / their;
    let (ratio, goal, kept) = match row.goal {
        Goal::Faster(times) => {
            let ratio = if row.unit == "ms" { 1.0 / ratio } else { ratio };
            (ratio, format!(">= {times} times"), ratio >= times)
        }
        Goal::Smaller(part) => (ratio, format!("<= {part} of it"), ratio <= part),
    };
    let verdict = if kept { "pass" } else { "**falls short**" };
    let side = |values: &[f64], median: &f64| {
        let ends = [values.first(), values.last()].map(|v| rounded(*v.unwrap_or(median)));
        format!("{} {} ({}-{})", rounded(*median), row.unit, ends[0], ends[1])
    };
    let (ours, theirs) = (side(ours, our), side(theirs, their));
    format!("| {} | {ours} | {theirs} | {} | {goal} | {verdict} |", row.what, rounded(ratio))
}

#[cfg(test)]
mod tests {
    use super::{PART, TIMES, line, row};

    #[test]
    fn ratios_of_medians_are_judged() {
        let rate = row("r", "rate", "/s", TIMES);
        assert_eq!(
            line(&rate, &[190.0, 200.0, 210.0], &[90.0, 99.0, 120.0]),
            "| rate | 200.0 /s (190.0-210.0) | 99.0 /s (90.0-120.0) | 2.02 | >= 2 times | pass |"
        );
        let time = row("t", "time", "ms", TIMES);
        assert_eq!(
            line(&time, &[6.0], &[9.0]),
            "| time | 6.00 ms (6.00-6.00) | 9.00 ms (9.00-9.00) | 1.50 | >= 2 times | **falls short** |"
        );
        let memory = row("m", "memory", "MiB", PART);
        assert!(line(&memory, &[100.0], &[1000.0]).ends_with("| 0.100 | <= 0.1 of it | pass |"));
        assert_eq!(line(&memory, &[], &[1.0]), "| memory | not measured | | | | |");
    }
}
