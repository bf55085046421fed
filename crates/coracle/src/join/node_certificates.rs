//! The certificates of an agent's node: one to show to API servers, one to show to whoever calls
//! the node. Both are asked for by CertificateSigningRequests, and replaced under open
//! connections when most of their life is over, when an authority was, or when all are to be
//! made anew.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::kept;
use jiff::Timestamp;
use kube::Client;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::certify::{self, CLIENT_SIGNER, SERVING_SIGNER};
use super::trust::Trust;
use crate::failure::{Failure, Outcome, While};
use crate::files;
use crate::pki::{self, Leaf, new_key};
use crate::tls::{Shown, TrustedClients, TrustedServers, server_config};
use rustls::client::danger::ServerCertVerifier;

/// A certificate is replaced when this much of its life is over, as kubelet does: a random point
/// between the two, so that not all nodes come at once.
const RENEW_FROM: f64 = 0.7;
const RENEW_UNTIL: f64 = 0.9;
/// How long one certificate may take to come.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after one did not.
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
/// The longest sleep: a clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// The node whose certificates these are.
pub struct NodeCertificates {
    name: String,
    ip: IpAddr,
    client: Held,
    serving: Held,
    servers: Arc<TrustedServers>,
    clients: Arc<TrustedClients>,
}

/// One certificate, on disk and in use.
struct Held {
    path: PathBuf,
    signer: &'static str,
    usage: &'static str,
    shown: Arc<Shown>,
}

/// What is known of the certificate in use.
struct Present {
    cert: String,
    since: Timestamp,
    renew_at: Timestamp,
}

impl NodeCertificates {
    /// Takes the certificates that are below `folder`, in kubelet's layout.
    pub fn open(folder: &Path, name: &str, ip: IpAddr, trust: &Trust) -> Outcome<Self> {
        let pki = folder.join("pki");
        files::make_folder(&pki, true).doing(|| format!("making {}", pki.display()))?;
        let held = |file: &str, signer, usage| Held {
            path: pki.join(file),
            signer,
            usage,
            shown: Arc::default(),
        };
        let certificates = NodeCertificates {
            name: name.to_owned(),
            ip,
            client: held("kubelet-client-current.pem", CLIENT_SIGNER, "client auth"),
            serving: held("kubelet-server-current.pem", SERVING_SIGNER, "server auth"),
            servers: TrustedServers::new(&trust.server_ca)?,
            clients: TrustedClients::new(&trust.client_ca)?,
        };
        for held in [&certificates.client, &certificates.serving] {
            held.show_what_is_there();
        }
        Ok(certificates)
    }

    /// Whether there is a client certificate that has not ended.
    pub fn can_prove_itself(&self) -> bool {
        let end = self.client.usable().and_then(|leaf| pki::end_of(&leaf.cert));
        end.is_some_and(|end| end > Timestamp::now())
    }

    /// Keeps the client certificate that came for a key, and shows it from now on.
    pub fn keep_client(&self, cert: String, key: &KeyPair) -> Outcome {
        self.client.keep(&Leaf { cert, key: key.serialize_pem() })
    }

    /// The servers that are trusted.
    pub fn servers(&self) -> Arc<dyn ServerCertVerifier> {
        self.servers.verifier()
    }

    /// The client certificate.
    pub fn shown(&self) -> Arc<Shown> {
        self.client.shown.clone()
    }

    /// TLS of the kubelet's API. Nobody is served before there is a certificate.
    pub fn kubelet(&self) -> Outcome<ServerConfig> {
        server_config(self.serving.shown.clone(), self.clients.clone())
    }

