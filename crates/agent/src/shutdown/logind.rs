//! logind's side over D-Bus: a lock that delays a shutdown, and the signal that one has begun.

use std::time::Duration;

use futures::StreamExt;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedFd};

/// How long the bus may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max_usec(&self) -> zbus::Result<u64>;

    #[zbus(signal)]
    fn prepare_for_shutdown(&self, start: bool) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
}

/// What logind says.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The machine is to go off as soon as the lock is released.
    GoingDown,
    /// It stays on after all.
    Cancelled,
    /// The bus is gone.
    Broken,
}

/// The connection to logind, with the lock while it is held.
pub struct Logind {
    login: LoginProxy<'static>,
    signals: PrepareForShutdownStream,
    /// Closing it lets the machine go off.
    lock: Option<OwnedFd>,
}

impl Logind {
    /// Takes the lock; none where there is no logind.
    pub async fn connect(grace: Duration) -> Option<Logind> {
        Self::over(Connection::system(), grace).await
    }

    async fn over(
        connection: impl Future<Output = zbus::Result<Connection>>,
        grace: Duration,
    ) -> Option<Logind> {
        let connecting = async {
            let connection = connection.await?;
            let login = LoginProxy::builder(&connection)
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            // First the ears, then the lock: what is said in between is heard.
            let signals = login.receive_prepare_for_shutdown().await?;
            let lock = take(&login).await?;
            let limit = login.inhibit_delay_max_usec().await.ok();
            zbus::Result::Ok((Logind { login, signals, lock: Some(lock) }, limit))
        };
        match tokio::time::timeout(ANSWER, connecting).await {
            Ok(Ok((logind, limit))) => {
                warn_of_limit(limit.map(Duration::from_micros), grace);
                Some(logind)
            }
            Ok(Err(error)) => {
                tracing::debug!(error = %base::chain(&error), "no logind: pods do not delay a shutdown");
                None
            }
            Err(_) => {
                tracing::debug!("logind does not answer: pods do not delay a shutdown");
                None
            }
        }
    }

    /// What is heard next.
    pub async fn next(&mut self) -> Heard {
        let Some(signal) = self.signals.next().await else { return Heard::Broken };
        match signal.args() {
            Ok(args) if args.start => Heard::GoingDown,
            Ok(_) => Heard::Cancelled,
            Err(error) => {
                tracing::debug!(%error, "logind's signal is not understood");
                Heard::Broken
            }
        }
    }

    /// Lets the machine go off.
    pub fn release(&mut self) {
        self.lock = None;
    }

    /// Takes the lock again.
    pub async fn hold(&mut self) {
        match take(&self.login).await {
            Ok(lock) => self.lock = Some(lock),
            Err(error) => {
                tracing::warn!(error = %base::chain(&error), "logind gives no lock: pods do not delay a shutdown");
            }
        }
    }
}

async fn take(login: &LoginProxy<'_>) -> zbus::Result<OwnedFd> {
    login.inhibit("shutdown", "coracle", "Pods are ended first", "delay").await
}

/// logind waits no longer than its own limit, five seconds unless it is told otherwise.
fn warn_of_limit(limit: Option<Duration>, grace: Duration) {
    if let Some(limit) = limit.filter(|limit| *limit < grace) {
        tracing::warn!(
            "logind waits {} s for pods at a shutdown, not {} s: set InhibitDelayMaxSec={} in \
             /etc/systemd/logind.conf.d/coracle.conf and restart systemd-logind",
            limit.as_secs(),
            grace.as_secs(),
            grace.as_secs()
        );
    }
}

/// Whether systemd is stopping the whole machine; no where there is no systemd.
pub async fn going_down() -> bool {
    is_stopping(Connection::system()).await
}

async fn is_stopping(connection: impl Future<Output = zbus::Result<Connection>>) -> bool {
    let asking = async {
        let connection = connection.await?;
        let systemd = SystemdProxy::builder(&connection).cache_properties(CacheProperties::No);
        systemd.build().await?.system_state().await
    };
    matches!(tokio::time::timeout(ANSWER, asking).await, Ok(Ok(state)) if state == "stopping")
}

#[cfg(test)]
#[path = "logind_tests.rs"]
mod tests;
