//! The side that knows the names: finds the process that answers, or starts one, tells it the
//! names whenever they change, and starts another when it is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::DnsConfig;
use super::protocol::{
    ANSWER_PATIENCE, Begin, Level, Names, Reply, Report, Request, ask, fingerprint, kill_peer,
};
use super::wire::Wire;

/// How long a new holder may take to have its sockets, on a board that has much else to do.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a holder that ended again and again is started anew, doubling.
const RESTART: base::Backoff =
    base::Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
/// A holder that lived this long did not fail at its start.
const LIVED: Duration = Duration::from_secs(60);

/// Starts a process that calls [`super::hold`] with this end of a connection, and that outlives
/// its starter.
pub type Launch = Arc<dyn Fn(OwnedFd, Others) -> io::Result<()> + Send + Sync>;

/// Who else there is when a holder is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Another answers, and leaves when the new one is ready.
    Answering,
    /// None can be reached: one that is left over for whatever reason is of no use.
    Unreachable,
}

/// What a keeper has to know.
#[derive(Clone)]
pub struct KeeperConfig {
    /// How the process is to answer.
    pub dns: DnsConfig,
    /// Where it is found: a Unix socket in a folder that a reboot empties.
    pub socket: PathBuf,
    /// What the process is made of. One of another release is replaced.
    pub release: String,
    /// How one is started.
    pub launch: Launch,
}

/// Why there is no process that answers.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// It could not be started, or the connection to it broke.
    #[error("starting the process that answers for cluster DNS")]
    Start(#[from] io::Error),
    /// It says why.
    #[error("{0}")]
    Failed(String),
}

/// Keeps a process answering from the names that were told last.
///
/// Dropping it leaves the process as it is: that is what it is for.
pub struct Keeper {
    names: watch::Sender<Option<Arc<Names>>>,
}

impl Keeper {
    /// Finds the process or starts it. One that runs already goes on with the names it has until
    /// the first [`Keeper::update`]; a new one is silent until then.
    pub async fn open(config: KeeperConfig) -> Result<Self, KeeperError> {
        let wire = session(&config).await?;
        let (tell, names) = watch::channel(None);
        tokio::spawn(Feeder { config, names }.run(wire));
        Ok(Self { names: tell })
    }

    /// Has it answer from these names from now on.
    pub fn update(&self, names: Arc<Names>) {
        self.names.send_replace(Some(names));
    }
}

/// A connection to a holder as it should be, which may be a new one that waits for names.
async fn session(config: &KeeperConfig) -> Result<Wire, KeeperError> {
    let fingerprint = fingerprint(&config.release, &config.dns);
    let others = match greet(&config.socket, &fingerprint).await {
        Greeting::Ours(wire) => return Ok(wire),
        Greeting::Another => Others::Answering,
        Greeting::Nobody => Others::Unreachable,
    };
    let (mut wire, theirs) = Wire::pair()?;
    (config.launch)(theirs, others)?;
    let begin = Begin { fingerprint, config: config.dns.clone(), socket: config.socket.clone() };
    wire.send(&Request::Begin(Box::new(begin)), &[]).await?;
    let said = timeout(START_PATIENCE, wire.receive()).await.map_err(io::Error::from)??;
    match said {
        Some((Reply::Ready {}, _)) => Ok(wire),
        Some((Reply::Failed { reason }, _)) => Err(KeeperError::Failed(reason)),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Who is there.
enum Greeting {
    /// Exactly what we would start.
    Ours(Wire),
    /// One of another release or configuration, or one that we do not understand.
    Another,
    Nobody,
}

async fn greet(socket: &Path, fingerprint: &str) -> Greeting {
    let Ok(mut wire) = Wire::connect(socket).await else { return Greeting::Nobody };
    match ask(&mut wire, &Request::Hello {}).await {
        Ok((Reply::Me { fingerprint: theirs }, _)) if theirs == fingerprint => Greeting::Ours(wire),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            tracing::warn!("the process that answers for cluster DNS is stuck and is killed");
            kill_peer(&wire);
            Greeting::Nobody
        }
        Ok(_) => Greeting::Another,
        // It was on its way out.
        Err(_) => Greeting::Nobody,
    }
}

/// Why a holder is told no more.
enum End {
    /// The keeper is gone.
    Keeper,
    /// The holder is.
    Holder,
}

struct Feeder {
    config: KeeperConfig,
    names: watch::Receiver<Option<Arc<Names>>>,
}

impl Feeder {
    async fn run(mut self, mut wire: Wire) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            if let End::Keeper = self.feed(&mut wire).await {
                return;
            }
            tracing::warn!("the process that answers for cluster DNS ended: starting it anew");
            failures = if began.elapsed() > LIVED { 0 } else { failures + 1 };
            wire = loop {
                // The first time at once: names are asked for right now.
                if failures > 1 && !self.pause(failures - 1).await {
                    return;
                }
                match session(&self.config).await {
                    Ok(wire) => break wire,
                    Err(error) => {
                        failures = failures.max(1) + 1;
                        tracing::error!(error = %base::chain(&error), "no cluster DNS");
                    }
                }
            };
        }
    }

    /// Whether it is to go on after the pause.
    async fn pause(&self, failures: u32) -> bool {
        let mut names = self.names.clone();
        let closed = async { while names.changed().await.is_ok() {} };
        tokio::select! {
            () = sleep(RESTART.jittered(failures)) => true,
            () = closed => false,
        }
    }

    /// Tells the names now and whenever they change. Each must be taken in time: a holder that
    /// stands still would answer from old names for ever.
    async fn feed(&mut self, wire: &mut Wire) -> End {
        self.names.mark_changed();
        let mut due: Option<Instant> = None;
        loop {
            let overdue = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.names.changed(), if due.is_none() => {
                    if changed.is_err() {
                        return End::Keeper;
                    }
                    let Some(names) = self.names.borrow_and_update().clone() else { continue };
                    match wire.send(&Request::Names(names), &[]).await {
                        Ok(()) => due = Some(Instant::now() + ANSWER_PATIENCE),
                        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                            tracing::error!(%error, "cluster DNS goes on with old names");
                        }
                        Err(_) => return End::Holder,
                    }
                }
                reply = wire.receive() => match reply {
                    Ok(Some((Reply::Serving {}, _))) => due = None,
                    Ok(Some((Reply::Report(report), _))) => log(&report),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return End::Holder,
                },
                // Greeted again, it will be found out.
                () = overdue => return End::Holder,
            }
        }
    }
}

fn log(Report { level, text }: &Report) {
    match level {
        Level::Error => tracing::error!("{text}"),
        Level::Warn => tracing::warn!("{text}"),
        Level::Info => tracing::info!("{text}"),
        Level::Debug => tracing::debug!("{text}"),
        Level::Trace => tracing::trace!("{text}"),
    }
}