    /// Follows whom to trust and keeps the certificates fresh, until `stop`.
    pub async fn keep_fresh(
        &self,
        client: Client,
        mut trust: watch::Receiver<Trust>,
        stop: CancellationToken,
    ) {
        let (mut failures, mut confirmed) = (0, 0);
        loop {
            let present = trust.borrow_and_update().clone();
            let result = tokio::select! {
                result = self.catch_up(&client, &present, &mut confirmed) => result,
                () = stop.cancelled() => return,
            };
            let pause = match result {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(failure) => {
                    failures += 1;
                    tracing::warn!(error = %base::chain(&failure), "a certificate of this node was not renewed; will try again");
                    RETRY.jittered(failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause.min(LOOK_AGAIN)) => {}
                Ok(()) = trust.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Does what is due now, and says how long there is nothing more to do. Trust comes first:
    /// who shows a certificate of a new authority must find it trusted.
    async fn catch_up(
        &self,
        client: &Client,
        trust: &Trust,
        confirmed: &mut u64,
    ) -> Outcome<Duration> {
        self.servers.set(&trust.server_ca)?;
        self.clients.set(&trust.client_ca)?;
        let mut next = LOOK_AGAIN;
        for (held, authority) in
            [(&self.client, &trust.client_ca), (&self.serving, &trust.server_ca)]
        {
            let present = held.present().filter(|present| {
                present.renew_at > Timestamp::now()
                    && trust.keeps(&present.cert, authority, present.since)
            });
            let present = match present {
                Some(present) => present,
                None => self.renew(client, held).await?,
            };
            let left = present.renew_at.duration_since(Timestamp::now());
            next = next.min(Duration::try_from(left).unwrap_or_default());
        }
        if *confirmed < trust.generation {
            trust
                .confirm(client, &self.name)
                .await
                .doing(|| format!("confirming on the node {} whom it trusts", self.name))?;
            *confirmed = trust.generation;
        }
        Ok(next)
    }

    async fn renew(&self, client: &Client, held: &Held) -> Outcome<Present> {
        let names = match held.signer {
            SERVING_SIGNER => vec![self.name.clone(), self.ip.to_string()],
            _ => Vec::new(),
        };
        let (key, request) = request(&self.name, names)?;
        let asked = certify::certificate(client, &self.name, &request, held.signer, held.usage);
        let cert = tokio::time::timeout(SIGNING_TIMEOUT, asked)
            .await
            .map_err(|_| Failure::new(format!("nobody signed the request to {}", held.signer)))?
            .doing(|| format!("renewing {}", held.path.display()))?;
        held.keep(&Leaf { cert, key: key.serialize_pem() })?;
        tracing::info!(signer = held.signer, "this node has a new certificate");
        held.present().ok_or_else(|| {
            Failure::new(format!("the certificate in {} cannot be read", held.path.display()))
        })
    }
}

/// A key, and the request for the client certificate of a node.
pub fn client_request(name: &str) -> Outcome<(KeyPair, String)> {
    request(name, Vec::new())
}

fn request(name: &str, names: Vec<String>) -> Outcome<(KeyPair, String)> {
    let doing = || format!("making a certificate request for the node {name}");
    let mut params = CertificateParams::new(names).doing(doing)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    let key = new_key()?;
    let request = params.serialize_request(&key).and_then(|csr| csr.pem()).doing(doing)?;
    Ok((key, request))
}

impl Held {
    /// Certificate and key are one file, so that they are replaced as one.
    fn keep(&self, leaf: &Leaf) -> Outcome {
        let content = format!("{}{}", leaf.cert, leaf.key);
        kept::write(&self.path, content.as_bytes())
            .doing(|| format!("writing {}", self.path.display()))?;
        self.shown.set(leaf)
    }

    /// Shows the pair on disk. One that cannot be used is as good as none: another is asked for.
    fn show_what_is_there(&self) {
        match self.read() {
            Ok(None) => {}
            Ok(Some(leaf)) => {
                if let Err(failure) = self.shown.set(&leaf) {
                    self.complain(&failure);
                }
            }
            Err(failure) => self.complain(&failure),
        }
    }

    fn complain(&self, failure: &Failure) {
        tracing::error!(
            error = %base::chain(failure),
            "{} cannot be used; this node asks for another certificate",
            self.path.display()
        );
    }

    fn read(&self) -> Outcome<Option<Leaf>> {
        let doing = || format!("reading {}", self.path.display());
        let Some(content) = kept::read(&self.path).doing(doing)? else { return Ok(None) };
        let text = String::from_utf8(content).doing(doing)?;
        match text.find("-----BEGIN PRIVATE KEY-----") {
            Some(at) => Ok(Some(Leaf { cert: text[..at].to_owned(), key: text[at..].to_owned() })),
            None => Err(Failure::new(format!("{} holds no key", self.path.display()))),
        }
    }

    /// The pair on disk, if it can be shown.
    fn usable(&self) -> Option<Leaf> {
        self.read().ok().flatten().filter(|leaf| Shown::new(leaf).is_ok())
    }

    fn present(&self) -> Option<Present> {
        let cert = self.usable()?.cert;
        let since: Timestamp = fs::metadata(&self.path).ok()?.modified().ok()?.try_into().ok()?;
        let life = pki::end_of(&cert)?.duration_since(since).as_secs_f64();
        // Always the same point for one certificate.
        let spread = f64::from(cert.bytes().fold(0u8, u8::wrapping_add)) / f64::from(u8::MAX);
        let share = RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * spread;
        let used = jiff::SignedDuration::from_secs_f64((life * share).max(0.0));
        Some(Present { renew_at: since.saturating_add(used).ok()?, cert, since })
    }
}
