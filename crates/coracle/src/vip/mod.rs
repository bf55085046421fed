//! One address for all servers. A small process of its own holds it ([`holder`]): a server that is
//! busy, stuck or killed with SIGKILL must neither keep the address nor lose it for the lack of a
//! moment's processor time. The server feeds it its priority every second, which follows the
//! health of the API beside it; silence for a while counts as illness, and a closed pipe as the
//! server's end, after which the holder leaves the group in order.

mod health;
pub mod holder;
mod publish;

use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apiserver::{ApiServer, MetricKind, User};
use clap::Args;
use net::vip::State;
use net::{VipAddress, VipConfig, VipStatus};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Outcome, While};

/// How often the holder is told our priority.
const WORD_EVERY: Duration = Duration::from_secs(1);
/// How long the holder may take to leave the group.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);
/// Pause before a holder that ended is started anew, doubling.
const RESTART: base::Backoff =
    base::Backoff::new(Duration::from_millis(50), Duration::from_secs(30));
/// A holder that lived this long did not fail at its start.
const LIVED: Duration = Duration::from_secs(60);
/// Our priority while the API beside us is not ready: anybody is better, and we are better than
/// nobody.
const PRIORITY_UNWELL: u8 = 1;

/// What `coracle server` can be told about the address of all servers.
#[derive(Debug, Clone, Args)]
pub struct VipOptions {
    /// Address that one of the servers holds at any time, by VRRP; several for several addresses,
    /// of IPv6 too. The same on all servers
    #[arg(long, env = "CORACLE_VIP", value_delimiter = ',', value_name = "ADDRESS[/PREFIX]")]
    pub vip: Vec<VipAddress>,
    /// Interface for it [default: the one whose network it lies in]
    #[arg(long, env = "CORACLE_VIP_INTERFACE")]
    pub vip_interface: Option<String>,
    /// Number of the VRRP group (keepalived: virtual_router_id); unique on the segment, the same
    /// on all servers
    #[arg(long, env = "CORACLE_VIP_ROUTER_ID", default_value_t = 51,
        value_parser = clap::value_parser!(u8).range(1..))]
    pub vip_router_id: u8,
    /// Who is to hold it: the highest; among equals it stays where it is
    #[arg(long, env = "CORACLE_VIP_PRIORITY", default_value_t = 100,
        value_parser = clap::value_parser!(u8).range(2..255))]
    pub vip_priority: u8,
    /// How often the holder speaks, in hundredths of a second; a dead one is missed after three
    #[arg(long, env = "CORACLE_VIP_ADVERT_INTERVAL", default_value_t = 20,
        value_parser = clap::value_parser!(u16).range(1..4096))]
    pub vip_advert_interval: u16,
    /// Addresses of the other servers, where multicast does not reach them
    #[arg(long, env = "CORACLE_VIP_UNICAST_PEERS", value_delimiter = ',')]
    pub vip_unicast_peers: Vec<IpAddr>,
}

impl VipOptions {
    /// The group, if there is to be one.
    fn config(&self) -> Option<VipConfig> {
        (!self.vip.is_empty()).then(|| VipConfig {
            interface: self.vip_interface.clone(),
            router_id: self.vip_router_id,
            interval: self.vip_advert_interval,
            unicast_peers: self.vip_unicast_peers.clone(),
            ..VipConfig::new(self.vip.clone())
        })
    }

    /// Refuses what cannot work beside these settings.
    pub fn check(&self, node_ip: IpAddr, bind: IpAddr) -> Outcome {
        for VipAddress { ip, .. } in &self.vip {
            if *ip == node_ip {
                return Err(Failure::new(format!("{ip} is this board's own address"))
                    .hint("choose one that no board and no DHCP server uses, for --vip"));
            }
            if !bind.is_unspecified() && bind != *ip {
                return Err(Failure::new(format!(
                    "the API server listens on {bind} only, not on {ip}"
                ))
                .hint("leave out --bind-address, or --vip"));
            }
        }
        Ok(())
    }
}

/// What the holder is told first, in one line.
#[derive(Debug, Serialize, Deserialize)]
struct Brief {
    config: VipConfig,
    log: String,
}

