//! The log of a process that has nowhere to write: lines go to whoever is connected to it.

use std::io;

use net::dns::{Level, Report};
use tokio::sync::mpsc;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Makes a report of each event.
pub struct Reporter(pub mpsc::Sender<Report>);

/// A report that is being written; it goes when it is dropped, or is lost where too many wait.
pub struct Line {
    level: Level,
    text: Vec<u8>,
    to: mpsc::Sender<Report>,
}

impl Reporter {
    fn line(&self, level: Level) -> Line {
        Line { level, text: Vec::new(), to: self.0.clone() }
    }
}

impl<'a> MakeWriter<'a> for Reporter {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        self.line(Level::Info)
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        let level = match *event.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        };
        self.line(level)
    }
}

impl io::Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text).trim().to_owned();
        if !text.is_empty() {
            let _ = self.to.try_send(Report { level: self.level, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_reports_and_too_many_are_lost() {
        let (report, mut reports) = mpsc::channel(2);
        let log = tracing_subscriber::fmt()
            .with_writer(Reporter(report))
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(path = "x", "cannot read");
            tracing::info!("well");
            tracing::info!("lost");
        });
        let text = |level, text: &str| Some(Report { level, text: text.to_owned() });
        assert_eq!(reports.blocking_recv(), text(Level::Warn, "cannot read path=\"x\""));
        assert_eq!(reports.blocking_recv(), text(Level::Info, "well"));
        assert_eq!(reports.blocking_recv(), None);
    }
}
