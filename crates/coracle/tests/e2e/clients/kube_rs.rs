//! Controllers written with kube-rs: a finalizer, an owned object, a server that dies under it, and two
//! of whom one leads.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use kube_lease_manager::LeaseManagerBuilder;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::harness::{Board, RECOVERY};

const NAMESPACE: &str = "default";
const FINALIZER: &str = "example.test/kube-rs";
const MANAGER: &str = "kube-rs";
/// When a failed reconciliation is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long who leads may be silent.
const LEASE_SECONDS: u64 = 3;

fn definition() -> CustomResourceDefinition {
    let whole = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    serde_json::from_value(json!({
        "metadata": {"name": "harbours.example.test"},
        "spec": {
            "group": "example.test", "scope": "Namespaced",
            "names": {"plural": "harbours", "singular": "harbour", "kind": "Harbour"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}}, "schema": {"openAPIV3Schema": whole}}],
        },
    }))
    .expect("a definition")
}

fn kind() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("example.test", "v1", "Harbour"),
        "harbours",
    )
}

/// What the controller works on.
struct Seat {
    harbours: Api<DynamicObject>,
    maps: Api<ConfigMap>,
}

impl Seat {
    fn new(client: &Client) -> Self {
        Seat {
            harbours: Api::namespaced_with(client.clone(), NAMESPACE, &kind()),
            maps: Api::namespaced(client.clone(), NAMESPACE),
        }
    }

    /// A ConfigMap of the harbour's size, and a status that says so.
    async fn apply(&self, harbour: &DynamicObject) -> kube::Result<Action> {
        let name = harbour.name_any();
        let size = &harbour.data["spec"]["size"];
        let owner = harbour.controller_owner_ref(&kind());
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "ownerReferences": [owner]},
            "data": {"size": size.to_string()},
        });
        let applying = PatchParams::apply(MANAGER).force();
        self.maps.patch(&name, &applying, &Patch::Apply(map)).await?;
        let status = json!({"status": {"size": size}});
        self.harbours.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(Action::await_change())
    }

    /// Leaves a note behind.
    async fn clean_up(&self, harbour: &DynamicObject) -> kube::Result<Action> {
        let note: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": format!("farewell-{}", harbour.name_any())},
        }))
        .map_err(kube::Error::SerdeError)?;
        match self.maps.create(&PostParams::default(), &note).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other?),
        }
        Ok(Action::await_change())
    }
}

async fn reconcile(
    harbour: Arc<DynamicObject>,
    seat: Arc<Seat>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    finalizer(&seat.harbours, FINALIZER, harbour, |event| async {
        match event {
            Event::Apply(harbour) => seat.apply(&harbour).await,
            Event::Cleanup(harbour) => seat.clean_up(&harbour).await,
        }
    })
    .await
}

async fn run_controller(client: Client) {
    let seat = Arc::new(Seat::new(&client));
    let config = watcher::Config::default();
    Controller::new_with(seat.harbours.clone(), config.clone(), kind())
        .owns(seat.maps.clone(), config)
        .run(reconcile, |_, _, _| Action::requeue(AGAIN), seat)
        .for_each(|done| async move {
            if let Err(error) = done {
                eprintln!("controller: {error:?}");
            }
        })
        .await;
}

/// Waits for a ConfigMap to be so.
async fn until(maps: &Api<ConfigMap>, name: &str, size: Option<&str>) {
    let is = |map: Option<&ConfigMap>| match (map, size) {
        (Some(map), Some(size)) => map.data.as_ref().is_some_and(|data| data["size"] == size),
        (None, None) => true,
        _ => false,
    };
    let waiting = await_condition(maps.clone(), name, is);
    let done = tokio::time::timeout(RECOVERY, waiting).await;
    done.unwrap_or_else(|_| panic!("{name} is not {size:?}")).expect("a watch");
}