/// This server's part in the group.
#[derive(Default)]
pub struct Vip {
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Vip {
    /// Joins the group, if one is asked for. The API has to be served already.
    pub fn start(&mut self, options: &VipOptions, log: &str, node: &str, server: &Arc<ApiServer>) {
        let Some(config) = options.config() else { return };
        let client = client::in_process(
            server.in_process(User::new("system:kube-controller-manager", ["system:masters"])),
        );
        let (active, seen) = watch::channel(false);
        let shown = Arc::new(AtomicBool::new(false));
        let page_shown = shown.clone();
        server.add_metrics(move |page| {
            let name = "coracle_vip_active";
            page.metric(name, MetricKind::Gauge, "Whether this server holds the virtual address.");
            page.sample(name, &[], f64::from(u8::from(page_shown.load(Ordering::Relaxed))));
        });
        let keeper = Keeper {
            brief: Brief { config, log: log.to_owned() },
            priority: health::follow(client.clone(), options.vip_priority),
            active,
            shown,
        };
        tokio::spawn(publish::follow(client, node.to_owned(), seen));
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), tokio::spawn(keeper.run(stop))));
    }

    /// Leaves the group: when this returns, the address is somebody else's.
    pub async fn release(self) {
        if let Some((stop, keeper)) = self.running {
            stop.cancel();
            let _ = keeper.await;
        }
    }
}

/// Keeps a holder running.
struct Keeper {
    brief: Brief,
    priority: watch::Receiver<u8>,
    active: watch::Sender<bool>,
    shown: Arc<AtomicBool>,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let began = tokio::time::Instant::now();
            let outcome = self.one_holder(&stop).await;
            self.note(false);
            if stop.is_cancelled() {
                return;
            }
            failures = if began.elapsed() > LIVED { 1 } else { failures + 1 };
            let error = outcome.err().map(|failure| failure.to_string());
            tracing::error!(error, "the process that holds the virtual address ended");
            tokio::select! {
                () = sleep(RESTART.jittered(failures)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn one_holder(&mut self, stop: &CancellationToken) -> Outcome {
        let doing = || "starting the process that holds the virtual address".to_owned();
        let mut holder = crate::child::command(holder::ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .doing(doing)?;
        let mut words = holder.stdin.take().ok_or_else(|| Failure::new("no pipe to the holder"))?;
        let states = holder.stdout.take().ok_or_else(|| Failure::new("no pipe from the holder"))?;
        let mut brief = serde_json::to_vec(&self.brief).doing(doing)?;
        brief.push(b'\n');
        words.write_all(&brief).await.doing(doing)?;
        let mut word = interval(WORD_EVERY);
        word.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut listener = Listener::new(states);
        loop {
            tokio::select! {
                _ = word.tick() => {}
                Ok(()) = self.priority.changed() => {}
                active = listener.next() => {
                    match active {
                        Some(active) => self.note(active),
                        None => return ended(holder).await,
                    }
                    continue;
                }
                () = stop.cancelled() => {
                    // The end of its input is the word to leave.
                    drop(words);
                    if timeout(LEAVE_PATIENCE, holder.wait()).await.is_err() {
                        tracing::warn!("the virtual address was not released in time");
                    }
                    return Ok(());
                }
            }
            let line = format!("{}\n", *self.priority.borrow_and_update());
            words.write_all(line.as_bytes()).await.doing(|| "telling the holder".into())?;
        }
    }

    fn note(&self, active: bool) {
        self.shown.store(active, Ordering::Relaxed);
        self.active.send_if_modified(|before| std::mem::replace(before, active) != active);
    }
}

async fn ended(mut holder: Child) -> Outcome {
    let status = holder.wait().await.doing(|| "waiting for the holder".into())?;
    Err(Failure::new(format!("it ended with {status}")))
}

/// Reads what the holder says.
struct Listener {
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    /// Which families it holds: IPv4, IPv6.
    holds: [bool; 2],
}

impl Listener {
    fn new(states: ChildStdout) -> Self {
        Self { lines: BufReader::new(states).lines(), holds: [false; 2] }
    }

    /// Whether it holds an address, at the next change; nothing when it has ended. Cancel-safe.
    async fn next(&mut self) -> Option<bool> {
        let line = self.lines.next_line().await.ok().flatten()?;
        if let Ok(status) = serde_json::from_str::<VipStatus>(&line) {
            let family = if status.ipv4 { "IPv4" } else { "IPv6" };
            let interface = status.interface.as_deref().unwrap_or("none");
            self.holds[usize::from(!status.ipv4)] = status.state == State::Active;
            match status.state {
                State::Active => {
                    tracing::info!(family, interface, "this server holds the virtual address")
                }
                State::Backup => {
                    tracing::info!(family, interface, "another server may hold the virtual address")
                }
                State::Initialize => tracing::warn!(family, "no network for the virtual address"),
            }
        }
        Some(self.holds.contains(&true))
    }
}
