//! Where audit events go, in batches, by a thread of its own: a file of lines of JSON, turned over
//! by size and kept within limits, so that a card is neither filled nor worn, or another server,
//! which gets them as lists.
//!
//! Names of files that were turned over are those that upstream's rotation gives them
//! (NAME-TIME.ENDING, the time in UTC).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use store::Store;
use tokio::sync::mpsc;

use crate::webhook::remote::{Remote, RemoteConfig};

/// Events that wait for the writer.
const BUFFER_EVENTS: usize = 4096;
/// Bytes of events that wait for the writer.
const BUFFER_BYTES: u64 = 16 << 20;
/// Events in one write.
const BATCH_EVENTS: usize = 400;
/// How often another server is asked to take a batch.
const ATTEMPTS: u32 = 5;
/// The pause before it is asked again.
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
const DAY: Duration = Duration::from_secs(86_400);
/// Ending of a time in the name of a file that was turned over.
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// Where events go, and how much of them is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// Size in megabytes at which it is turned over.
    pub max_megabytes: u64,
    /// Days for which files that were turned over are kept; 0 is for ever.
    pub max_age_days: u64,
    /// How many of them are kept; 0 is all.
    pub max_backups: usize,
    /// Whether requests wait while too many events do; else such events are lost and counted.
    pub blocking: bool,
    /// How long events are gathered before they are written.
    pub gather: Duration,
}

/// Another server that gets the events.
#[derive(Clone, Debug)]
pub struct EventServerOptions {
    /// The server.
    pub remote: RemoteConfig,
    /// Whether requests wait while too many events do.
    pub blocking: bool,
    /// How long events are gathered before they are sent.
    pub gather: Duration,
}

/// The entry to the writer.
pub(super) struct Log {
    sender: mpsc::Sender<String>,
    waiting: Arc<AtomicU64>,
    blocking: bool,
    /// Events that were lost: too many at once, or a file that cannot be written.
    pub lost: Arc<AtomicU64>,
}

impl Log {
    /// Opens the file and starts the writer.
    pub(super) fn open(options: LogOptions) -> io::Result<Log> {
        Self::start(Output::open(&options)?, options.gather, options.blocking)
    }

    /// Starts sending to another server.
    pub(super) fn send(options: &EventServerOptions, store: &Store) -> io::Result<Log> {
        let remote = Remote::new(&options.remote, store).map_err(io::Error::other)?;
        Self::start(Output::Server(Box::new(remote)), options.gather, options.blocking)
    }

    fn start(output: Output, gather: Duration, blocking: bool) -> io::Result<Log> {
        let (sender, receiver) = mpsc::channel(BUFFER_EVENTS);
        let (waiting, lost) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let writer = Writer {
            receiver,
            output,
            waiting: Arc::clone(&waiting),
            lost: Arc::clone(&lost),
            gather,
        };
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(|| writer.run())?;
        Ok(Log { sender, waiting, blocking, lost })
    }

    /// Hands an event over; waits for room where it must not be lost.
    pub(super) async fn write(&self, event: String) {
        let bytes = event.len() as u64;
        if self.blocking {
            self.waiting.fetch_add(bytes, Ordering::Relaxed);
            if self.sender.send(event).await.is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.write_now(event);
        }
    }

