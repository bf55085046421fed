//! The manifests folder: what is dropped into it is applied and kept applied. An object that
//! somebody changes or deletes comes back; as with k3s, removing a file removes nothing.
//!
//! Each file is one key of a work queue. A key is added when its file changes (inotify), when a
//! watch shows that an object of it has changed, and again after a failure; applying is
//! server-side apply, so that doing it once too often changes nothing and wakes nobody.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Outcome as Handled, Queue};
use futures::{StreamExt, pin_mut};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::discovery::{Scope, oneshot};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::failure::{Outcome, While};

/// The label by which an applied object is known to come from a file of this folder.
const LABEL: &str = "coracle.io/manifest";
const MANAGER: &str = "coracle-manifests";
const MAX_MANIFEST_BYTES: u64 = 8 * 1024 * 1024;
const RETRY: base::Backoff =
    base::Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

/// Applies the folder's manifests until `stop` is cancelled. The folder is made if it is missing.
pub async fn run(client: Client, folder: PathBuf, stop: CancellationToken) -> Outcome {
    crate::files::make_folder(&folder, true).doing(|| format!("making {}", folder.display()))?;
    let changes = Changes::of(&folder).doing(|| format!("watching {}", folder.display()))?;
    let applier = Arc::new(Applier {
        client,
        queue: Queue::new(RETRY),
        applied: Mutex::default(),
        watched: Mutex::default(),
        stop: stop.clone(),
    });
    applier.add_all(&folder)?;
    let follow = async {
        while changes.wait().await.is_ok() {
            if let Err(failure) = applier.add_all(&folder) {
                tracing::warn!(error = %base::chain(&failure), "manifests folder not read");
            }
        }
    };
    let handle = |path: PathBuf| {
        let applier = applier.clone();
        async move {
            match applier.apply_file(&path).await {
                Ok(()) => Handled::Done,
                Err(failure) => {
                    let error = base::chain(&failure);
                    tracing::warn!(file = %path.display(), error, "manifest not applied; will try again");
                    Handled::Retry
                }
            }
        }
    };
    tokio::select! {
        () = applier.queue.run(1, stop.clone(), handle) => {}
        () = follow => {}
    }
    Ok(())
}

/// Tells that something has been written to a folder. Which file it was does not matter:
/// looking at all of them is cheap and cannot miss one.
struct Changes {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Changes {
    fn of(folder: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(folder, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)?;
        let twin = inotify.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open until it is dropped and always names the same descriptor;
        // the `AsyncFd` owns it. There is no safe constructor any more.
        let ready = unsafe { AsyncFd::register(twin) }?;
        Ok(Changes { inotify, ready })
    }

    async fn wait(&self) -> io::Result<()> {
        loop {
            let mut guard = self.ready.readable().await?;
            if let Ok(read) = guard.try_io(|_| self.inotify.read_events().map_err(Into::into)) {
                return read.map(drop);
            }
        }
    }
}

/// Kind, namespace and name: which object it is.
type Identity = (GroupVersionKind, Option<String>, String);

struct Applier {
    client: Client,
    queue: Queue<PathBuf>,
    /// Which file an object came from, and the state of it that we have seen as our own.
    applied: Mutex<HashMap<Identity, (PathBuf, String)>>,
    watched: Mutex<HashSet<GroupVersionKind>>,
    stop: CancellationToken,
}

impl Applier {
    fn add_all(&self, folder: &Path) -> Outcome {
        let doing = || format!("listing {}", folder.display());
        for entry in std::fs::read_dir(folder).doing(doing)? {
            let path = entry.doing(doing)?.path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if matches!(ending, Some("yaml" | "yml" | "json")) {
                self.queue.add(path);
            }
        }
        Ok(())
    }

