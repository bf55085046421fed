//! Volumes of a pod: what is mounted where, kept up to date while the pod lives.
//!
//! Whatever comes from the API (ConfigMaps, Secrets, tokens, downward facts) is written to one
//! tmpfs of the agent: Secrets never reach a disk, and an SD card is spared the writes.

pub mod atomic;
pub mod content;
mod empty_dir;
mod host_path;
mod ownership;
pub mod subpath;
mod token;

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, Pod, ProjectedVolumeSource, Secret, SecretProjection, Volume,
    VolumeProjection,
};
use kube::Client;
use tokio::sync::Notify;

use crate::objects::{Objects, Referable, Watched};
use crate::pod::fields::Place;
use crate::pod::view::spec;
use atomic::{File, Payload};
use content::DEFAULT_MODE;
pub use empty_dir::{ensure_tmpfs, is_mount_point, unmount_below};

/// Why a volume is not there, in the words of upstream's FailedMount event.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub struct MountError {
    /// The volume's name.
    pub volume: String,
    /// What is wrong.
    pub message: String,
}

/// The volumes of one pod.
pub struct PodVolumes {
    objects: Objects,
    client: Client,
    waker: Arc<Notify>,
    memory: PathBuf,
    disk: PathBuf,
    handles: HashMap<String, Arc<dyn Any + Send + Sync>>,
    tokens: HashMap<(String, String), token::Token>,
}

impl PodVolumes {
    /// Nothing mounted yet. `memory` and `disk` are folders for this pod alone, the first on a
    /// tmpfs; `waker` is notified when [`PodVolumes::prepare`] should be called again.
    pub fn new(
        client: Client,
        objects: Objects,
        waker: Arc<Notify>,
        memory: PathBuf,
        disk: PathBuf,
    ) -> Self {
        PodVolumes {
            objects,
            client,
            waker,
            memory,
            disk,
            handles: HashMap::new(),
            tokens: HashMap::new(),
        }
    }

    /// Where a volume of the pod is on this machine.
    pub fn path(&self, volume: &Volume) -> PathBuf {
        if let Some(host) = &volume.host_path {
            return PathBuf::from(&host.path);
        }
        let base = if volume.empty_dir.is_some() { &self.disk } else { &self.memory };
        base.join("volumes").join(&volume.name)
    }

    /// Makes every volume, or brings it up to date. Gives the time at which a token wants to be
    /// renewed.
    pub async fn prepare(
        &mut self,
        pod: &Pod,
        place: &Place,
    ) -> Result<Option<Timestamp>, MountError> {
        for volume in spec(pod).volumes.iter().flatten() {
            self.one(pod, volume, place)
                .await
                .map_err(|message| MountError { volume: volume.name.clone(), message })?;
        }
        Ok(self.tokens.values().map(|token| token.renew_at).min())
    }

