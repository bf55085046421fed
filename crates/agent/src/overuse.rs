//! Ending pods that take more of the disk than they may, by kubelet's rules and in its words:
//! containers beyond their limits of `ephemeral-storage`, volumes beyond their size.

use api::placement::requests::{self, Resources};
use base::Quantity;
use client::EventKind;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use runtime::ContainerId;

use crate::evict::GRACE;
use crate::manager::Manager;
use crate::pod::qos::is_critical;
use crate::pod::status::{Verdict, terminal};
use crate::pod::view::{init_containers, spec};
use crate::quantity;

const STORAGE: &str = "ephemeral-storage";

/// What a pod takes of the disk, in bytes by name.
#[derive(Debug, Default)]
struct Taken {
    /// `emptyDir` volumes on the disk.
    volumes: Vec<(String, u64)>,
    /// What containers have written into their own layers, and their logs.
    containers: Vec<(String, u64)>,
}

/// Fails the pods that take more than they may.
pub async fn look(manager: &Manager) {
    for pod in manager.pods() {
        let over = terminal(pod.status.as_ref().and_then(|s| s.phase.as_deref()));
        if over || !is_limited(&pod) || is_critical(&pod) {
            continue;
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        if manager.with(&namespace, &name, |handle, _| handle.is_condemned()) != Some(false) {
            continue;
        }
        let Some(message) = excess(&pod, &taken(manager, &pod).await) else { continue };
        manager.context().event(&pod, None, EventKind::Warning, "Evicted", &message);
        let verdict = Verdict { reason: "Evicted".to_owned(), message };
        manager.end(&text(&pod.metadata.uid), verdict, GRACE);
    }
}

fn limit(container: &Container) -> Option<&Text> {
    container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)
}

/// The size of a volume on the disk; what is in memory has the kernel's limit.
fn size(volume: &Volume) -> Option<&Text> {
    let source = volume.empty_dir.as_ref().filter(|_| on_disk(volume))?;
    source.size_limit.as_ref().filter(|size| quantity::units(size) > 0)
}

fn on_disk(volume: &Volume) -> bool {
    volume
        .empty_dir
        .as_ref()
        .is_some_and(|source| source.medium.as_deref().unwrap_or("").is_empty())
}

fn is_limited(pod: &Pod) -> bool {
    let sized = spec(pod).volumes.iter().flatten().any(|volume| size(volume).is_some());
    sized || spec(pod).containers.iter().any(|container| limit(container).is_some())
}

/// What the pod takes too much of, if anything: volumes, all together, a container.
fn excess(pod: &Pod, taken: &Taken) -> Option<String> {
    let used = |list: &[(String, u64)], name: &str| {
        let found = list.iter().find(|(other, _)| other == name);
        found.map_or(0, |(_, bytes)| i64::try_from(*bytes).unwrap_or(i64::MAX))
    };
    for volume in spec(pod).volumes.iter().flatten() {
        if let Some(size) =
            size(volume).filter(|s| used(&taken.volumes, &volume.name) > quantity::units(s))
        {
            let (name, size) = (&volume.name, quantity::canonical(size));
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {size:?}. "));
        }
    }
    let limits = |container: &Container| {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        limits.map(Resources::of).unwrap_or_default()
    };
    let whole = requests::total(spec(pod), limits).0.get(STORAGE).copied();
    let sum: u64 = taken.volumes.iter().chain(&taken.containers).map(|(_, bytes)| bytes).sum();
    if let Some(whole) = whole.filter(|whole| i64::try_from(sum).unwrap_or(i64::MAX) > *whole) {
        let whole = Quantity::from_bytes(whole);
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {whole}. "
        ));
    }
    spec(pod).containers.iter().find_map(|container| {
        let limit = limit(container).filter(|limit| quantity::units(limit) > 0)?;
        let (name, beyond) = (&container.name, quantity::canonical(limit));
        let over = used(&taken.containers, name) > quantity::units(limit);
        over.then(|| {
            format!("Container {name} exceeded its local ephemeral storage limit {beyond:?}. ")
        })
    })
}

async fn taken(manager: &Manager, pod: &Pod) -> Taken {
    let ctx = manager.context();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (logs, volumes) = (ctx.log_dir(pod), ctx.pod_dir(&text(&pod.metadata.uid)).join("volumes"));
    let on_disk = spec(pod).volumes.iter().flatten().filter(|volume| on_disk(volume));
    let on_disk: Vec<String> = on_disk.map(|volume| volume.name.clone()).collect();
    let all = init_containers(pod).iter().chain(&spec(pod).containers);
    let all: Vec<String> = all.map(|container| container.name.clone()).collect();
    let measured = tokio::task::spawn_blocking(move || {
        let bytes = |folder: &std::path::Path, names: Vec<String>| -> Vec<(String, u64)> {
            let one = |name: String| (name.clone(), runtime::disk_usage(&folder.join(name)).0);
            names.into_iter().map(one).collect()
        };
        Taken { volumes: bytes(&volumes, on_disk), containers: bytes(&logs, all) }
    });
    let mut taken = measured.await.unwrap_or_default();
    let (namespace, pod) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    for (name, bytes) in &mut taken.containers {
        let name = name.as_str();
        let run = manager.with(&namespace, &pod, |handle, _| handle.run(name, false)).flatten();
        let Some(run) = run else { continue };
        if let Ok(stats) = ctx.runtime.stats(&ContainerId(run.id)).await {
            *bytes += stats.writable_bytes;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_taken_beyond_a_limit() {
        let container = |name: &str, limit: &str| json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit}}});
        let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}}]);
        let pod = |containers: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"spec": {"volumes": volumes, "containers": containers}}))
                .unwrap()
        };
        let both = pod(json!([container("a", "5Mi"), container("b", "10Mi")]));
        let one = pod(json!([container("a", "5Mi"), {"name": "b"}]));
        let list = |taken: Vec<(&str, u64)>| -> Vec<(String, u64)> {
            taken.into_iter().map(|(name, mib)| (name.to_owned(), mib << 20)).collect()
        };
        let of_all = "Pod ephemeral local storage usage exceeds the total limit of containers";
        for (pod, volumes, containers, expected) in [
            (&both, vec![("v", 1)], vec![("a", 5), ("b", 9)], String::new()),
            (
                &both,
                vec![("v", 2)],
                vec![],
                r#"Usage of EmptyDir volume "v" exceeds the limit "1Mi". "#.to_owned(),
            ),
            (&both, vec![("w", 9)], vec![("a", 3), ("b", 4)], format!("{of_all} 15Mi. ")),
            (
                &both,
                vec![],
                vec![("a", 6)],
                r#"Container a exceeded its local ephemeral storage limit "5Mi". "#.to_owned(),
            ),
            (&one, vec![], vec![("a", 1), ("b", 5)], format!("{of_all} 5Mi. ")),
        ] {
            let taken = Taken { volumes: list(volumes), containers: list(containers) };
            assert_eq!(excess(pod, &taken).unwrap_or_default(), expected);
            assert!(is_limited(pod));
        }
        let free: Pod =
            serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}]}})).unwrap();
        assert!(!is_limited(&free));
    }
}