    async fn apply_file(self: &Arc<Self>, path: &Path) -> Outcome {
        let objects = match read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.doing(|| format!("reading {}", path.display()))?,
        };
        let mut first_failure = None;
        for object in objects {
            if let Err(failure) = self.apply(path, object).await {
                first_failure.get_or_insert(failure);
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    async fn apply(self: &Arc<Self>, path: &Path, mut object: DynamicObject) -> Outcome {
        let types = object.types.clone().unwrap_or_default();
        let name = object.name_any();
        let doing = || format!("applying {} {name:?}", types.kind);
        let gvk = GroupVersionKind::try_from(&types).doing(doing)?;
        let (resource, capabilities) =
            oneshot::pinned_kind(&self.client, &gvk).await.map_err(refused).doing(doing)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        object.labels_mut().insert(LABEL.into(), label_value(&file));
        let namespace = (capabilities.scope == Scope::Namespaced)
            .then(|| object.namespace().unwrap_or_else(|| "default".into()));
        let api: Api<DynamicObject> = match &namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let applied = api
            .patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object))
            .await
            .map_err(refused)
            .doing(doing)?;
        let state = state_of(applied.metadata.generation, applied.resource_version());
        self.lock(&self.applied)
            .insert((gvk.clone(), namespace, name.clone()), (path.to_owned(), state));
        if self.lock(&self.watched).insert(gvk.clone()) {
            tokio::spawn(self.clone().watch(gvk, resource));
        }
        Ok(())
    }

    /// Adds the file of an object anew when the object is changed or deleted by somebody else.
    async fn watch(self: Arc<Self>, gvk: GroupVersionKind, resource: ApiResource) {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), &resource);
        let config = watcher::Config::default().labels(LABEL);
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.stop.cancelled() => return,
            };
            match event {
                Some(Ok(Event::Apply(object))) => self.seen(&gvk, &object, false),
                Some(Ok(Event::Delete(object))) => self.seen(&gvk, &object, true),
                Some(_) => {}
                None => return,
            }
        }
    }

    fn seen(
        &self,
        gvk: &GroupVersionKind,
        object: &PartialObjectMeta<DynamicObject>,
        deleted: bool,
    ) {
        let state = state_of(object.metadata.generation, object.resource_version());
        let identity = (gvk.clone(), object.namespace(), object.name_any());
        let applied = self.lock(&self.applied);
        match applied.get(&identity) {
            Some((path, ours)) if deleted || *ours != state => self.queue.add(path.clone()),
            _ => {}
        }
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: kube::Error) -> String {
    client::message(&error)
}

/// What tells one state of an object from another: the generation where the kind has one, since a
/// new status is nobody's interference, else the version.
fn state_of(generation: Option<i64>, version: Option<String>) -> String {
    generation.map(|g| format!("generation {g}")).or(version).unwrap_or_default()
}

fn label_value(file: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let value: String = file.chars().map(allowed).take(63).collect();
    value.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// The objects in a file: YAML documents or JSON, `List`s taken apart.
fn read(path: &Path) -> io::Result<Vec<DynamicObject>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if std::fs::metadata(path)?.len() > MAX_MANIFEST_BYTES {
        return Err(invalid("the file is larger than 8 MiB; split it".into()));
    }
    let text = std::fs::read_to_string(path)?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| invalid(error.to_string()))?;
    let mut objects = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        let items = match document {
            Value::Object(mut list) if is_list => match list.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            single => vec![single],
        };
        for item in items {
            objects.push(serde_json::from_value(item).map_err(|e| invalid(e.to_string()))?);
        }
    }
    Ok(objects)
}

/// Puts a manifest of our own into the folder, unless it is there already word for word.
pub fn write_bundled(folder: &Path, file: &str, content: &str) -> Outcome {
    let path = folder.join(file);
    crate::files::make_folder(folder, true)
        .and_then(|()| crate::files::write_if_changed(&path, content.as_bytes(), 0o600))
        .doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_become_objects() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.yaml");
        let text = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n# nothing\n---\n\
                    apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: b}\n";
        std::fs::write(&path, text).expect("written");
        let names: Vec<String> =
            read(&path).expect("objects").iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_file_name_becomes_a_label_value() {
        assert_eq!(label_value("my app (1).yaml"), "my_app__1_.yaml");
        assert_eq!(label_value("_x_"), "x");
    }
}
