use serde_json::{Value, json};

use super::Verdict;

/// One line a verdict, boards and subjects in columns.
pub fn table(verdicts: &[Verdict]) -> String {
    let width = |of: fn(&Verdict) -> &str| {
        verdicts.iter().map(|v| of(v).chars().count()).max().unwrap_or(0)
    };
    let boards = width(|verdict| &verdict.board);
    let subjects = width(|verdict| verdict.subject);
    let mut text = String::new();
    for verdict in verdicts {
        let Verdict { board, subject, level, what, next } = verdict;
        let level = level.name();
        text.push_str(&format!("{board:boards$}  {level:4}  {subject:subjects$}  {what}"));
        if !next.is_empty() {
            text.push_str(&format!(" -> {next}"));
        }
        text.push('\n');
    }
    text
}

/// The same for programs.
pub fn json(verdicts: &[Verdict]) -> Value {
    let one = |verdict: &Verdict| {
        json!({
            "board": verdict.board,
            "subject": verdict.subject,
            "level": verdict.level.name().to_lowercase(),
            "what": verdict.what,
            "next": verdict.next,
        })
    };
    verdicts.iter().map(one).collect()
}
