//! `coracle drill`: shows the owner that the cluster survives the loss of each board, by taking
//! one after the other out on the live cluster, with consent, and measuring what was away.
//!
//! A board is asked to cut itself off by rules that the kernel itself ends: it comes back even if
//! whoever ordered the drill is gone by then. Killing processes was turned down: it takes a
//! supervisor to heal, and not every board has one.

mod cluster;
mod door;
mod meter;
mod plan;
mod report;

use std::io::{BufRead, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use cluster::{Cluster, Scope, address_of, is_ready};
use door::Door;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::ResourceExt;
use meter::Meter;
use plan::{Kind, Step, Wish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commands::kubeconfig;
use crate::config::{Common, Span};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::tls;

/// Between two looks at the boards and the pods.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the drill's own pods may take to start.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long the cluster may take to be as before, after an outage has ended.
const HEAL_PATIENCE: Duration = Duration::from_secs(120);
/// Quiet time before the next board is taken out.
const BETWEEN: Duration = Duration::from_secs(5);
/// An answer of the probe is a short page.
const MAX_ANSWER_BYTES: usize = 512;

/// What `coracle drill` can be told.
#[derive(Debug, Args)]
pub struct Options {
    /// Go on without asking
    #[arg(long)]
    pub yes: bool,
    /// Take out only this; may be given several times
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Take out only this board; may be given several times
    #[arg(long, value_delimiter = ',')]
    node: Vec<String>,
    /// How long each board is out, up to 3 minutes. Pods move only from a board that is out for
    /// longer than --node-monitor-grace-period
    #[arg(long, default_value = "75s")]
    outage: Span,
    /// The virtual address of the cluster, to see how long it is away
    #[arg(long)]
    vip: Option<IpAddr>,
    /// Image of the drill's own pods: answers HTTP on port 8080
    #[arg(long, default_value = runtime::images::HELLO_REFERENCE)]
    image: String,
    /// How to reach the cluster [default: as the admin, from a server]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Form of the outcome
    #[arg(long, short, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// Form of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table
    Table,
    /// One JSON object a board
    Json,
}

/// Shows the plan, asks, carries it out and prints what came of it.
pub async fn run(common: Common, options: Options) -> Outcome {
    tls::install_provider();
    let path = options.kubeconfig.clone().unwrap_or_else(|| kubeconfig::path(&common.data_dir));
    let text = std::fs::read_to_string(&path)
        .doing(|| format!("reading the kubeconfig {}", path.display()))
        .hint(|| "run it as root on a server, or name another with --kubeconfig".into())?;
    let cluster = Cluster::find(text).await?;
    let boards = cluster.boards(options.vip).await?;
    let steps = plan::plan(&boards, &wish(&options)).map_err(refused)?;
    eprintln!("The drill takes out, one after the other, and every one comes back by itself:");
    steps.iter().for_each(|step| eprintln!("  {step}"));
    if !options.yes && !consent()? {
        return Err(Failure::new("nothing was taken out").hint("answer yes, or use --yes"));
    }
    cluster.make_probe(&options.image, boards.len()).await?;
    let outcome = tokio::select! {
        outcome = carry_out(&cluster, &steps, &options) => outcome,
        _ = tokio::signal::ctrl_c() => {
            Err(Failure::new("the drill was interrupted").hint("a board that is out comes back by itself"))
        }
    };
    cluster.remove_probe().await;
    let results = outcome?;
    match options.output {
        Form::Table => print!("{}", report::table(&results)),
        Form::Json => {
            let text = serde_json::to_string_pretty(&results).doing(|| "writing JSON".into())?;
            println!("{text}");
        }
    }
    match results.iter().filter(|result| !result.passed()).count() {
        0 => Ok(()),
        failed => {
            Err(Failure::new(format!("the cluster did not take {failed} of {}", results.len()))
                .hint("`kubectl get nodes,pods -A` and the log of the board say more"))
        }
    }
}

fn wish(options: &Options) -> Wish {
    let mut kinds = options.only.clone();
    if kinds.is_empty() {
        kinds = vec![Kind::Agent, Kind::Server, Kind::Network, Kind::Vip];
    }
    kinds.dedup();
    Wish {
        kinds,
        boards: options.node.clone(),
        outage: options.outage.duration().min(net::LONGEST_OUTAGE),
        address: options.vip.is_some(),
    }
}

fn refused(refusals: Vec<plan::Refusal>) -> Failure {
    let reasons: Vec<&str> = refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    let hint = refusals.first().map(|refusal| refusal.hint.clone()).unwrap_or_default();
    Failure::new(format!("no drill: {}", reasons.join("; "))).hint(hint)
}

fn consent() -> Outcome<bool> {
    eprint!("Type yes to go on: ");
    let mut answer = String::new();
    std::io::stderr()
        .flush()
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer))
        .doing(|| "asking".into())?;
    Ok(answer.trim() == "yes")
}

