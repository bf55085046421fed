//! Cluster DNS. A small process of its own answers ([`holder`]), because pods go on while the
//! server is killed, restarted, upgraded or waits for a quorum, and what they ask must be answered
//! meanwhile. The server tells it the names; what both say to each other is `net`'s.

pub mod holder;
mod report;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use net::dns::{Keeper, KeeperConfig, Launch, Others};
use net::{DnsConfig, Upstreams};
use runtime::NativeConfig;

pub use report::Reporter;

use crate::config::Common;
use crate::failure::{Hint, Outcome, While};
use crate::server::node::Facts;

/// Where the process is found, in the run folder.
const SOCKET: &str = "dns.sock";
/// The control group it is in, beside those of pods: the end of the server's does not reach it.
const GROUP: &str = "dns";

/// Finds the process that answers, or starts it.
pub async fn open(
    common: &Common,
    facts: &Facts,
    resolv_conf: PathBuf,
    groups: &NativeConfig,
) -> Outcome<Keeper> {
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let socket = absolute(common.run_dir.join(SOCKET));
    let folders = groups.make_group(GROUP).doing(|| "making a control group for DNS".into())?;
    Keeper::open(KeeperConfig {
        dns: DnsConfig {
            listen: vec![SocketAddr::new(facts.cluster_dns, 53)],
            cluster_domain: facts.cluster_domain.clone(),
            service_ips: vec![facts.cluster_dns],
            upstreams: Upstreams::ResolvConf(absolute(resolv_conf)),
            ..DnsConfig::default()
        },
        release: release(&common.log),
        launch: launch(socket.clone(), common.log.clone(), folders, groups.clone()),
        socket,
    })
    .await
    .doing(|| "starting the cluster's DNS".into())
    .hint(|| "see whether another program holds port 53 on all addresses (`ss -lunp`)".into())
}

/// Ends the process; for a board whose server has stopped.
pub async fn remove(groups: &NativeConfig) -> Outcome {
    groups.remove_group(GROUP).await.doing(|| "ending the cluster's DNS".into())
}

/// What the process is made of: the release, the very file, and how much it is to log.
fn release(log: &str) -> String {
    let file = fs::metadata("/proc/self/exe").map_or_else(
        |_| String::new(),
        |file| format!("{}:{}:{}:{}", file.dev(), file.ino(), file.size(), file.mtime()),
    );
    format!("{} {file} {log}", crate::upgrade::current())
}

fn launch(socket: PathBuf, log: String, folders: Vec<PathBuf>, groups: NativeConfig) -> Launch {
    Arc::new(move |control, others| {
        if others == Others::Unreachable {
            groups.kill_group(GROUP);
        }
        let mut command = crate::child::command(holder::ARGUMENT);
        command.arg(&socket).arg(&log).args(&folders);
        let nowhere = || Stdio::null();
        let mut child = command.stdin(control).stdout(nowhere()).stderr(nowhere()).spawn()?;
        tokio::spawn(async move {
            let ended = child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
            tracing::debug!(ended, "a process that answered for cluster DNS");
        });
        Ok(())
    })
}
