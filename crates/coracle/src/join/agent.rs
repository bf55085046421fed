//! `coracle agent`: this board's pods, for a cluster whose servers are other boards.

use std::path::PathBuf;

use base::kept;
use client::{Balancer, Informers};
use http::uri::Authority;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::door::{self, Closed, Door};
use super::node_certificates::{NodeCertificates, client_request};
use super::protocol::{Hello, JOIN, Welcome};
use super::secrets::Equal;
use super::servers;
use super::token::{Token, random_secret};
use super::trust::Trust;
use crate::config::{Agent, Common};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;
use crate::server::{self, node};

/// The file in which an agent keeps what it knows of its cluster.
const FILE: &str = "cluster.json";
/// The file of what this board alone knows.
const PASSWORD: &str = "node-password";
/// What an agent knows of its cluster, from the last time it joined.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    settings: Equal,
    servers: Vec<String>,
    trust: Trust,
}

/// A board on its way into a cluster.
struct Joining {
    folder: PathBuf,
    name: String,
    ip: std::net::IpAddr,
    password: String,
    server: Option<Authority>,
    token: Option<Token>,
}

/// What holds once the board is in.
struct Joined {
    cluster: Cluster,
    certificates: NodeCertificates,
}

/// Starts everything that an agent is; gives back nothing, since its parts run by themselves.
pub async fn start(
    common: Common,
    options: Agent,
    parts: &mut JoinSet<Outcome>,
    stop: CancellationToken,
) -> Outcome {
    let joining = Joining::new(&common, &options)?;
    let Joined { cluster, certificates } = door::patiently(|| joining.attempt()).await?;
    let facts = cluster.settings.facts()?;
    facts.must_hold_for(&options.node)?;
    let file = joining.folder.join(FILE);
    let authorities = cluster.servers.iter().filter_map(|s| s.parse().ok());
    let servers: Vec<Authority> = authorities.chain(joining.server.clone()).collect();
    let tls = crate::tls::client_config(certificates.servers(), certificates.shown())?;
    let balancer = Balancer::new(tls, servers);
    let informers = Informers::new(balancer.client());
    let (said, trust) = tokio::sync::watch::channel(cluster.trust.clone());
    let watching = (balancer.clone(), stop.clone());
    parts.spawn(async move {
        watching.0.watch_over(watching.1).await;
        Ok(())
    });
    parts.spawn(remember(
        file,
        cluster.clone(),
        balancer,
        informers.clone(),
        trust.clone(),
        stop.clone(),
    ));
    let following = Trust::follow(informers.client().clone(), said, stop.clone());
    parts.spawn(async move {
        following.await;
        Ok(())
    });
    let board = node::Board {
        common,
        options: options.node,
        name: joining.name,
        ip: joining.ip,
        facts,
        tls: certificates.kubelet()?,
    };
    let (client, until) = (informers.client().clone(), stop.clone());
    parts.spawn(async move {
        certificates.keep_fresh(client, trust, until).await;
        Ok(())
    });
    node::start(board, informers, parts, &stop).await
}

impl Joining {
    fn new(common: &Common, options: &Agent) -> Outcome<Self> {
        let folder = common.data_dir.join("agent");
        files::make_folder(&folder, true)
            .doing(|| format!("making {}", folder.display()))
            .hint(|| "use sudo, or name a folder that can be written with --data-dir".into())?;
        let (name, ip) = server::identity(&options.node)?;
        node::check_labels(&options.node)?;
        let membership = &options.membership;
        let server = membership.server.as_deref().map(door::authority).transpose()?;
        let token = Token::of(membership)?;
        Ok(Joining { password: password(&folder)?, folder, name, ip, server, token })
    }

    async fn attempt(&self) -> Result<Joined, Closed> {
        let known = match self.known() {
            Err(failure) if self.token.is_some() && self.server.is_some() => {
                tracing::error!(error = %base::chain(&failure), "joining anew with the token");
                None
            }
            known => known.map_err(Closed::Never)?,
        };
        if let Some(known) = known {
            let open = NodeCertificates::open(&self.folder, &self.name, self.ip, &known.trust);
            let certificates = open.map_err(Closed::Never)?;
            if certificates.can_prove_itself() {
                match self.come_back(&known, certificates).await {
                    Err(Closed::Never(failure)) if self.token.is_some() => {
                        tracing::warn!(error = %base::chain(&failure), "joining anew with the token");
                    }
                    other => return other,
                }
            }
        }
        self.join_by_token().await
    }

    /// A board that has been in the cluster needs no token.
    async fn come_back(
        &self,
        known: &Cluster,
        certificates: NodeCertificates,
    ) -> Result<Joined, Closed> {
        let remembered = known.servers.iter().filter_map(|server| server.parse().ok());
        let mut closed = None;
        for server in self.server.iter().cloned().chain(remembered) {
            let (trusted, shown) = (certificates.servers(), certificates.shown());
            let door = Door::by_certificate(server, trusted, shown).map_err(Closed::Never)?;
            match door.ask::<Welcome>(JOIN, &self.hello(None)).await {
                Ok(welcome) => return self.enter(welcome, certificates, known.trust.renew_after),
                Err(error) => closed = Some(error),
            }
        }
        Err(closed.unwrap_or_else(|| Closed::Never(no_server())))
    }

