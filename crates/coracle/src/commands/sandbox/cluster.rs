//! The cluster that runs on a sandbox's boards, seen from this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use sandbox::{Board, Role, Sandbox};

use crate::commands::kubeconfig;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;

/// Between two looks at the cluster.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one request may take before it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where a server keeps what joins agents and servers.
const TOKEN: &str = "/var/lib/coracle/server/token";
const AGENT_TOKEN: &str = "/var/lib/coracle/server/agent-token";
const ADMIN: &str = "/var/lib/coracle/server/cred/admin.kubeconfig";

/// The address that clients on this machine use: the virtual one where there is one.
pub fn server_url(sandbox: &Sandbox) -> String {
    let plan = sandbox.plan();
    let address = plan.vip().unwrap_or(plan.boards[0].address);
    format!("https://{address}:6443")
}

/// The admin's kubeconfig with the address that is reached from here: its path and its text.
pub fn kubeconfig(sandbox: &Sandbox) -> Outcome<(PathBuf, String)> {
    let path = sandbox.folder().join("kubeconfig");
    let admin = sandbox.plan().boards.iter().find_map(|board| {
        let from = sandbox.on_board(board, ADMIN).ok()?;
        fs::read_to_string(from).ok()
    });
    let text = match admin {
        Some(admin) => kubeconfig::with_server(&admin, &server_url(sandbox))?,
        // All servers are off; the one of last time is still right.
        None => fs::read_to_string(&path)
            .doing(|| format!("reading {}", path.display()))
            .hint(|| "no server has come up yet: see `coracle sandbox logs server-1`".into())?,
    };
    files::write_if_changed(&path, text.as_bytes(), 0o600)
        .doing(|| format!("writing {}", path.display()))?;
    Ok((path, text))
}

/// A client of the admin, at one server or wherever the kubeconfig says.
pub async fn client(sandbox: &Sandbox, server: Option<&Board>) -> Outcome<Client> {
    crate::tls::install_provider();
    let (_, text) = kubeconfig(sandbox)?;
    let text = match server {
        Some(board) => kubeconfig::with_server(&text, &format!("https://{}:6443", board.address))?,
        None => text,
    };
    let doing = || "reading the sandbox's kubeconfig".to_owned();
    let config = kube::config::Kubeconfig::from_yaml(&text).doing(doing)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(config, &Default::default()).await.doing(doing)?;
    (config.connect_timeout, config.read_timeout) = (Some(PATIENCE), Some(PATIENCE));
    Client::try_from(config).doing(doing)
}

/// The token that a board of this role joins with, once the first server has written it.
pub async fn token(sandbox: &Sandbox, role: Role, deadline: Instant) -> Outcome<String> {
    let first = &sandbox.plan().boards[0];
    let path = match role {
        Role::Server => TOKEN,
        Role::Agent => AGENT_TOKEN,
    };
    until(
        deadline,
        || format!("{} has made its token", first.name),
        sandbox,
        async || {
            let text = fs::read_to_string(sandbox.on_board(first, path)?)
                .doing(|| format!("reading {path} of {}", first.name))?;
            Ok(text.trim().to_owned())
        },
    )
    .await
}

/// Waits until a server answers.
pub async fn api(sandbox: &Sandbox, server: &Board, deadline: Instant) -> Outcome<Client> {
    until(
        deadline,
        || format!("the API of {} answers", server.name),
        sandbox,
        async || {
            let client = client(sandbox, Some(server)).await?;
            let asked = client.apiserver_version().await;
            asked.doing(|| format!("asking {} for its version", server.name))?;
            Ok(client)
        },
    )
    .await
}

/// The nodes that there are, and whether each is ready.
pub async fn nodes(client: &Client) -> Outcome<BTreeMap<String, bool>> {
    let nodes = Api::<Node>::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await.doing(|| "listing the nodes".into())?;
    let is_ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|conditions| {
            conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        })
    };
    let pair = |node: Node| Some((node.metadata.name.clone()?, is_ready(&node)));
    Ok(nodes.items.into_iter().filter_map(pair).collect())
}

/// Waits until `look` succeeds. What it failed with last is the cause that a person gets.
pub async fn until<T>(
    deadline: Instant,
    what: impl Fn() -> String,
    sandbox: &Sandbox,
    mut look: impl AsyncFnMut() -> Outcome<T>,
) -> Outcome<T> {
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(failure) if Instant::now() > deadline => {
                let name = &sandbox.plan().name;
                let told =
                    Failure::new(format!("waiting until {}: {}", what(), base::chain(&failure)));
                return Err(told.hint(format!(
                    "`coracle sandbox logs --name {name} server-1` tells more; `up {name}` goes on"
                )));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
