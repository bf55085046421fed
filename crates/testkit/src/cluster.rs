use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, JsonCodec, User};
use client::Informers;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::config;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A store in a temporary folder, an API server over it, and a client to it; no socket.
/// Controllers, scheduler and nodes are what the test starts.
pub struct Cluster {
    /// The API server.
    pub api: Arc<ApiServer>,
    /// An administrator's client.
    pub client: Client,
    /// Shared caches over that client.
    pub informers: Informers,
    stop: CancellationToken,
    tasks: TaskTracker,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// An API server with upstream's initial namespaces, and nobody who does anything.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let driver = store::Sqlite::driver(folder.path());
        let (store, _) = store::Store::open(driver, Arc::new(JsonCodec), store::Options::default())
            .await
            .expect("a store in the temporary folder");
        let api = ApiServer::new(store, config()).expect("a server of this configuration");
        let client = client::in_process(api.in_process(User::admin()));
        let cluster = Cluster {
            api,
            informers: Informers::new(client.clone()),
            client,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _folder: folder,
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            cluster
                .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
                .await;
        }
        cluster
    }

    /// A client that is this node's agent.
    pub fn as_node(&self, name: &str) -> Client {
        client::in_process(self.api.in_process(User::node(name)))
    }

    /// A client that shows this bearer token; `None` where the server does not know it.
    pub async fn with_token(&self, token: &str) -> Option<Client> {
        let user = self.api.token_user(token).await?;
        Some(client::in_process(self.api.in_process(user)))
    }

    /// Runs something until the cluster stops.
    pub fn spawn<F>(&self, run: impl FnOnce(Client, Informers, CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.child_token();
        self.tasks.spawn(run(self.client.clone(), self.informers.clone(), stop));
    }

    /// Stops everything that was spawned and waits for it.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// An API for objects of the kind that `object` is of.
    fn api_of(&self, object: &Value) -> Api<DynamicObject> {
        let (api_version, kind) = (text(object, "apiVersion"), text(object, "kind"));
        let (group, version) = api::resource::split_api_version(&api_version);
        let resource = api::resource::find_kind(group, version, &kind)
            .unwrap_or_else(|| panic!("{api_version} {kind} is no built-in kind"));
        let api_resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.clone(),
            kind,
            plural: resource.plural.to_string(),
        };
        if resource.namespaced {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
            Api::namespaced_with(self.client.clone(), namespace, &api_resource)
        } else {
            Api::all_with(self.client.clone(), &api_resource)
        }
    }

    /// Creates or changes an object as `kubectl apply --server-side` does.
    pub async fn apply(&self, object: Value) -> DynamicObject {
        let name = text(&object["metadata"], "name");
        let params = PatchParams::apply("testkit").force();
        self.api_of(&object)
            .patch(&name, &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("applying {name}: {error:?}"))
    }

    /// Waits until `look` gives something; says `what` was waited for where it never does.
    pub async fn eventually<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let looking = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(found) => found,
            Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn text(object: &Value, member: &str) -> String {
    object[member].as_str().unwrap_or_else(|| panic!("no {member} in {object}")).to_owned()
}