async fn story(board: &Board, client: Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.expect("defined");
    let established =
        await_condition(definitions, "harbours.example.test", conditions::is_crd_established());
    tokio::time::timeout(RECOVERY, established).await.expect("established").expect("a watch");
    let controller = tokio::spawn(run_controller(client.clone()));

    let Seat { harbours, maps } = Seat::new(&client);
    let north = DynamicObject::new("north", &kind()).data(json!({"spec": {"size": 3}}));
    harbours.create(&PostParams::default(), &north).await.expect("created");
    until(&maps, "north", Some("3")).await;
    let resize = async |size: i64| {
        let patch: Patch<Value> = Patch::Merge(json!({"spec": {"size": size}}));
        harbours.patch("north", &PatchParams::default(), &patch).await.expect("patched")
    };
    resize(5).await;
    until(&maps, "north", Some("5")).await;
    // What is owned and lost is made again.
    let uid = maps.get("north").await.expect("there").uid();
    maps.delete("north", &DeleteParams::default()).await.expect("deleted");
    let anew = await_condition(maps.clone(), "north", |map: Option<&ConfigMap>| {
        map.is_some_and(|map| map.meta().uid != uid)
    });
    tokio::time::timeout(RECOVERY, anew).await.expect("made again").expect("a watch");

    board.kill();
    board.serve_api();
    resize(7).await;
    until(&maps, "north", Some("7")).await;

    harbours.delete("north", &DeleteParams::default()).await.expect("deleted");
    until(&maps, "north", None).await;
    maps.get("farewell-north").await.expect("cleaned up");
    assert!(!controller.is_finished());
    controller.abort();
}

/// A candidate, and whether it leads.
struct Candidate {
    leads: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Candidate {
    async fn stand(client: &Client, name: &str) -> Self {
        let manager = LeaseManagerBuilder::new(client.clone(), "harbour-master")
            .with_namespace(NAMESPACE)
            .with_identity(name)
            .with_duration(LEASE_SECONDS)
            .with_grace(1)
            .build();
        let (leads, task) = manager.await.expect("a candidate").watch().await;
        Candidate { leads, task: task.abort_handle() }
    }

    async fn elected(&mut self) {
        let waiting = self.leads.wait_for(|leads| *leads);
        let done = tokio::time::timeout(RECOVERY, waiting).await;
        drop(done.expect("it leads in time").expect("it still stands"));
    }
}

/// The second candidate leads when the first is gone without a word, and not before.
async fn succession(client: Client) {
    let mut first = Candidate::stand(&client, "first").await;
    first.elected().await;
    let mut second = Candidate::stand(&client, "second").await;
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let begun =
        leases.get("harbour-master").await.expect("a lease").spec.and_then(|s| s.renew_time);
    let renewal = await_condition(leases.clone(), "harbour-master", |lease: Option<&Lease>| {
        lease.and_then(|lease| lease.spec.as_ref()).is_some_and(|spec| spec.renew_time > begun)
    });
    tokio::time::timeout(RECOVERY, renewal).await.expect("renewed").expect("a watch");
    assert!(!*second.leads.borrow(), "two lead at once");

    first.task.abort();
    second.elected().await;
    let lease = leases.get("harbour-master").await.expect("a lease");
    assert_eq!(lease.spec.and_then(|spec| spec.holder_identity).as_deref(), Some("second"));
    second.task.abort();
}

/// Runs a story against the board's API.
fn tell(board: &Board, story: impl AsyncFnOnce(Client) + Send) {
    board.serve_api();
    board.netns.block_on(async || {
        let config = kube::config::Kubeconfig::read_from(board.kubeconfig());
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config.expect("one"), &options).await;
        let client = Client::try_from(config.expect("a configuration")).expect("a client");
        story(client).await;
    });
}

#[test]
fn a_controller_of_kube_rs_outlives_the_server() {
    let board = Board::unstarted();
    tell(&board, async |client| story(&board, client).await);
}

#[test]
fn one_of_two_controllers_of_kube_rs_leads() {
    tell(&Board::unstarted(), succession);
}