async fn carry_out(
    cluster: &Cluster,
    steps: &[Step],
    options: &Options,
) -> Outcome<Vec<report::Result>> {
    let wanted = cluster.nodes().await.len();
    wait(START_PATIENCE, async || cluster.probe_ready().await.len() >= wanted).await.ok_or_else(
        || {
            Failure::new(format!("the drill's own pods ({}) do not become ready", options.image))
                .hint("`coracle image import --hello` on every board gives it the image")
        },
    )?;
    let mut results = Vec::new();
    for step in steps {
        results.push(take_out(cluster, step, options, wanted).await?);
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(results)
}

/// Waits until something holds; how long that took.
async fn wait(patience: Duration, holds: impl AsyncFn() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if holds().await {
            return Some(began.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    None
}

/// The meters of one step, and what ends them.
struct Meters {
    api: Meter,
    any: Meter,
    address: Option<Meter>,
    service: Meter,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Meters {
    fn are_steady(&self) -> bool {
        let Meters { api, any, address, service, .. } = self;
        [api, any, service].into_iter().chain(address).all(Meter::is_steady)
    }
}

async fn take_out(
    cluster: &Cluster,
    step: &Step,
    options: &Options,
    wanted: usize,
) -> Outcome<report::Result> {
    eprintln!("{step}");
    let meters = start_meters(cluster, step, options.vip).await?;
    let scope = match step.kind {
        Kind::Agent => Scope::Agent,
        Kind::Server => Scope::Server,
        Kind::Network | Kind::Vip => Scope::Network,
    };
    let last_beat = cluster.heartbeat(&step.board).await;
    let began = Instant::now();
    cluster.cut(&step.board, scope, step.outage).await?;
    let (mut not_ready_after, mut pods_back_after) = (None, None);
    while began.elapsed() < step.outage {
        tokio::time::sleep(LOOK_EVERY).await;
        let nodes = cluster.nodes().await;
        let lost = nodes.iter().any(|node| node.name_any() == step.board && !is_ready(node));
        if lost && not_ready_after.is_none() {
            not_ready_after = Some(began.elapsed().as_secs());
        }
        let elsewhere = cluster.probe_ready().await.iter().filter(|b| **b != step.board).count();
        if elsewhere >= wanted && pods_back_after.is_none() {
            pods_back_after = Some(began.elapsed().as_secs());
        }
    }
    // A board that was called ready all the time may be about to be missed.
    let beats = async || {
        let now = cluster.heartbeat(&step.board).await;
        now.is_some() && now != last_beat
    };
    let as_before = async || meters.are_steady() && healed(cluster, wanted).await && beats().await;
    let healed = wait(HEAL_PATIENCE, as_before).await;
    let healed_after = healed.map(|_| began.elapsed().as_secs());
    meters.stop.cancel();
    let Meters { api, any, address, service, mut tasks, .. } = meters;
    while tasks.join_next().await.is_some() {}
    Ok(report::Result {
        kind: step.kind,
        board: step.board.clone(),
        outage_seconds: step.outage.as_secs(),
        api: api.since(began),
        any_server: any.since(began),
        address: address.map(|meter| meter.since(began)),
        service: service.since(began),
        not_ready_after,
        pods_back_after,
        healed_after,
    })
}

async fn healed(cluster: &Cluster, wanted: usize) -> bool {
    let nodes = cluster.nodes().await;
    let all = nodes.len() >= wanted && nodes.iter().all(is_ready);
    let mut answering = true;
    for (_, door) in &cluster.servers {
        answering &= door.is_ready().await;
    }
    all && answering && cluster.probe_ready().await.len() >= wanted
}

/// Whether any of the servers calls itself ready; the first that does is enough.
async fn any_ready(doors: Vec<Arc<Door>>) -> bool {
    let asking = doors.iter().map(|door| door.is_ready());
    let mut asking: FuturesUnordered<_> = asking.collect();
    while let Some(answered) = asking.next().await {
        if answered {
            return true;
        }
    }
    false
}

async fn start_meters(cluster: &Cluster, step: &Step, shared: Option<IpAddr>) -> Outcome<Meters> {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let mut start = |meter: &Meter, doors: Vec<Arc<Door>>| {
        let ask = move || any_ready(doors.clone());
        tasks.spawn(meter.clone().run(ask, stop.clone()));
    };
    let (api, any, service) = (Meter::default(), Meter::default(), Meter::default());
    start(&api, vec![cluster.front.clone()]);
    start(&any, cluster.servers.iter().map(|(_, door)| door.clone()).collect());
    let address = match shared {
        None => None,
        Some(shared) => {
            let meter = Meter::default();
            start(&meter, vec![Arc::new(cluster.at(shared).await?)]);
            Some(meter)
        }
    };
    let port = cluster.probe_port().await?;
    let others = cluster.nodes().await;
    let others = others.iter().filter(|node| node.name_any() != step.board);
    let targets: Arc<[SocketAddr]> =
        others.filter_map(address_of).map(|ip| SocketAddr::new(ip, port)).collect();
    let turn = Arc::new(AtomicUsize::new(0));
    let asking = move || {
        let next = turn.fetch_add(1, Ordering::Relaxed) % targets.len().max(1);
        let target = targets.get(next).copied();
        async move {
            match target {
                Some(target) => fetch(target).await.is_ok_and(|answered| answered),
                None => false,
            }
        }
    };
    tasks.spawn(service.clone().run(asking, stop.clone()));
    Ok(Meters { api, any, address, service, tasks, stop })
}

/// Asks the probe for its page; whether it gave it.
async fn fetch(target: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n").await?;
    let mut answer = [0; MAX_ANSWER_BYTES];
    let length = stream.read(&mut answer).await?;
    Ok(answer[..length].starts_with(b"HTTP/1.1 200"))
}
