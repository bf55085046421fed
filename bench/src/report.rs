//! Figures beside promises, as a Markdown table.

use std::fs;

use crate::Outcome;
use crate::figures::{Figures, rounded};

/// Prints the table. A line of the promises' file is `figure | what | relation and bound, or
/// nothing | unit | upstream`; figures that were not measured are said to be so.
pub fn run(figures: &Figures, promises: &str) -> Outcome {
    println!("| what | measured | promise | ratio | | upstream, measured |");
    println!("|---|---:|---:|---:|---|---|");
    for line in fs::read_to_string(promises)?.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [figure, what, bound, unit, upstream] = columns.as_slice() else {
            return Err(format!("{promises}: a line has not five columns: {line}").into());
        };
        println!("{}", row(figures.get(figure), what, bound, unit, upstream)?);
    }
    Ok(())
}

fn row(
    figure: Option<f64>,
    what: &str,
    bound: &str,
    unit: &str,
    upstream: &str,
) -> Outcome<String> {
    let Some(figure) = figure else {
        return Ok(format!("| {what} | not measured | {bound} {unit} | | | {upstream} |"));
    };
    let measured = format!("{} {unit}", rounded(figure));
    let Some((relation, limit)) = bound.split_once(' ') else {
        return Ok(format!("| {what} | {measured} | | | | {upstream} |"));
    };
    let limit: f64 = limit.parse()?;
    let kept = match relation {
        "<=" => figure <= limit,
        ">=" => figure >= limit,
        other => return Err(format!("{what}: {other} is neither <= nor >=").into()),
    };
    let verdict = if kept { "pass" } else { "**falls short**" };
    let ratio = rounded(figure / limit);
    Ok(format!("| {what} | {measured} | {bound} {unit} | {ratio} | {verdict} | {upstream} |"))
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn a_figure_is_judged_by_its_promise() {
        let line = |figure, bound| row(figure, "memory", bound, "MiB", "410").unwrap();
        assert_eq!(
            line(Some(32.0), "<= 64"),
            "| memory | 32.0 MiB | <= 64 MiB | 0.500 | pass | 410 |"
        );
        assert_eq!(
            line(Some(96.0), "<= 64"),
            "| memory | 96.0 MiB | <= 64 MiB | 1.50 | **falls short** | 410 |"
        );
        assert_eq!(line(Some(7.0), ""), "| memory | 7.00 MiB | | | | 410 |");
        assert_eq!(line(None, "<= 64"), "| memory | not measured | <= 64 MiB | | | 410 |");
        assert!(row(Some(1.0), "memory", "< 64", "MiB", "").is_err());
    }
}
