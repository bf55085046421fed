//! The API server alone on a loopback port, without TLS and with everybody as administrator:
//! for trying clients against it. `cargo run -p apiserver --example plain -- 18080 /tmp/folder`

#[path = "../../testkit/src/config.rs"]
mod config;

use std::sync::Arc;

use apiserver::{ApiServer, JsonCodec, User};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: plain PORT FOLDER".into());
    };
    let volatile = api::resource::VOLATILE_COLLECTIONS.iter().map(|name| (*name).to_owned());
    let options = store::Options { volatile: volatile.collect(), ..store::Options::default() };
    let driver = store::Sqlite::driver(folder);
    let (store, _) = store::Store::open(driver, Arc::new(JsonCodec), options).await?;
    let api = ApiServer::new(store, config::config())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(api.in_process(User::admin()));
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // A client that goes away ends its connection; there is nobody to tell.
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}
