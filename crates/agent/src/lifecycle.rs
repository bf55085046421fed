//! Hooks of a container's life: `postStart` and `preStop`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use runtime::ContainerId;

use crate::context::Context;
use crate::probe::http::{Target, get};
use crate::probe::{port_number, tcp};

/// Runs one hook to its end; the error is what the event says.
pub async fn run(
    ctx: &Context,
    container: &Container,
    id: &ContainerId,
    hook: &LifecycleHandler,
    ip: Option<IpAddr>,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let argv = exec.command.clone().unwrap_or_default();
        let shown = format!("{argv:?}");
        let output = ctx.runtime.exec_sync(id, argv, Duration::ZERO).await;
        let output = output.map_err(|error| base::chain(&error).to_string())?;
        return match output.code {
            0 => Ok(()),
            code => {
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                Err(format!("command {shown} exited with {code}: {text}"))
            }
        };
    }
    if let Some(http) = &hook.http_get {
        let target = Target::new(container, http, ip)?;
        // A hook's answer does not count, only that there was one.
        return get(&target, None).await.map(drop);
    }
    if let Some(socket) = &hook.tcp_socket {
        let port = port_number(container, &socket.port)?;
        let host = socket.host.as_deref().and_then(|h| h.parse().ok()).or(ip);
        let host = host.ok_or("the pod has no address")?;
        return tcp(SocketAddr::new(host, port)).await;
    }
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    Ok(())
}
