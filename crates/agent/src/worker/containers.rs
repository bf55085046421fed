//! A container of a pod as the runtime wants it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::Api;
use runtime::{
    ContainerConfig, ContainerId, ContainerStatus, ImageInfo, Mount, Process, Propagation,
};
use serde_json::json;

use super::Shared;
use crate::context::{
    Context, LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID,
};
use crate::logs::line::{Printer, Show};
use crate::pod::env::{self, Sources};
use crate::pod::expand::{expand, unresolved};
use crate::pod::view::{View, container as by_name, spec};
use crate::pod::{hosts, plan, resources, security};
use crate::volumes::subpath;

/// Annotation with the hash of what a running container cannot take over.
pub(crate) const NOTE_HASH: &str = "coracle.dev/container-hash";
/// Annotation with the seconds to wait after the container's end.
pub(crate) const NOTE_DELAY: &str = "coracle.dev/restart-delay-seconds";
/// Annotation with the resources that a container is made with, as the pod words them.
pub(crate) const NOTE_RESOURCES: &str = "coracle.dev/resources";
/// Annotation with how often all containers of the pod had begun anew before this one.
pub(crate) const NOTE_ROUND: &str = "coracle.dev/restart-round";
/// Where a container leaves its last words when nothing is said.
const TERMINATION_PATH: &str = "/dev/termination-log";
/// Most that is kept of them, in bytes.
const TERMINATION_MAX_BYTES: u64 = 4096;
/// Most that is taken from the log instead, in bytes.
const TERMINATION_LOG_MAX_BYTES: u64 = 2048;
/// Most that is taken from the log instead, in lines.
const TERMINATION_LOG_MAX_LINES: usize = 80;

/// Longest file that variables are taken from, in bytes.
const ENV_FILE_MAX_BYTES: u64 = 64 << 10;

/// What a new container is made from.
pub(super) struct Wish<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub delay_s: u32,
    pub image: &'a ImageInfo,
}

/// The configuration of a container, or what is missing (`CreateContainerConfigError`).
pub(super) async fn config(shared: &Shared, wish: &Wish<'_>) -> Result<ContainerConfig, String> {
    let Wish { pod, container, attempt, delay_s, image } = *wish;
    let ctx = &shared.ctx;
    security::verify_non_root(pod, container, image)?;
    let vars = environment(shared, pod, container).await?;
    let lookup = |name: &str| vars.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    let mut mounts = mounts(shared, pod, container, lookup).await?;
    mounts.extend(files(ctx, pod, container, attempt, &shared.ips())?);
    // A mount below another has to come after it.
    mounts.sort_by_key(|mount| mount.container_path.components().count());
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let round = shared.state().view.round;
    let stop_signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        image: image.id.clone(),
        image_ref: text(&container.image),
        process: Process {
            command: expanded(&container.command),
            args: expanded(&container.args),
            working_dir: text(&container.working_dir),
            env: vars.clone(),
        },
        mounts,
        devices: Vec::new(),
        resources: resources::container(pod, container, ctx.memory_bytes),
        security: security::security(pod, container, &ctx.config.filters()),
        target: target(&shared.state().view, pod, &container.name)?,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        stop_signal: stop_signal.unwrap_or_default(),
        labels: BTreeMap::from([
            (LABEL_POD_NAME.to_owned(), text(&pod.metadata.name)),
            (LABEL_POD_NAMESPACE.to_owned(), text(&pod.metadata.namespace)),
            (LABEL_POD_UID.to_owned(), shared.uid.clone()),
            (LABEL_CONTAINER_NAME.to_owned(), container.name.clone()),
        ]),
        annotations: BTreeMap::from([
            (NOTE_HASH.to_owned(), plan::hash(container)),
            (NOTE_DELAY.to_owned(), delay_s.to_string()),
            (NOTE_ROUND.to_owned(), round.to_string()),
            (NOTE_RESOURCES.to_owned(), json!(container.resources).to_string()),
        ]),
    })
}

