//! Pulls: from a registry, by its own name or a mirror's, straight into unpacked layers.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{StreamExt, TryStreamExt};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::{Client, Reference as OciReference};
use tokio::sync::mpsc;

use super::config::{Descriptor, ImageConfig, Manifest, chain_ids, choose, digest, this_machine};
use super::reference::Reference;
use super::registries::{Endpoint, Registries};
use super::store::{NewImage, Store};
use crate::{Error, ImageId, Progress, ProgressSink, RegistryAuth, Result};

/// Layers fetched at once.
const PARALLEL_LAYERS: usize = 3;
/// Chunks between the network and the unpacking thread.
const QUEUE_CHUNKS: usize = 16;
/// How often a layer whose connection broke is continued.
const RESUME_LIMIT: u32 = 5;
const RESUME_PAUSE: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that gives nothing for so long is broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONFIG_LIMIT_BYTES: u64 = 8 << 20;
const INDEX_DEPTH_LIMIT: u32 = 3;

const ACCEPT: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A failed attempt at one endpoint.
struct Failure {
    message: String,
    unreachable: bool,
}

impl From<OciDistributionError> for Failure {
    fn from(error: OciDistributionError) -> Self {
        Self { unreachable: unreachable(&error), message: words(&error) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { message: base::chain(&error), unreachable: false }
    }
}

impl Store {
    /// Fetches an image from its registry or a mirror of it.
    ///
    /// # Errors
    /// [`Error::Reference`], or [`Error::Pull`] with the words of each host that was asked.
    pub async fn pull(
        &self,
        registries: &Registries,
        text: &str,
        auth: RegistryAuth,
        progress: Option<ProgressSink>,
    ) -> Result<ImageId> {
        let reference = Reference::parse(text)?;
        let mut messages = Vec::new();
        let mut unreachable = true;
        for endpoint in registries.endpoints(&reference.registry) {
            let auth = match &auth {
                RegistryAuth::Anonymous => registries.auth(&endpoint.host, &reference.registry),
                given => given.clone(),
            };
            let pull =
                match Pull::new(self, registries, &reference, &endpoint, auth, progress.clone()) {
                    Ok(pull) => pull,
                    Err(failure) => {
                        messages.push(format!("{}: {}", endpoint.host, failure.message));
                        continue;
                    }
                };
            match pull.run().await {
                Ok(id) => return Ok(id),
                Err(failure) => {
                    unreachable &= failure.unreachable;
                    messages.push(format!("{}: {}", endpoint.host, failure.message));
                }
            }
        }
        let message = messages.join("; ");
        Err(Error::Pull { reference: reference.to_string(), message, unreachable })
    }
}

/// One attempt at one endpoint.
struct Pull<'a> {
    store: &'a Store,
    client: Client,
    auth: oci_client::secrets::RegistryAuth,
    reference: &'a Reference,
    remote: OciReference,
    report: Arc<Report>,
}

