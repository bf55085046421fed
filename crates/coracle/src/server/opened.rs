//! The datastore of a running server: the store, and beneath it the etcd that this server
//! supervises, where it does.

use std::sync::Arc;

use store::{OpenError, Recovery, Store, TlsFiles};

use super::datastore::{Datastore, Membership, sqlite_folder};
use super::{Settings, store_options};
use crate::etcd::{Etcd, Place, Say};
use crate::failure::{Failure, Outcome, While};
use crate::join::Bring;
use crate::pki::Pki;

/// An open datastore.
pub struct Opened {
    /// The store over it.
    pub store: Store,
    /// This server's member.
    pub etcd: Option<Etcd>,
}

impl Opened {
    /// Opens the datastore that the settings choose, and says what was found; `say` is told what
    /// is waited for meanwhile.
    pub async fn open(settings: &Settings, bring: &Bring, say: Say) -> Outcome<Opened> {
        let data_dir = &settings.common.data_dir;
        say(&format!("it opens its datastore, {}", settings.datastore.engine()));
        let (engine, etcd) = match &settings.datastore {
            Datastore::Sqlite => (store::Datastore::Sqlite(sqlite_folder(data_dir)), None),
            Datastore::External(endpoint) => {
                (settings.options.datastore.elsewhere(endpoint, data_dir)?, None)
            }
            Datastore::Etcd(membership) => {
                let etcd = start_etcd(settings, bring, membership, say).await?;
                (member_engine(&etcd.place), Some(etcd))
            }
        };
        let store = open_store(&engine).await?;
        Ok(Opened { store, etcd })
    }

    /// Returns where the datastore cannot go on.
    pub async fn ended(&mut self) -> Failure {
        match &mut self.etcd {
            Some(etcd) => etcd.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Makes everything durable and lets go: the store first, then what it stands on.
    pub async fn close(self) -> Outcome {
        let closed = self.store.close().await.doing(|| "closing the store".into());
        if let Some(etcd) = self.etcd {
            etcd.stop().await;
        }
        closed
    }
}

/// The engine that a member of this board's is.
pub fn member_engine(place: &Place) -> store::Datastore {
    let files = TlsFiles {
        ca: Some(place.tls.ca.clone()),
        cert: Some(place.tls.cert.clone()),
        key: Some(place.tls.key.clone()),
    };
    let local = store::EtcdOptions::new(vec![place.local_url()], files);
    store::Datastore::Etcd(store::EtcdOptions { discover: true, ..local })
}

async fn start_etcd(
    settings: &Settings,
    bring: &Bring,
    membership: &Membership,
    say: Say,
) -> Outcome<Etcd> {
    if let (Membership::Join(url), true) = (membership, bring.etcd.is_empty()) {
        return Err(Failure::new(format!(
            "the cluster of {url} does not keep its objects in etcd"
        ))
        .hint(
            "a cluster in sqlite has one server: start that with --cluster-init, which moves \
                 it to etcd; with a datastore of your own, give --datastore-endpoint here too",
        ));
    }
    Etcd::start(place(settings, bring)?, membership, bring.etcd.clone(), say).await
}

/// This board's member, with a certificate from the cluster's authority.
pub fn place(settings: &Settings, bring: &Bring) -> Outcome<Place> {
    let data_dir = &settings.common.data_dir;
    let secrets = bring.known_or_new()?;
    if bring.handed.is_some() {
        // They must be there at the next start too, also where this one ends half-way.
        secrets.write(&bring.folder, "")?;
    }
    let pki = Pki::new(&data_dir.join("server/tls"), Arc::new(secrets))?;
    let node = (settings.node_name.as_str(), settings.node_ip);
    Place::new(data_dir, node, &settings.options.datastore.etcd, &pki)
}

/// Opens the store over an engine, and says what was found.
pub async fn open_store(engine: &store::Datastore) -> Outcome<Store> {
    let opened = Store::open(engine.driver(), Arc::new(apiserver::JsonCodec), store_options());
    let (store, recovery) = opened.await.map_err(|error| refused(engine, error))?;
    match &recovery {
        Recovery::Restored { .. } => tracing::error!("{recovery}"),
        _ => tracing::info!("{recovery}"),
    }
    Ok(store)
}

/// What a person is told of a datastore that does not open.
pub fn refused(engine: &store::Datastore, error: OpenError) -> Failure {
    let hint = error.hint().unwrap_or("the log of this server may say more").to_owned();
    match Err::<(), _>(error).doing(|| format!("starting with {engine}")) {
        Err(failure) => failure.hint(hint),
        Ok(()) => unreachable!("an error was passed in"),
    }
}
