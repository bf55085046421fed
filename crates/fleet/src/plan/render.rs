//! Text and Markdown of the same sections.

/// A part of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Lines below it.
    pub lines: Vec<String>,
    /// A table below them; the first row is its head.
    pub table: Vec<Vec<String>>,
    /// Lines below the table.
    pub notes: Vec<String>,
}

/// How sections are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For terminals.
    Text,
    /// For a README or an issue.
    Markdown,
}

impl Section {
    pub(super) fn new(title: &str) -> Section {
        Section { title: title.into(), lines: Vec::new(), table: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.push(cells.into());
    }
}

/// How wide lines of text are.
const WIDTH_COLUMNS: usize = 100;

/// Writes sections one below the other.
pub(super) fn render(sections: &[Section], style: Style) -> String {
    let written: Vec<String> = sections.iter().map(|section| one(section, style)).collect();
    written.join("\n")
}

fn one(section: &Section, style: Style) -> String {
    let mut blocks: Vec<String> = vec![match style {
        Style::Text => format!("{}\n", section.title.to_uppercase()),
        Style::Markdown => format!("## {}\n", section.title),
    }];
    let lines = |list: &[String]| match style {
        Style::Text => list.iter().map(|line| wrapped(line)).collect::<String>(),
        Style::Markdown => list.iter().map(|line| format!("- {line}\n")).collect(),
    };
    let table = match style {
        Style::Text => columns(&section.table),
        Style::Markdown => pipes(&section.table),
    };
    blocks.extend([lines(&section.lines), table, lines(&section.notes)]);
    let gap = if style == Style::Markdown { "\n" } else { "" };
    blocks.retain(|block| !block.is_empty());
    blocks.join(gap)
}

/// A line within the width of a terminal; what does not fit goes on below, further in.
fn wrapped(line: &str) -> String {
    let mut written = String::new();
    let mut length = 0;
    for word in line.split(' ') {
        let width = word.chars().count();
        let (gap, start) = match length {
            0 => ("  ", 2),
            _ if length + 1 + width > WIDTH_COLUMNS => ("\n    ", 4),
            _ => (" ", length + 1),
        };
        written += gap;
        written += word;
        length = start + width;
    }
    written + "\n"
}

fn columns(table: &[Vec<String>]) -> String {
    let count = table.first().map_or(0, Vec::len);
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let row = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("  {cell:<width$}"));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    table.iter().map(row).collect()
}

fn pipes(table: &[Vec<String>]) -> String {
    let row = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rule = |head: &Vec<String>| format!("|{}\n", "---|".repeat(head.len()));
    match table.split_first() {
        Some((head, rows)) => row(head) + &rule(head) + &rows.iter().map(row).collect::<String>(),
        None => String::new(),
    }
}