    async fn one(&mut self, pod: &Pod, volume: &Volume, place: &Place) -> Result<(), String> {
        let path = self.path(volume);
        if let Some(source) = &volume.empty_dir {
            return empty_dir::set_up(&path, source, fs_group(pod));
        }
        if let Some(source) = &volume.host_path {
            return host_path::check(source);
        }
        let payload = if let Some(source) = &volume.config_map {
            let projection = ConfigMapProjection {
                name: source.name.clone(),
                items: source.items.clone(),
                optional: source.optional,
            };
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            self.config_map(pod, &projection, mode).await?
        } else if let Some(source) = &volume.secret {
            let projection = SecretProjection {
                name: source.secret_name.clone().unwrap_or_default(),
                items: source.items.clone(),
                optional: source.optional,
            };
            self.secret(pod, &projection, source.default_mode.unwrap_or(DEFAULT_MODE)).await?
        } else if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            content::downward(pod, items, source.default_mode.unwrap_or(DEFAULT_MODE), place)?
        } else if let Some(source) = &volume.projected {
            self.projected(pod, &volume.name, source, place).await?
        } else {
            return Err(unsupported(volume));
        };
        let group = fs_group(pod);
        let payload = match group {
            Some(_) => {
                payload.into_iter().map(|(p, f)| (p, File { mode: f.mode | 0o440, ..f })).collect()
            }
            None => payload,
        };
        atomic::write(&path, &payload, group)
            .map(drop)
            .map_err(|error| format!("writing {}: {error}", path.display()))
    }

    async fn projected(
        &mut self,
        pod: &Pod,
        volume: &str,
        source: &ProjectedVolumeSource,
        place: &Place,
    ) -> Result<Payload, String> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut out = Payload::new();
        for part in source.sources.iter().flatten() {
            out.extend(self.projection(pod, volume, part, mode, place).await?);
        }
        Ok(out)
    }

    async fn projection(
        &mut self,
        pod: &Pod,
        volume: &str,
        part: &VolumeProjection,
        mode: i32,
        place: &Place,
    ) -> Result<Payload, String> {
        if let Some(map) = &part.config_map {
            return self.config_map(pod, map, mode).await;
        }
        if let Some(secret) = &part.secret {
            return self.secret(pod, secret, mode).await;
        }
        if let Some(api) = &part.downward_api {
            return content::downward(pod, api.items.as_deref().unwrap_or_default(), mode, place);
        }
        if let Some(wanted) = &part.service_account_token {
            let key = (volume.to_owned(), wanted.path.clone());
            let now = Timestamp::now();
            if self.tokens.get(&key).is_none_or(|token| token.renew_at <= now) {
                let fresh = token::request(&self.client, pod, wanted).await;
                match (fresh, self.tokens.get(&key).filter(|token| token.expires > now)) {
                    (Ok(fresh), _) => {
                        self.tokens.insert(key.clone(), fresh);
                    }
                    // The old one is good for a while: ask again in a minute.
                    (Err(error), Some(_)) => {
                        tracing::warn!(error, "service account token not renewed");
                        if let Some(token) = self.tokens.get_mut(&key) {
                            token.renew_at = now + jiff::SignedDuration::from_secs(60);
                        }
                    }
                    (Err(error), None) => return Err(error),
                }
            }
            let data =
                self.tokens.get(&key).map(|t| t.value.clone().into_bytes()).unwrap_or_default();
            let (mode, user) = token::rights(pod, mode);
            return Ok(Payload::from([(wanted.path.clone(), File { data, mode, user })]));
        }
        Err("the volume projects a source that this node does not support".to_owned())
    }

    async fn config_map(
        &mut self,
        pod: &Pod,
        source: &ConfigMapProjection,
        mode: i32,
    ) -> Result<Payload, String> {
        let optional = source.optional == Some(true);
        match self.fetch::<ConfigMap>(pod, &source.name).await? {
            Some(map) => content::config_map(&map, source.items.as_ref(), mode, optional),
            None if optional => Ok(Payload::new()),
            None => Err(format!("configmap {:?} not found", source.name)),
        }
    }

    async fn secret(
        &mut self,
        pod: &Pod,
        source: &SecretProjection,
        mode: i32,
    ) -> Result<Payload, String> {
        let optional = source.optional == Some(true);
        match self.fetch::<Secret>(pod, &source.name).await? {
            Some(secret) => content::secret(&secret, source.items.as_ref(), mode, optional),
            None if optional => Ok(Payload::new()),
            None => Err(format!("secret {:?} not found", source.name)),
        }
    }

    async fn fetch<K: Referable>(
        &mut self,
        pod: &Pod,
        name: &str,
    ) -> Result<Option<Arc<K>>, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let watched: Arc<Watched<K>> = self.objects.watch(namespace, name, &self.waker);
        let key = format!("{}/{name}", K::kind(&()));
        self.handles.insert(key, watched.clone());
        watched.get(namespace, name).await.map_err(|error| error.to_string())
    }

    /// Unmounts and removes everything.
    pub fn tear_down(&mut self) -> std::io::Result<()> {
        self.handles.clear();
        self.tokens.clear();
        remove(&self.memory)?;
        remove(&self.disk)
    }
}

/// Unmounts all below `dir` and removes it.
pub fn remove(dir: &Path) -> std::io::Result<()> {
    unmount_below(dir)?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec(pod).security_context.as_ref().and_then(|c| c.fs_group)?;
    u32::try_from(group).ok()
}

fn unsupported(volume: &Volume) -> String {
    let kind = serde_json::to_value(volume).ok().and_then(|value| {
        let keys = value.as_object()?.keys().find(|key| *key != "name")?.clone();
        Some(keys)
    });
    let kind = kind.unwrap_or_else(|| "unknown".to_owned());
    format!(
        "volumes of type {kind} are not supported by this node; use hostPath, emptyDir, configMap, \
         secret, downwardAPI or projected"
    )
}
