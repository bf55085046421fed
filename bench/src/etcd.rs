//! etcd's own put rate, as a yardstick of the disk: gRPC by hand, so that nothing but HTTP/2 is
//! needed. Format: `etcdserverpb.KV/Put` of etcd's api/etcdserverpb/rpc.proto.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::figures::Figures;

const CLIENTS: usize = 16;
/// About what a small pod comes to.
const VALUE_BYTES: usize = 1500;

/// Puts from 16 clients for some seconds; notes the rate and the time of one put.
pub async fn run(figures: &mut Figures, address: &str, seconds: u64) -> Outcome {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        tokio::spawn(connection);
        clients.push(sender);
    }
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let address = address.to_owned();
        tasks.spawn(puts(client, address, number, end));
    }
    let mut took = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        took.extend(ended??);
    }
    figures.set("etcd_put_rate", took.len() as f64 / start.elapsed().as_secs_f64())?;
    figures.set_quantiles("etcd_put", took)
}

async fn puts(
    mut client: SendRequest<Full<Bytes>>,
    address: String,
    number: usize,
    end: Instant,
) -> Outcome<Vec<Duration>> {
    let mut took = Vec::new();
    while Instant::now() < end {
        let key = format!("/registry/pods/default/pod-{number}-{}", took.len());
        let request = Request::post(format!("http://{address}/etcdserverpb.KV/Put"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(put(key.as_bytes())))?;
        let sent = Instant::now();
        client.ready().await?;
        let body = client.send_request(request).await?.into_body().collect().await?;
        let status = body.trailers().and_then(|t| t.get("grpc-status")).cloned();
        if status.as_ref().is_none_or(|status| status != "0") {
            return Err(format!("etcd answered {status:?}").into());
        }
        took.push(sent.elapsed());
    }
    Ok(took)
}

/// A gRPC frame with a `PutRequest { key = 1, value = 2 }`.
fn put(key: &[u8]) -> Bytes {
    let value = [b'x'; VALUE_BYTES];
    let mut message = BytesMut::new();
    for (field, bytes) in [(1u8, key), (2, &value)] {
        message.put_u8(field << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(bytes);
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}
