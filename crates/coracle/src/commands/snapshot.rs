//! `coracle snapshot`: the cluster in a file, and back.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use store::{Sqlite, Store};

use super::kubeconfig;
use crate::cli::{Output, Snapshot, SnapshotCommand};
use crate::config::{self, Common};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::server::{self, Lock};
use crate::snapshot::{
    self, Folder, Listed, Order, PATH, Places, Reason, Refusal, Saved, Source, Storage,
};
use crate::{address, tls, upgrade};

/// What a server answers about a snapshot.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Carries out a command on snapshots.
pub async fn run(common: Common, options: Snapshot) -> Outcome {
    tls::install_provider();
    let Snapshot { places, command } = options;
    let here = Here {
        folder: Folder(absolute(places.folder(&common.data_dir))?),
        storage: places.s3.s3.then(|| Storage::new(&places.s3)).transpose()?,
        places,
        common,
    };
    match command {
        SnapshotCommand::Save { name } => here.save(&name).await,
        SnapshotCommand::List { output } => here.list(output).await,
        SnapshotCommand::Check { snapshot } => here.check(&snapshot).await,
        SnapshotCommand::Restore { snapshot, replace, token, token_file } => {
            here.restore(&snapshot, replace, token, token_file).await
        }
        SnapshotCommand::Prune { keep, name } => here.prune(&name, keep).await,
        SnapshotCommand::Delete { names } => here.delete(&names).await,
    }
}

/// What the flags and this board come to.
struct Here {
    common: Common,
    places: Places,
    folder: Folder,
    storage: Option<Storage>,
}

impl Here {
    async fn save(&self, prefix: &str) -> Outcome {
        let order = Order {
            prefix: prefix.to_owned(),
            reason: Reason::OnDemand,
            folder: self.folder.0.clone(),
            passphrase: self.places.passphrase()?,
            s3: self.places.s3.clone(),
        };
        let saved = match self.ask_server(&order).await? {
            Some(saved) => saved,
            None => self.save_stopped(&order).await?,
        };
        println!("{}", saved.taken.path.display());
        if let Some(stored) = &saved.stored {
            println!("{stored}");
        }
        eprintln!(
            "{} objects of revision {}, {} KiB, read back and sound",
            saved.taken.totals.objects,
            saved.taken.about.revision,
            saved.taken.size.div_ceil(1024)
        );
        if order.passphrase.is_none() {
            eprintln!("to restore it on another board you need the server token as well");
        }
        Ok(())
    }