/// The container among whose processes an ephemeral one wants to be.
fn target(view: &View, pod: &Pod, name: &str) -> Result<Option<ContainerId>, String> {
    let all = spec(pod).ephemeral_containers.iter().flatten();
    let asked = all.filter(|one| one.name == name).find_map(|c| c.target_container_name.as_deref());
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(None) };
    let run = view.run(asked).ok_or_else(|| format!("unable to find target container {asked}"))?;
    Ok(Some(ContainerId(run.id.clone())))
}

async fn environment(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
) -> Result<Vec<(String, String)>, String> {
    let ctx = &shared.ctx;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (maps, secrets) = env::references(container);
    let mut sources = Sources::default();
    let failed = |error: kube::Error| base::chain(&error).to_string();
    for name in maps {
        let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
        if let Some(map) = api.get_opt(name).await.map_err(failed)? {
            sources.config_maps.insert(name.to_owned(), map);
        }
    }
    for name in secrets {
        let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
        if let Some(secret) = api.get_opt(name).await.map_err(failed)? {
            sources.secrets.insert(name.to_owned(), secret);
        }
    }
    sources.files = env_files(shared, pod, container).await?;
    ctx.services.synced().await;
    let links = spec(pod).enable_service_links != Some(false);
    let services = ctx.services.list();
    let services = env::service_variables(services.iter().map(|s| &**s), namespace, links);
    env::environment(pod, container, &services, &sources, &ctx.place(shared.ips()))
}

/// What is in the files that variables come from; those that are missing are left out.
async fn env_files(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
) -> Result<HashMap<(String, String), String>, String> {
    let mut files = HashMap::new();
    for (name, path) in env::files(container) {
        let volume = spec(pod).volumes.iter().flatten().find(|v| v.name == name);
        let volume = volume
            .filter(|volume| volume.empty_dir.is_some())
            .ok_or_else(|| format!("cannot find the volume {name:?} referenced by FileKeyRef"))?;
        let folder = shared.volumes.lock().await.path(volume);
        match subpath::read(&folder, path, ENV_FILE_MAX_BYTES) {
            Ok(text) => drop(files.insert((name.to_owned(), path.to_owned()), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("reading file {path:?} of volume {name:?}: {error}")),
        }
    }
    Ok(files)
}

async fn mounts(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>, String> {
    let volumes = shared.volumes.lock().await;
    let mut out = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = spec(pod).volumes.iter().flatten().find(|v| v.name == wanted.name);
        let volume = volume.ok_or_else(|| format!("volume {:?} not found", wanted.name))?;
        let mut host_path = volumes.path(volume);
        let sub = match (&wanted.sub_path_expr, &wanted.sub_path) {
            (Some(text), _) if !text.is_empty() => {
                if let Some(name) = unresolved(text, &lookup) {
                    return Err(format!("missing value for {name:?} in subPathExpr {text:?}"));
                }
                expand(text, &lookup)
            }
            (_, Some(text)) => text.clone(),
            _ => String::new(),
        };
        if !sub.is_empty() {
            let places = shared.ctx.pod_dir(&shared.uid).join("volume-subpaths");
            let target = places.join(&wanted.name).join(&container.name).join(index.to_string());
            subpath::bind(&host_path, &sub, &target).map_err(|error| {
                format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                    wanted.name, container.name
                )
            })?;
            host_path = target;
        }
        out.push(Mount {
            host_path,
            container_path: PathBuf::from("/").join(&wanted.mount_path),
            readonly: wanted.read_only == Some(true),
            recursive_readonly: wanted
                .recursive_read_only
                .as_deref()
                .is_some_and(|r| r != "Disabled"),
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    Ok(out)
}

/// The files that every container finds: hosts, host name, resolver, last words. One that the
/// pod itself mounts there stays.
fn files(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    ips: &[std::net::IpAddr],
) -> Result<Vec<Mount>, String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let dir = ctx.pod_dir(uid);
    let failed = |error: std::io::Error| format!("writing the files of pod {uid}: {error}");
    fs::create_dir_all(&dir).map_err(failed)?;
    let domain = &ctx.config.cluster_domain;
    let host_network = spec(pod).host_network == Some(true);
    let host_file = host_network.then(|| fs::read_to_string("/etc/hosts").unwrap_or_default());
    let resolver = fs::read_to_string(&ctx.config.resolv_conf).unwrap_or_default();
    let resolver = hosts::Resolver::parse(&resolver);
    let (hostname, _) = hosts::names(pod, domain);
    let hostname = match host_network {
        true => fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
        false => format!("{hostname}\n"),
    };
    let texts = [
        ("etc-hosts", "/etc/hosts", hosts::hosts_file(pod, ips, domain, host_file.as_deref())),
        ("etc-hostname", "/etc/hostname", hostname),
        (
            "etc-resolv.conf",
            "/etc/resolv.conf",
            hosts::resolv_conf(pod, &resolver, ctx.config.cluster_dns, domain),
        ),
    ];
    let taken = |path: &str| {
        container.volume_mounts.iter().flatten().any(|m| m.mount_path.trim_end_matches('/') == path)
    };
    let mut out = Vec::new();
    for (name, inside, text) in texts {
        if taken(inside) {
            continue;
        }
        let path = dir.join(name);
        // The file is mounted into running containers: only a real change may write it.
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            fs::write(&path, text).map_err(failed)?;
        }
        out.push(mount(path, inside));
    }
    let words = termination_file(ctx, uid, &container.name, attempt);
    words.parent().map(fs::create_dir_all).transpose().map_err(failed)?;
    let file = fs::File::create(&words).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o666)).map_err(failed)?;
    out.push(mount(
        words,
        container.termination_message_path.as_deref().unwrap_or(TERMINATION_PATH),
    ));
    Ok(out)
}

