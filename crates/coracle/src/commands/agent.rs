//! `coracle agent`: starts the parts of an agent and ends them in order.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Agent, Common};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::server::{STOP_PATIENCE, ended_early, preflight};
use crate::{join, notify, tls};

/// Runs an agent until SIGTERM or SIGINT, or until a part of it fails.
pub async fn run(common: Common, options: Agent) -> Outcome {
    tls::install_provider();
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new("running pods needs root")).hint(|| "use sudo".into());
    }
    let mut terminate = signal(SignalKind::terminate()).doing(|| "waiting for SIGTERM".into())?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(|| "waiting for SIGINT".into())?;
    preflight::check()?;
    let stop = CancellationToken::new();
    let mut parts = JoinSet::new();
    let outcome = tokio::select! {
        outcome = work(common, options, &mut parts, stop.clone()) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    notify::notify("STOPPING=1");
    stop.cancel();
    let stopped = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, stopped).await.is_err() {
        tracing::warn!("some parts did not stop in time");
        parts.abort_all();
    }
    outcome
}

async fn work(
    common: Common,
    options: Agent,
    parts: &mut JoinSet<Outcome>,
    stop: CancellationToken,
) -> Outcome {
    join::agent::start(common, options, parts, stop).await?;
    notify::notify("READY=1");
    match parts.join_next().await {
        Some(ended) => Err(ended_early(ended)),
        None => Err(Failure::new("the agent has no parts")),
    }
}