impl<'a> Pull<'a> {
    fn new(
        store: &'a Store,
        registries: &Registries,
        reference: &'a Reference,
        endpoint: &Endpoint,
        auth: RegistryAuth,
        sink: Option<ProgressSink>,
    ) -> Result<Self, Failure> {
        // Fails if the program has chosen a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = registries.tls(&endpoint.host);
        let mut certificates = Vec::new();
        if let Some(path) = &tls.ca_file {
            let data = std::fs::read(path).map_err(|e| Failure {
                message: format!("reading {}: {e}", path.display()),
                unreachable: false,
            })?;
            certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
        }
        let config = ClientConfig {
            protocol: if endpoint.plain { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: tls.insecure_skip_verify,
            extra_root_certificates: certificates,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("coracle/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let host = endpoint.host.clone();
        let repository = reference.repository.clone();
        let remote = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => OciReference::with_digest(host, repository, digest.clone()),
            (None, Some(tag)) => OciReference::with_tag(host, repository, tag.clone()),
            (None, None) => OciReference::with_tag(host, repository, "latest".to_owned()),
        };
        use oci_client::secrets::RegistryAuth as Theirs;
        let auth = match auth {
            RegistryAuth::Anonymous => Theirs::Anonymous,
            RegistryAuth::Basic { username, password } => Theirs::Basic(username, password),
            RegistryAuth::Bearer(token) => Theirs::Bearer(token),
        };
        let client = Client::try_from(config)?;
        Ok(Self { store, client, auth, reference, remote, report: Arc::new(Report::new(sink)) })
    }

    async fn run(&self) -> Result<ImageId, Failure> {
        let (bytes, target) = self.fetch_manifest(&self.remote).await?;
        let (manifest, bytes) = self.choose(bytes).await?;
        let config_at = manifest.config.clone().ok_or_else(|| fail("a manifest without config"))?;
        let config = self.small_blob(&config_at).await?;
        let parsed: ImageConfig = parse("image configuration", &config)?;
        let diff_ids = &parsed.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(fail("the configuration names another number of layers than the manifest"));
        }
        let size = manifest.layers.iter().map(|l| l.size).sum();
        let _reserved = self.store.reserve(diff_ids);
        self.report.begin(size, manifest.layers.len());
        let chain = chain_ids(diff_ids);
        let jobs: Vec<_> =
            manifest.layers.iter().cloned().zip(chain).zip(diff_ids.iter().cloned()).collect();
        futures::stream::iter(jobs)
            .map(|((layer, chain), diff_id)| self.layer(layer, chain, diff_id))
            .buffer_unordered(PARALLEL_LAYERS)
            .try_collect::<Vec<()>>()
            .await?;
        let new = NewImage {
            config,
            manifest: Some(bytes.to_vec()),
            size,
            reference: Some(self.reference.clone()),
            target: Some(target),
        };
        Ok(self.store.add_image(new)?)
    }

    async fn fetch_manifest(&self, from: &OciReference) -> Result<(Bytes, String), Failure> {
        let (bytes, _) = self.client.pull_manifest_raw(from, &self.auth, ACCEPT).await?;
        let got = digest(&bytes);
        match from.digest() {
            Some(wanted) if wanted != got => {
                Err(fail(format!("the manifest has digest {got} instead of {wanted}")))
            }
            _ => Ok((bytes, got)),
        }
    }

    /// Follows indices to the manifest for this machine.
    async fn choose(&self, mut bytes: Bytes) -> Result<(Manifest, Bytes), Failure> {
        let machine = this_machine();
        for _ in 0..INDEX_DEPTH_LIMIT {
            let manifest: Manifest = parse("manifest", &bytes)?;
            if manifest.config.is_some() {
                return Ok((manifest, bytes));
            }
            let chosen = choose(&manifest.manifests, &machine).ok_or_else(|| {
                fail(format!(
                    "no match for platform in manifest: linux/{}{}: not found",
                    machine.architecture,
                    if machine.variant.is_empty() {
                        String::new()
                    } else {
                        format!("/{}", machine.variant)
                    }
                ))
            })?;
            let from = self.remote.clone_with_digest(chosen.digest.clone());
            bytes = self.fetch_manifest(&from).await?.0;
        }
        Err(fail("indices are nested too deeply"))
    }

    async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        if descriptor.size > CONFIG_LIMIT_BYTES {
            return Err(fail("the image configuration is larger than 8 MiB"));
        }
        let mut stream =
            self.client.pull_blob_stream(&self.remote, descriptor.digest.as_str()).await?.stream;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| broken(&e))?;
            if bytes.len() + chunk.len() > CONFIG_LIMIT_BYTES as usize {
                return Err(fail("the image configuration is larger than 8 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let got = digest(&bytes);
        if got != descriptor.digest {
            return Err(fail(format!("blob {} came with digest {got}", descriptor.digest)));
        }
        Ok(bytes)
    }

    async fn layer(
        &self,
        layer: Descriptor,
        chain: String,
        diff_id: String,
    ) -> Result<(), Failure> {
        if self.store.has_layer(&chain) {
            self.report.add(layer.size);
            self.report.layer_done();
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
        let store = self.store.clone();
        let expected = layer.digest.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let stream = Chunks { receiver, current: Bytes::new() };
            store.add_layer(&chain, &diff_id, Some(&expected), stream)
        });
        let fetched = self.fetch(&layer, &sender).await;
        if let Err(failure) = &fetched {
            // The unpacking side must not take a cut stream for a whole one.
            let _ = sender.send(Err(io::Error::other(failure.message.clone()))).await;
        }
        drop(sender);
        let unpacked = unpacking.await.map_err(|e| fail(format!("unpacking: {e}")))?;
        fetched?;
        unpacked?;
        self.report.layer_done();
        Ok(())
    }

    /// Sends a layer's bytes, continuing where a broken connection left off.
    async fn fetch(
        &self,
        layer: &Descriptor,
        sender: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), Failure> {
        let mut offset = 0u64;
        let mut attempt = 0;
        loop {
            match self.fetch_from(layer, &mut offset, sender).await {
                Ok(()) => return Ok(()),
                Err(failure) if offset == 0 || attempt == RESUME_LIMIT => return Err(failure),
                Err(failure) => {
                    attempt += 1;
                    tracing::debug!(layer = %layer.digest, offset, error = %failure.message, "continuing a layer");
                    tokio::time::sleep(RESUME_PAUSE * attempt).await;
                }
            }
        }
    }

    async fn fetch_from(
        &self,
        layer: &Descriptor,
        offset: &mut u64,
        sender: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), Failure> {
        use oci_client::client::BlobResponse;
        let digest = layer.digest.as_str();
        let (mut stream, mut skip) = if *offset == 0 {
            (self.client.pull_blob_stream(&self.remote, digest).await?.stream, 0)
        } else {
            match self.client.pull_blob_stream_partial(&self.remote, digest, *offset, None).await? {
                BlobResponse::Partial(sized) => (sized.stream, 0),
                BlobResponse::Full(sized) => (sized.stream, *offset),
            }
        };
        while let Some(chunk) = stream.next().await {
            let mut chunk = chunk.map_err(|e| broken(&e))?;
            let cut = skip.min(chunk.len() as u64);
            chunk.advance(cut as usize);
            skip -= cut;
            *offset += chunk.len() as u64;
            self.report.add(chunk.len() as u64);
            if sender.send(Ok(chunk)).await.is_err() {
                // The unpacking side has given up and says why itself.
                return Ok(());
            }
        }
        if *offset < layer.size {
            return Err(fail(format!(
                "layer {digest} ended after {offset} of {} bytes",
                layer.size
            )));
        }
        Ok(())
    }
}

fn fail(message: impl Into<String>) -> Failure {
    Failure { message: message.into(), unreachable: false }
}

fn broken(error: &io::Error) -> Failure {
    Failure { message: base::chain(error), unreachable: true }
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|e| fail(format!("{what}: {e}")))
}