fn mount(host_path: PathBuf, inside: &str) -> Mount {
    Mount { host_path, container_path: PathBuf::from(inside), ..Mount::default() }
}

fn termination_file(ctx: &Context, uid: &str, container: &str, attempt: u32) -> PathBuf {
    ctx.pod_dir(uid).join("containers").join(container).join(attempt.to_string())
}

/// The last words of an ended container; `None` where the runtime's own message stands.
pub(super) fn termination_message(
    ctx: &Context,
    pod: &Pod,
    status: &ContainerStatus,
) -> Option<String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let path = termination_file(ctx, uid, &status.name, status.attempt);
    let words = fs::File::open(path).and_then(|file| {
        let mut words = Vec::new();
        file.take(TERMINATION_MAX_BYTES).read_to_end(&mut words).map(|_| words)
    });
    let words = String::from_utf8_lossy(&words.unwrap_or_default()).into_owned();
    if !words.is_empty() || !status.message.is_empty() {
        return Some(words).filter(|w| !w.is_empty());
    }
    let policy = by_name(pod, &status.name).and_then(|c| c.termination_message_policy.as_deref());
    if policy != Some("FallbackToLogsOnError") || status.exit_code == Some(0) {
        return None;
    }
    log_tail(status.log_path.as_deref()?).ok()
}

/// The end of a log without its time stamps.
fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    // Time stamp, stream and tag take about 45 bytes a line.
    let window = TERMINATION_LOG_MAX_BYTES + 64 * TERMINATION_LOG_MAX_LINES as u64;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()).collect();
    let lines = &lines[lines.len().saturating_sub(TERMINATION_LOG_MAX_LINES)..];
    let (mut printer, mut out) = (Printer::new(Show::default()), Vec::new());
    lines.iter().for_each(|line| printer.print(line, &mut out));
    let mut out = String::from_utf8_lossy(&out).into_owned();
    let excess = out.len().saturating_sub(TERMINATION_LOG_MAX_BYTES as usize);
    out.drain(..out.ceil_char_boundary(excess));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_ephemeral_container_may_want_to_be_among_anothers_processes() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "c"}],
            "ephemeralContainers": [{"name": "alone"}, {"name": "debugger", "targetContainerName": "c"}]}}))
        .unwrap();
        let view = View::default();
        assert_eq!(target(&view, &pod, "c"), Ok(None));
        assert_eq!(target(&view, &pod, "alone"), Ok(None));
        let missing = "unable to find target container c".to_owned();
        assert_eq!(target(&view, &pod, "debugger"), Err(missing));
    }
}
