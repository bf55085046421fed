use std::sync::Arc;

use apiserver::{ApiServer, Config, JsonCodec, User};
use client::Informers;
use kube::Client;
use store::Options;

use crate::config::config;
use crate::datastore::{Datastore, Member};

/// Several API servers over one datastore, each with its own memory of it.
pub struct Servers {
    /// What they share.
    pub datastore: Datastore,
    /// The servers, in the order of their numbers.
    pub all: Vec<Server>,
    config: Config,
}

/// One of several servers.
pub struct Server {
    /// The API server.
    pub api: Arc<ApiServer>,
    /// An administrator's client to it.
    pub client: Client,
    /// Shared caches over that client.
    pub informers: Informers,
    /// Its way to the datastore.
    pub link: Member,
    /// Its store.
    pub store: store::Store,
}

impl Servers {
    /// So many servers with the objects that every cluster has, all started at once.
    pub async fn start(count: usize) -> Self {
        let mut servers =
            Servers { datastore: Datastore::default(), all: Vec::new(), config: config() };
        for _ in 0..count {
            servers.add().await;
        }
        let starts = servers.all.iter().map(|server| server.api.bootstrap());
        for started in futures::future::join_all(starts).await {
            started.expect("the objects that every cluster has");
        }
        servers
    }

    /// One more server, at the address that its number gives it; its own objects are not made yet.
    pub async fn add(&mut self) -> &Server {
        let number = self.all.len();
        let link = self.datastore.member();
        let (store, _) = store::Store::open(link.clone(), Arc::new(JsonCodec), Options::default())
            .await
            .expect("a store over the shared datastore");
        let advertise = format!("192.0.2.{}:6443", number + 1).parse().expect("an address");
        let config = Config { advertise, ..self.config.clone() };
        let api = ApiServer::new(store.clone(), config).expect("a server of this configuration");
        let client = client::in_process(api.in_process(User::admin()));
        let informers = Informers::new(client.clone());
        self.all.push(Server { api, client, informers, link, store });
        &self.all[number]
    }
}