fn unreachable(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::RequestError(e) => e.is_connect() || e.is_timeout(),
        OciDistributionError::IoError(_) => true,
        _ => false,
    }
}

/// The registry's own words where it had any.
fn words(error: &OciDistributionError) -> String {
    match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let each = envelope.errors.iter().map(|e| {
                let code = serde_json::to_value(&e.code)
                    .ok()
                    .and_then(|c| c.as_str().map(|c| c.to_lowercase().replace('_', " ")))
                    .unwrap_or_default();
                match &e.detail {
                    serde_json::Value::Null => format!("{code}: {}", e.message),
                    detail => format!("{code}: {} ({detail})", e.message),
                }
            });
            each.collect::<Vec<_>>().join(", ")
        }
        OciDistributionError::ServerError { code, message, .. } => {
            format!("the registry answered {code}: {}", message.trim())
        }
        OciDistributionError::UnauthorizedError { .. } => {
            "pull access denied: the registry answered 401 Unauthorized".to_owned()
        }
        OciDistributionError::AuthenticationFailure(said) => {
            format!("authorization failed: {}", said.trim())
        }
        other => base::chain(other),
    }
}

/// The unpacking thread's end of the queue.
struct Chunks {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Adds up what the layers have done and tells the sink.
struct Report {
    sink: Option<ProgressSink>,
    done: AtomicU64,
    total: AtomicU64,
    layers_done: AtomicU32,
    layers: AtomicU32,
}

impl Report {
    fn new(sink: Option<ProgressSink>) -> Self {
        Self {
            sink,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            layers_done: AtomicU32::new(0),
            layers: AtomicU32::new(0),
        }
    }

    fn begin(&self, total: u64, layers: usize) {
        self.total.store(total, Ordering::Relaxed);
        self.layers.store(u32::try_from(layers).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.tell();
    }

    fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn layer_done(&self) {
        self.layers_done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        if let Some(sink) = &self.sink {
            sink(Progress {
                done: self.done.load(Ordering::Relaxed),
                total: self.total.load(Ordering::Relaxed),
                layers_done: self.layers_done.load(Ordering::Relaxed),
                layers: self.layers.load(Ordering::Relaxed),
            });
        }
    }
}