    /// Asks the server on this board; none where it does not run.
    async fn ask_server(&self, order: &Order) -> Outcome<Option<Saved>> {
        let path = kubeconfig::path(&self.common.data_dir);
        if !path.exists() {
            return Ok(None);
        }
        let doing = || format!("asking the server of {}", path.display());
        let config = Kubeconfig::read_from(&path).doing(doing)?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options).await;
        let mut config = config.doing(doing)?;
        // A large cluster and a slow storage take their time.
        config.read_timeout = None;
        let client = kube::Client::try_from(config).doing(doing)?;
        let order = serde_json::to_vec(order).doing(doing)?;
        let request = Request::post(PATH).body(Body::from(order)).doing(doing)?;
        let Ok(response) = client.send(request).await else { return Ok(None) };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body: Bytes = body.doing(doing)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).doing(doing).map(Some);
        }
        let refusal: Refusal = serde_json::from_slice(&body)
            .doing(|| format!("the server answered {status} and no more"))
            .hint(|| "see whether it is of the same release as this `coracle`".into())?;
        let failure = Failure::new(refusal.error);
        Err(match refusal.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        })
    }

    /// Reads the files of a server that does not run.
    async fn save_stopped(&self, order: &Order) -> Outcome<Saved> {
        let data_dir = &self.common.data_dir;
        let db = data_dir.join("server/db");
        if !db.join("store.db").exists() {
            let failure = Failure::new(format!(
                "there is no running server here, and no database in {}",
                db.display()
            ));
            return Err(match data_dir.join("server/etcd").exists() {
                true => failure.hint("start the server: its etcd must run to be read"),
                false => failure.hint("run it on a server, with its --data-dir"),
            });
        }
        let _lock = Lock::take(data_dir, "reading the data of a stopped server")?;
        let codec = std::sync::Arc::new(apiserver::JsonCodec);
        let opened = Store::open(Sqlite::driver(&db), codec, server::store_options()).await;
        let (store, _) = opened
            .doing(|| format!("opening {}", db.display()))
            .hint(|| "start the server once: it repairs what it can".into())?;
        let source = Source {
            release: upgrade::current(),
            store: store.clone(),
            engine: "sqlite".to_owned(),
            data_dir: data_dir.clone(),
            node: address::host_name()?,
        };
        let saved = snapshot::take(&source, order).await;
        drop(source);
        store.close().await.doing(|| format!("closing {}", db.display()))?;
        saved
    }

    async fn list(&self, output: Output) -> Outcome {
        let mut listed = self.folder.list()?;
        if let Some(storage) = &self.storage {
            listed.extend(storage.list().await?);
        }
        match output {
            Output::Json => {
                let text = serde_json::to_string_pretty(&listed)
                    .doing(|| "writing the list as JSON".into())?;
                println!("{text}");
            }
            Output::Table => print_table(&listed),
        }
        Ok(())
    }

    async fn check(&self, wanted: &str) -> Outcome {
        let found = self.find(wanted).await?;
        let path = found.path().to_owned();
        let passphrase = self.places.passphrase()?;
        let checked = snapshot::check(&path, passphrase.as_deref());
        let (about, totals) = checked.map_err(|error| {
            let hint = error.hint();
            Failure::new(format!("{}: {}", found.shown, base::chain(&error))).hint(hint)
        })?;
        println!("{} is sound", found.shown);
        println!("taken    {} on {} ({})", about.created, about.node, about.version);
        println!("cluster  {}", about.cluster);
        println!(
            "holds    {} objects, {} bytes, of revision {}",
            totals.objects, totals.bytes, about.revision
        );
        for (collection, count) in &totals.collections {
            println!("         {count:>6} {collection}");
        }
        Ok(())
    }

    async fn restore(
        &self,
        wanted: &str,
        replace: bool,
        token: Option<String>,
        token_file: Option<PathBuf>,
    ) -> Outcome {
        let server = self.common.data_dir.join("server");
        let _lock = Lock::take(&self.common.data_dir, "restoring a snapshot")?;
        snapshot::may_replace(&server, replace)?;
        let found = self.find(wanted).await?;
        let passphrase = self.places.passphrase()?;
        let read = snapshot::read(found.path(), passphrase.as_deref())?;
        let about = read.about.clone();
        let tokens = tokens(&server, token, token_file)?;
        let data_dir = &self.common.data_dir;
        let options = config::server_options(&self.common)?.datastore;
        let elsewhere = options.datastore_endpoint.as_deref();
        let elsewhere = elsewhere.map(|url| options.elsewhere(url, data_dir)).transpose()?;
        let named = elsewhere.as_ref().map(ToString::to_string);
        let restored = snapshot::restore(read, &server, tokens, elsewhere).await?;
        println!(
            "restored {} objects of revision {}, taken on {} at {}",
            restored.objects, about.revision, about.node, about.created
        );
        println!("new revisions go on above {}", restored.revision);
        if let Some(named) = &named {
            println!("the objects are in {named}");
        }
        if let Some(aside) = restored.aside {
            println!("what was here before is in {}; remove it when all is well", aside.display());
        }
        println!("next: start this server (`systemctl start coracle`, or `coracle server`)");
        println!(
            "then: other servers must not come back with their old data: on each, \
             `coracle uninstall`, and join it anew with --server and --token"
        );
        println!(
            "      agents find the cluster by themselves, if this server has an address they know"
        );
        if named.is_none() {
            println!(
                "      for several servers: start this one with --cluster-init, then join the others"
            );
        }
        Ok(())
    }

    async fn prune(&self, prefix: &str, keep: usize) -> Outcome {
        let passphrase = self.places.passphrase()?;
        let passphrase = passphrase.as_deref();
        let mut gone = snapshot::prune(&self.folder, None, prefix, keep, passphrase).await?;
        if self.storage.is_some() {
            let storage = self.storage.as_ref();
            gone.extend(snapshot::prune(&self.folder, storage, prefix, keep, passphrase).await?);
        }
        gone.iter().for_each(|one| println!("removed {}", one.location));
        if gone.is_empty() {
            println!("nothing to remove");
        }
        Ok(())
    }

    async fn delete(&self, names: &[String]) -> Outcome {
        for name in names {
            let name = snapshot::of_present(name)?;
            let mut found = false;
            if self.folder.0.join(&name).exists() {
                self.folder.remove(&name)?;
                found = true;
            }
            if let Some(storage) = &self.storage
                && storage.list().await?.iter().any(|one| one.name == name)
            {
                storage.remove(&name).await?;
                found = true;
            }
            if !found {
                return Err(self.nowhere(&name));
            }
            println!("removed {name}");
        }
        Ok(())
    }

    /// Finds a snapshot by its file, by its name in the folder, or by its name in the storage.
    async fn find(&self, wanted: &str) -> Outcome<Found> {
        for path in [PathBuf::from(wanted), self.folder.0.join(wanted)] {
            if path.is_file() {
                return Ok(Found { shown: path.display().to_string(), path, fetched: false });
            }
        }
        let Some(storage) = &self.storage else { return Err(self.nowhere(wanted)) };
        let name = snapshot::of_present(wanted)?;
        let (path, mut file) = self.folder.fetched(&name)?;
        let found = Found { shown: storage.location(&name), path, fetched: true };
        storage.get(&name, &mut file).await?;
        Ok(found)
    }

    fn nowhere(&self, wanted: &str) -> Failure {
        let storage = self.storage.as_ref().map(|storage| storage.location(""));
        let or = storage.map(|storage| format!(" or {storage}")).unwrap_or_default();
        Failure::new(format!("there is no snapshot {wanted} in {}{or}", self.folder.0.display()))
            .hint("`coracle snapshot list` shows what there is; a file is found by its path")
    }
}

