//! The gRPC health check (grpc.health.v1.Health/Check), spoken by hand: one message each way
//! needs no protobuf library.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::dial;

/// `SERVING` of the protocol's enumeration.
const SERVING: u8 = 1;

/// Asks whether `service` (empty: the server as a whole) is served.
pub async fn check(address: SocketAddr, service: &str) -> Result<(), String> {
    let text = |error: hyper::Error| base::chain(&error).to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| dial(address, &error))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(text)?;
    let background = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = grpc_status(response.headers());
        let collected = response.into_body().collect().await.map_err(text)?;
        let status = collected.trailers().and_then(grpc_status).or(status);
        Ok::<_, String>((status, collected.to_bytes()))
    }
    .await;
    background.abort();
    let (status, body) = answer?;
    match status.as_deref() {
        None | Some("0") => {}
        Some(code) => return Err(format!("error: health rpc failed: rpc error: code = {code}")),
    }
    if serving(&body) {
        Ok(())
    } else {
        Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned())
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status")?.to_str().ok().map(str::to_owned)
}

/// A length-prefixed `HealthCheckRequest { service = 1 }`.
fn message(service: &str) -> Bytes {
    let mut proto = BytesMut::new();
    // A name longer than one length byte can say is cut: no server has one.
    let name = &service.as_bytes()[..service.len().min(127)];
    if !name.is_empty() {
        proto.put_u8(0x0a);
        proto.put_u8(name.len() as u8);
        proto.put_slice(name);
    }
    let mut out = BytesMut::with_capacity(5 + proto.len());
    out.put_u8(0);
    out.put_u32(proto.len() as u32);
    out.put_slice(&proto);
    out.freeze()
}

/// Whether a length-prefixed `HealthCheckResponse { status = 1 }` says SERVING.
fn serving(body: &[u8]) -> bool {
    body.get(5..).is_some_and(|proto| proto.starts_with(&[0x08, SERVING]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("a")[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert!(
            serving(&[0, 0, 0, 0, 2, 8, 1]) && !serving(&[0, 0, 0, 0, 2, 8, 2]) && !serving(&[])
        );
    }
}
