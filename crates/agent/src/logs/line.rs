//! Lines of a log file as the shim writes them (the CRI log format):
//! `2026-01-02T03:04:05.678901234Z stdout F text`, `P` for a line that goes on.

use jiff::Timestamp;

/// Which lines, and how they are shown.
#[derive(Clone, Debug, Default)]
pub struct Show {
    /// Only lines not older.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only this stream (`stdout`, `stderr`).
    pub stream: Option<String>,
    /// Most bytes altogether.
    pub limit_bytes: Option<u64>,
}

/// Turns lines of the file into what a reader sees.
pub struct Printer {
    show: Show,
    left: u64,
    mid_line: bool,
}

impl Printer {
    /// Nothing printed yet.
    pub fn new(show: Show) -> Self {
        Printer { left: show.limit_bytes.unwrap_or(u64::MAX), show, mid_line: false }
    }

    /// True when the limit is reached.
    pub fn full(&self) -> bool {
        self.left == 0
    }

    /// Appends what `line` (without its newline) shows to `out`.
    pub fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = Entry::parse(line) else { return };
        let old = match (self.show.since, entry.time.parse::<Timestamp>()) {
            (Some(since), Ok(time)) => time < since,
            _ => false,
        };
        if old || self.show.stream.as_deref().is_some_and(|s| s != entry.stream) {
            return;
        }
        let before = out.len();
        if self.show.timestamps && !self.mid_line {
            out.extend_from_slice(entry.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        if !entry.partial {
            out.push(b'\n');
        }
        self.mid_line = entry.partial;
        let added = (out.len() - before) as u64;
        let kept = added.min(self.left);
        self.left -= kept;
        // `kept` is at most what was added, which fitted in memory.
        out.truncate(before + kept as usize);
    }
}

/// One parsed line.
struct Entry<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut word = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
        let (time, stream, tag) = (word()?, word()?, word()?);
        let partial = tag.split(':').next() == Some("P");
        Some(Entry { time, stream, partial, text: parts.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 4] = [
        "2026-01-01T00:00:00.000000001Z stdout F one",
        "2026-01-01T00:00:01Z stderr P tw",
        "2026-01-01T00:00:02Z stderr F o",
        "garbage",
    ];

    fn show(show: Show) -> String {
        let mut printer = Printer::new(show);
        let mut out = Vec::new();
        LINES.iter().for_each(|line| printer.print(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_reader_sees() {
        assert_eq!(show(Show::default()), "one\ntwo\n");
        let timestamps = Show { timestamps: true, ..Show::default() };
        assert_eq!(
            show(timestamps),
            "2026-01-01T00:00:00.000000001Z one\n2026-01-01T00:00:01Z two\n"
        );
        let stream = Show { stream: Some("stdout".into()), ..Show::default() };
        assert_eq!(show(stream), "one\n");
        let since = Show { since: "2026-01-01T00:00:01Z".parse().ok(), ..Show::default() };
        assert_eq!(show(since), "two\n");
        assert_eq!(show(Show { limit_bytes: Some(5), ..Show::default() }), "one\nt");
    }
}