/// A snapshot's file; one that was fetched is removed with this.
struct Found {
    path: PathBuf,
    shown: String,
    fetched: bool,
}

impl Found {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        if self.fetched {
            // What stays is cleared by the next snapshot.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The server writes where its own working folder is not ours.
fn absolute(path: PathBuf) -> Outcome<PathBuf> {
    std::path::absolute(&path).doing(|| format!("finding {}", path.display()))
}

/// The secrets that may open the cluster's keys: what was given, and what this board knows.
fn tokens(server: &Path, token: Option<String>, file: Option<PathBuf>) -> Outcome<Vec<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .doing(|| format!("reading the token {}", path.display()))
            .hint(|| "name the file that holds the server token".into())
    };
    let given = match (token, file) {
        (Some(token), _) => Some(token),
        (None, Some(file)) => Some(read(&file)?),
        (None, None) => None,
    };
    let own = read(&server.join("token")).ok();
    let secret = |token: String| {
        let secret = token.trim().rsplit(':').next().unwrap_or_default().to_owned();
        Some(secret).filter(|secret| !secret.is_empty())
    };
    Ok([given, own].into_iter().flatten().filter_map(secret).collect())
}

fn print_table(listed: &[Listed]) {
    let width = |of: fn(&Listed) -> usize, head: &str| {
        listed.iter().map(of).max().unwrap_or(0).max(head.len())
    };
    let name = width(|one| one.name.len(), "NAME");
    let location = width(|one| one.location.len(), "LOCATION");
    println!("{:name$}  {:location$}  {:>9}  CREATED", "NAME", "LOCATION", "SIZE");
    for one in listed {
        println!(
            "{:name$}  {:location$}  {:>5} KiB  {}",
            one.name,
            one.location,
            one.size.div_ceil(1024),
            one.created
        );
    }
}
