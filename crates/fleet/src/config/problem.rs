use std::fmt;
use std::path::PathBuf;

/// How much of a line is shown.
const LINE_CHARS_MAX: usize = 160;
/// What stands for the rest of it.
const CUT: &str = "...";

/// A place in a file; line 0 is the file as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Spot,
    /// What.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The column from which on its line may hold a secret, which is shown to nobody.
    secret: Option<usize>,
}

impl Problem {
    pub(super) fn new(at: Spot, what: impl Into<String>) -> Self {
        Problem { at, what: what.into(), hint: None, secret: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Has its line end at this column when it is shown.
    pub(super) fn secret_from(mut self, column: usize) -> Self {
        self.secret = Some(column);
        self
    }
}

/// All that is wrong with a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    file: PathBuf,
    list: Vec<Problem>,
    /// The lines that problems are on.
    lines: Vec<(usize, String)>,
}

impl Problems {
    pub(super) fn new(file: impl Into<PathBuf>, text: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.at);
        list.dedup();
        let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
        let lines = lines.filter_map(|(number, line)| {
            let mut on = list.iter().filter(|problem| problem.at.line == number).peekable();
            on.peek()?;
            Some((number, shown(line, on.filter_map(|problem| problem.secret).min())))
        });
        let lines = lines.collect();
        Problems { file: file.into(), list, lines }
    }

    /// The problems.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    fn line(&self, number: usize) -> Option<&str> {
        self.lines.iter().find(|(line, _)| *line == number).map(|(_, text)| text.as_str())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.list.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            let Spot { line, column } = problem.at;
            match line {
                0 => write!(f, "{}: {}", self.file.display(), problem.what)?,
                _ => write!(f, "{}:{line}:{column}: {}", self.file.display(), problem.what)?,
            }
            if let Some(text) = self.line(line) {
                let (text, column) = around(text, column);
                let number = line.to_string();
                let space = " ".repeat(number.len());
                let before: String =
                    text.chars().take(column.saturating_sub(1)).map(blank).collect();
                write!(f, "\n  {number} | {text}\n  {space} | {before}^")?;
            }
            if let Some(hint) = &problem.hint {
                write!(f, "\n  {hint}")?;
            }
        }
        Ok(())
    }
}

/// A line as far as people may see it.
fn shown(line: &str, secret_from: Option<usize>) -> String {
    match secret_from {
        None => line.to_owned(),
        Some(column) => line.chars().take(column - 1).chain("[hidden]".chars()).collect(),
    }
}

/// A long line's part around a column, and where the column is in it.
fn around(line: &str, column: usize) -> (String, usize) {
    let skipped = match line.chars().count() > LINE_CHARS_MAX {
        true => column.saturating_sub(LINE_CHARS_MAX / 2),
        false => 0,
    };
    let mut rest = line.chars().skip(skipped);
    let mut part: String = rest.by_ref().take(LINE_CHARS_MAX).collect();
    if rest.next().is_some() {
        part.push_str(CUT);
    }
    match skipped {
        0 => (part, column),
        _ => (format!("{CUT}{part}"), column - skipped + CUT.len()),
    }
}

/// A tab keeps its width, whatever it is.
fn blank(character: char) -> char {
    if character == '\t' { '\t' } else { ' ' }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_line_what_is_around_the_problem_is_shown() {
        let line = format!("{}x{}", "a".repeat(300), "b".repeat(300));
        for (line, column, begins) in
            [("short", 3, "short"), (&line, 3, "aaa"), (&line, 301, "...a")]
        {
            let (shown, at) = around(line, column);
            assert!(shown.starts_with(begins) && shown.len() <= LINE_CHARS_MAX + 6, "{shown}");
            assert_eq!(shown.chars().nth(at - 1), line.chars().nth(column - 1));
        }
    }
}