    /// Hands an event over, or loses it where there is no room.
    pub(super) fn write_now(&self, event: String) {
        let bytes = event.len() as u64;
        let room = self.waiting.load(Ordering::Relaxed) + bytes <= BUFFER_BYTES;
        if room && self.sender.try_send(event).is_ok() {
            self.waiting.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    receiver: mpsc::Receiver<String>,
    output: Output,
    waiting: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    gather: Duration,
}

impl Writer {
    /// Ends when nobody can send any more.
    fn run(mut self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        loop {
            let mut batch = Vec::with_capacity(BATCH_EVENTS);
            let open = runtime.block_on(self.gather(&mut batch));
            let bytes: usize = batch.iter().map(String::len).sum();
            let written = match &mut self.output {
                Output::Server(remote) => runtime.block_on(hand_over(remote, &batch)),
                file => file.write(&batch),
            };
            if let Err(error) = written {
                tracing::error!(%error, "writing the audit log");
                self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            let written = bytes as u64;
            let less = |waiting: u64| Some(waiting.saturating_sub(written));
            // It cannot fail: there is always a next value.
            let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            if !open {
                return;
            }
        }
    }

    /// Waits for an event, and for those that follow within a moment. False at the end.
    async fn gather(&mut self, batch: &mut Vec<String>) -> bool {
        if self.receiver.recv_many(batch, BATCH_EVENTS).await == 0 {
            return false;
        }
        let more = async {
            while batch.len() < BATCH_EVENTS {
                match self.receiver.recv().await {
                    Some(event) => batch.push(event),
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(self.gather, more).await.unwrap_or(true)
    }
}

enum Output {
    Stdout,
    File { options: LogOptions, file: File, bytes: u64 },
    Server(Box<Remote>),
}

/// Sends events to another server, several times where it does not take them.
async fn hand_over(remote: &Remote, batch: &[String]) -> io::Result<()> {
    let items = batch.concat().trim_end().replace('\n', ",");
    // Events are JSON, each on a line: a list of them is made without reading them.
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#
    );
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        tokio::time::sleep(RETRY.jittered(attempt)).await;
        match remote.post(list.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(io::Error::other(last))
}

impl Output {
    fn open(options: &LogOptions) -> io::Result<Output> {
        if options.path == Path::new("-") {
            return Ok(Output::Stdout);
        }
        let file = append(&options.path)?;
        let bytes = file.metadata()?.len();
        Ok(Output::File { options: options.clone(), file, bytes })
    }

    fn write(&mut self, batch: &[String]) -> io::Result<()> {
        let text: String = batch.concat();
        match self {
            // It is sent to by whoever can wait.
            Output::Server(_) => Ok(()),
            Output::Stdout => io::stdout().lock().write_all(text.as_bytes()),
            Output::File { options, file, bytes } => {
                let limit = options.max_megabytes << 20;
                if *bytes > 0 && *bytes + text.len() as u64 > limit {
                    turn_over(options)?;
                    (*file, *bytes) = (append(&options.path)?, 0);
                }
                file.write_all(text.as_bytes())?;
                *bytes += text.len() as u64;
                Ok(())
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Request bodies may hold secrets.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Puts the file aside under the time, and removes those that are too many or too old.
fn turn_over(options: &LogOptions) -> io::Result<()> {
    let now = Timestamp::now().strftime(TIME).to_string();
    let (stem, ending) = parts(&options.path);
    fs::rename(&options.path, options.path.with_file_name(format!("{stem}-{now}{ending}")))?;
    for path in surplus(options, SystemTime::now())? {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// The file's name without its ending, and the ending with its dot.
fn parts(path: &Path) -> (String, String) {
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let ending = text(path.extension()).map(|ending| format!(".{ending}"));
    (text(path.file_stem()).unwrap_or_default(), ending.unwrap_or_default())
}

/// The files that were turned over and are not to be kept.
fn surplus(options: &LogOptions, now: SystemTime) -> io::Result<Vec<PathBuf>> {
    let (stem, ending) = parts(&options.path);
    let folder = options.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut backups: Vec<(PathBuf, SystemTime)> = Vec::new();
    for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let inner = name.strip_prefix(&format!("{stem}-")).and_then(|n| n.strip_suffix(&ending));
        if inner.is_some_and(|time| time.len() == "2026-01-01T00-00-00.000".len()) {
            backups.push((entry.path(), entry.metadata()?.modified()?));
        }
    }
    // The newest first: times in names sort as texts.
    backups.sort_by(|(a, _), (b, _)| b.cmp(a));
    let kept = if options.max_backups == 0 { usize::MAX } else { options.max_backups };
    let oldest = match options.max_age_days {
        0 => None,
        days => now.checked_sub(DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))),
    };
    let gone = backups.into_iter().enumerate().filter(|(index, (_, modified))| {
        *index >= kept || oldest.is_some_and(|oldest| *modified < oldest)
    });
    Ok(gone.map(|(_, (path, _))| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &Path) -> LogOptions {
        LogOptions {
            path: folder.join("audit.log"),
            max_megabytes: 1,
            max_age_days: 0,
            max_backups: 2,
            blocking: true,
            gather: Duration::from_millis(1),
        }
    }

    #[test]
    fn a_full_file_is_turned_over_and_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = Output::open(&options(folder.path())).unwrap();
        let line = format!("{}\n", "x".repeat(700 << 10));
        for _ in 0..5 {
            let before = fs::read_dir(folder.path()).unwrap().count();
            output.write(std::slice::from_ref(&line)).unwrap();
            // Names differ by the millisecond.
            let until = std::time::Instant::now() + Duration::from_millis(2);
            while before > 0 && std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-20") && names[2] == "audit.log", "{names:?}");
        let mut old = options(folder.path());
        old.max_age_days = 1;
        let tomorrow = SystemTime::now() + DAY * 2;
        assert_eq!(surplus(&old, tomorrow).unwrap().len(), 2);
    }

    #[tokio::test]
    async fn events_are_written_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(options(folder.path())).unwrap();
        for number in 0..1000 {
            log.write(format!("{number}\n")).await;
        }
        let wanted: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let path = folder.path().join("audit.log");
        crate::testing::until("all are there", async || {
            fs::read_to_string(&path).unwrap() == wanted
        })
        .await;
        assert_eq!(log.lost.load(Ordering::Relaxed), 0);
    }
}
