//! What writes and linearizable reads cost over each datastore: `bench/datastores.sh` starts real
//! servers and runs this.
//!
//!   datastores SECONDS FOLDER ENDPOINT...     an etcd's own puts are measured beside the store's

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Codec, Datastore, Expect, Key, Labels, Options, Revision, Store, TlsFiles};

/// About what a small pod comes to.
const VALUE_BYTES: usize = 1500;
const WRITERS: usize = 16;

struct Json;

impl Codec for Json {
    fn stamp(&self, value: &[u8], revision: Revision) -> Bytes {
        store::stamp_member(value, b"\"metadata\":{", "resourceVersion", revision)
    }

    fn labels(&self, _value: &[u8]) -> Labels {
        Labels::default()
    }
}

fn value() -> Bytes {
    format!(r#"{{"metadata":{{"name":"x"}},"text":"{}"}}"#, "x".repeat(VALUE_BYTES)).into()
}

/// The times of an operation that some do again and again at once.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    clients: usize,
    seconds: u64,
    operation: impl Fn(usize, usize) -> F + Clone + Send + 'static,
) -> String {
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let operation = operation.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                operation(client, took.len()).await;
                took.push(begun.elapsed());
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let elapsed = start.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: f64| {
        let place = (took.len() as f64 * part) as usize;
        took.get(place.min(took.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    let rate = took.len() as f64 / elapsed;
    format!("{rate:.0} /s, {:.2} / {:.1} ms", at(0.5), at(0.99))
}

async fn store_puts(store: &Store, clients: usize, seconds: u64) -> String {
    let (store, value) = (store.clone(), value());
    measure(clients, seconds, move |client, n| {
        let (store, value) = (store.clone(), value.clone());
        async move {
            let key = Key::new("pods", "default", format!("p{client}-{}", n % 500));
            store.put(key, Expect::Any, value).await.expect("put");
        }
    })
    .await
}

async fn barriers(store: &Store, clients: usize, seconds: u64) -> String {
    let store = store.clone();
    measure(clients, seconds, move |_, _| {
        let store = store.clone();
        async move {
            store.barrier().await.expect("barrier");
        }
    })
    .await
}

async fn plain_puts(url: &str, clients: usize, seconds: u64) -> Result<String, Box<dyn Error>> {
    let client = etcd_client::Client::connect([url], None).await?;
    let value = value();
    Ok(measure(clients, seconds, move |client_number, n| {
        let (mut client, value) = (client.clone(), value.clone());
        async move {
            let key = format!("/plain/p{client_number}-{}", n % 500);
            client.put(key, value.to_vec(), None).await.expect("put");
        }
    })
    .await)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, folder, endpoints @ ..] = arguments.as_slice() else {
        return Err("usage: datastores SECONDS FOLDER ENDPOINT...".into());
    };
    let seconds: u64 = seconds.parse()?;
    println!(
        "| | 1 writer, p50 / p99 | {WRITERS} writers | 1 barrier, p50 / p99 | {WRITERS} at once |"
    );
    println!("|---|---|---|---|---|");
    for endpoint in endpoints {
        let datastore = Datastore::parse(endpoint, TlsFiles::default(), Path::new(folder))?;
        let opened = Store::open(datastore.driver(), Arc::new(Json), Options::default()).await;
        let (store, _) = opened.map_err(|e| base::chain(&e).to_string())?;
        if let Some(url) = endpoint.split(',').next().filter(|_| endpoint.starts_with("http")) {
            let one = plain_puts(url, 1, seconds).await?;
            let many = plain_puts(url, WRITERS, seconds).await?;
            println!("| plain puts, {datastore} | {one} | {many} | | |");
        }
        let one = store_puts(&store, 1, seconds).await;
        let many = store_puts(&store, WRITERS, seconds).await;
        let barrier = barriers(&store, 1, seconds).await;
        let shared = barriers(&store, WRITERS, seconds).await;
        println!("| {datastore} | {one} | {many} | {barrier} | {shared} |");
        store.close().await?;
    }
    Ok(())
}
