use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

/// Something that happens on a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// It begins with a step, the `number`th of `total`.
    Begins {
        /// What it is.
        what: &'a str,
        /// Which one, from 1.
        number: usize,
        /// Of how many.
        total: usize,
    },
    /// The step is done.
    Done {
        /// What it was.
        what: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// Nothing is left to do there.
    Finished,
    /// It failed, with the reason.
    Failed(&'a str),
}

/// Who is told of what happens.
pub trait Progress: Sync {
    /// Tells it.
    fn tell(&self, board: &str, event: &Event);
}

/// A line a step, for logs and pipes.
pub struct Lines;

impl Progress for Lines {
    fn tell(&self, board: &str, event: &Event) {
        // A reader that has left does not stop the boards.
        let mut out = std::io::stdout().lock();
        let _ = match event {
            Event::Begins { .. } => Ok(()),
            Event::Done { what, took } => {
                writeln!(out, "{board}: {what} ({:.1} s)", took.as_secs_f64())
            }
            Event::Finished => writeln!(out, "{board}: done"),
            Event::Failed(why) => writeln!(out, "{board}: FAILED: {why}"),
        };
    }
}

/// A line a board that follows what happens there, on a terminal.
pub struct Live {
    width: usize,
    rows: Mutex<Vec<(String, String)>>,
}

impl Live {
    /// A row for each board, no wider than the terminal.
    pub fn new<'a>(boards: impl Iterator<Item = &'a str>, width: usize) -> Self {
        let rows: Vec<_> = boards.map(|name| (name.to_owned(), "waits".to_owned())).collect();
        let live = Self { width, rows: Mutex::new(rows) };
        live.draw(0);
        live
    }

    fn draw(&self, up: usize) {
        let rows = self.rows.lock().unwrap_or_else(|error| error.into_inner());
        let _ = std::io::stdout().lock().write_all(frame(&rows, self.width, up).as_bytes());
        let _ = std::io::stdout().flush();
    }
}

/// The rows, over those of before.
fn frame(rows: &[(String, String)], width: usize, up: usize) -> String {
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = if up > 0 { format!("\x1b[{up}A") } else { String::new() };
    for (name, state) in rows {
        let line: String = format!("{name:names$}  {state}").chars().take(width).collect();
        text.push_str(&format!("\x1b[2K{line}\n"));
    }
    text
}

impl Progress for Live {
    fn tell(&self, board: &str, event: &Event) {
        let state = match event {
            Event::Begins { what, number, total } => format!("[{number}/{total}] {what}"),
            Event::Done { .. } => return,
            Event::Finished => "done".to_owned(),
            Event::Failed(why) => format!("FAILED: {why}"),
        };
        let count = {
            let mut rows = self.rows.lock().unwrap_or_else(|error| error.into_inner());
            if let Some(row) = rows.iter_mut().find(|(name, _)| name == board) {
                row.1 = state;
            }
            rows.len()
        };
        self.draw(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_over_those_of_before_and_cut_at_the_edge() {
        let rows =
            [("a".to_owned(), "waits".to_owned()), ("bcd".to_owned(), "0123456789".to_owned())];
        assert_eq!(frame(&rows, 9, 2), "\x1b[2A\x1b[2Ka    wait\n\x1b[2Kbcd  0123\n");
    }
}