    async fn join_by_token(&self) -> Result<Joined, Closed> {
        let server = self.server.clone().ok_or_else(|| Closed::Never(no_server()))?;
        let token = self.token.as_ref().ok_or_else(|| {
            Closed::Never(Failure::new("this board has no token and no certificate yet").hint(
                "give --token: a server keeps it in server/agent-token, or makes one with \
                 `coracle token create`",
            ))
        })?;
        let door = Door::by_token(server, token).await?;
        let (key, request) = client_request(&self.name).map_err(Closed::Never)?;
        let mut welcome: Welcome = door.ask(JOIN, &self.hello(Some(request))).await?;
        let certificate = welcome.certificate.take().ok_or_else(|| {
            Closed::Never(
                Failure::new("the server gave no certificate")
                    .hint("use the same release of Coracle on all boards"),
            )
        })?;
        let trust = trust_of(&welcome, 0);
        let open = NodeCertificates::open(&self.folder, &self.name, self.ip, &trust);
        let certificates = open.map_err(Closed::Never)?;
        certificates.keep_client(certificate, &key).map_err(Closed::Never)?;
        tracing::info!(node = self.name, "joined the cluster");
        self.enter(welcome, certificates, 0)
    }

    fn enter(
        &self,
        welcome: Welcome,
        certificates: NodeCertificates,
        renew_after: i64,
    ) -> Result<Joined, Closed> {
        let trust = trust_of(&welcome, renew_after);
        let cluster = Cluster { settings: welcome.settings, servers: welcome.servers, trust };
        write(&self.folder.join(FILE), &cluster).map_err(Closed::Never)?;
        Ok(Joined { cluster, certificates })
    }

    fn hello(&self, request: Option<String>) -> Hello {
        Hello {
            name: self.name.clone(),
            password: self.password.clone(),
            version: server::version(),
            time_ms: Timestamp::now().as_millisecond(),
            request,
        }
    }

    fn known(&self) -> Outcome<Option<Cluster>> {
        let path = self.folder.join(FILE);
        let doing = || format!("reading {}", path.display());
        let Some(content) = kept::read(&path).doing(doing)? else { return Ok(None) };
        serde_json::from_slice(&content)
            .map(Some)
            .doing(doing)
            .hint(|| "remove the file and its copy, and give a token to join anew".into())
    }
}

/// The generation is learned from the trust that servers publish: until then it is the oldest.
fn trust_of(welcome: &Welcome, renew_after: i64) -> Trust {
    Trust {
        generation: 0,
        server_ca: welcome.server_ca.clone(),
        client_ca: welcome.client_ca.clone(),
        renew_after,
    }
}

fn no_server() -> Failure {
    Failure::new("no server is named")
        .hint("give the address of one with --server https://board:6443")
}

/// Keeps on disk what is learned while the agent runs: which servers there are and whom to trust.
async fn remember(
    file: PathBuf,
    mut cluster: Cluster,
    balancer: Balancer,
    informers: Informers,
    mut trust: tokio::sync::watch::Receiver<Trust>,
    stop: CancellationToken,
) -> Outcome {
    let (seen, mut listed) = tokio::sync::watch::channel(Vec::new());
    informers.of::<EndpointSlice>().on_change(move |change| {
        let Some(slice) = &change.new else { return };
        let of_api = slice.namespace().as_deref() == Some(servers::NAMESPACE)
            && slice.name_any() == servers::NAME;
        let servers = servers::of_slice(slice);
        if of_api && !servers.is_empty() {
            seen.send_replace(servers);
        }
    });
    loop {
        tokio::select! {
            Ok(()) = listed.changed() => {
                cluster.servers = listed.borrow_and_update().clone();
                let known = cluster.servers.iter().filter_map(|server| server.parse().ok());
                balancer.set_servers(known.collect());
                tracing::info!(servers = cluster.servers.join(" "), "the cluster's servers");
            }
            Ok(()) = trust.changed() => cluster.trust = trust.borrow_and_update().clone(),
            () = stop.cancelled() => return Ok(()),
        }
        if let Err(failure) = write(&file, &cluster) {
            tracing::warn!(error = %base::chain(&failure), "the cluster's servers are not remembered");
        }
    }
}

fn write(path: &std::path::Path, cluster: &Cluster) -> Outcome {
    let doing = || format!("writing {}", path.display());
    let content = serde_json::to_vec_pretty(cluster).doing(doing)?;
    kept::write(path, &content).doing(doing)
}

/// What this board alone knows, made at its first start.
pub fn password(folder: &std::path::Path) -> Outcome<String> {
    let path = folder.join(PASSWORD);
    let found = kept::read(&path).doing(|| format!("reading {}", path.display()))?;
    let found = found.map(|content| String::from_utf8_lossy(&content).trim().to_owned());
    let password = match found.filter(|password| !password.is_empty()) {
        Some(password) => password,
        None => random_secret()?,
    };
    kept::write(&path, password.as_bytes()).doing(|| format!("writing {}", path.display()))?;
    Ok(password)
}
