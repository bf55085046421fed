use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

/// How an event is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something went as it should.
    Normal,
    /// Something wants a person's eye.
    Warning,
}

/// Writes core/v1 Events about objects, as `kubectl describe` shows them. The same event within
/// ten minutes only raises the count of the first, as upstream's correlator does. Writing happens
/// beside the caller; an Event that cannot be written is dropped, since it is news and not state.
/// Clones share one writer.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Report>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Same {
    uid: String,
    field_path: String,
    kind: Kind,
    reason: String,
    note: String,
}

struct Report {
    object: ObjectReference,
    same: Same,
}

struct Written {
    namespace: String,
    name: String,
    count: i32,
    at: Instant,
}

const MAX_WAITING_EVENTS: usize = 1000;
const MAX_REMEMBERED_EVENTS: usize = 4096;
const MAX_NOTE_BYTES: usize = 1024;
const SAME_FOR: Duration = Duration::from_secs(600);

impl Recorder {
    /// A recorder for one component (`kubelet`, `deployment-controller`) on one host (empty for
    /// what belongs to no node).
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (sender, reports) = mpsc::channel(MAX_WAITING_EVENTS);
        let source = EventSource {
            component: Some(component.to_owned()),
            host: (!host.is_empty()).then(|| host.to_owned()),
        };
        tokio::spawn(write(client, source, reports));
        Recorder { sender }
    }

    /// Records that `reason` happened to `object`; `note` is the sentence a person reads (cut
    /// at 1 KiB, upstream's limit). Never blocks.
    pub fn event(&self, object: &ObjectReference, kind: Kind, reason: &str, note: &str) {
        let same = Same {
            uid: object.uid.clone().or_else(|| object.name.clone()).unwrap_or_default(),
            field_path: object.field_path.clone().unwrap_or_default(),
            kind,
            reason: reason.to_owned(),
            note: note[..note.floor_char_boundary(MAX_NOTE_BYTES)].to_owned(),
        };
        if self.sender.try_send(Report { object: object.clone(), same }).is_err() {
            tracing::debug!(reason, "event dropped: too many are waiting to be written");
        }
    }
}

async fn write(client: Client, source: EventSource, mut reports: mpsc::Receiver<Report>) {
    let mut known: HashMap<Same, Written> = HashMap::new();
    while let Some(report) = reports.recv().await {
        if known.len() >= MAX_REMEMBERED_EVENTS {
            known.clear();
        }
        let repeated =
            known.get_mut(&report.same).filter(|written| written.at.elapsed() < SAME_FOR);
        let result = match repeated {
            Some(written) => raise(&client, written).await,
            None => create(&client, &source, &report).await.map(|written| {
                known.insert(report.same.clone(), written);
            }),
        };
        if let Err(error) = result {
            known.remove(&report.same);
            tracing::debug!(reason = report.same.reason, error = %base::chain(&error), "event not written");
        }
    }
}

async fn raise(client: &Client, written: &mut Written) -> kube::Result<()> {
    written.count += 1;
    written.at = Instant::now();
    let patch = json!({ "count": written.count, "lastTimestamp": now() });
    let api: Api<Event> = Api::namespaced(client.clone(), &written.namespace);
    api.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

async fn create(client: &Client, source: &EventSource, report: &Report) -> kube::Result<Written> {
    let Report { object, same } = report;
    let namespace =
        object.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
    let name = format!(
        "{}.{:016x}",
        object.name.as_deref().unwrap_or("unknown"),
        jiff::Timestamp::now().as_nanosecond()
    );
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            ..Default::default()
        },
        involved_object: object.clone(),
        type_: Some(format!("{:?}", same.kind)),
        reason: Some(same.reason.clone()),
        message: Some(same.note.clone()),
        count: Some(1),
        first_timestamp: Some(now()),
        last_timestamp: Some(now()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        source: Some(source.clone()),
        ..Default::default()
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    api.create(&PostParams::default(), &event).await?;
    Ok(Written { namespace, name, count: 1, at: Instant::now() })
}

fn now() -> Time {
    Time(jiff::Timestamp::now())
}
