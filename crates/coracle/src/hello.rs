//! The hello workload: a small web page that shows where it runs and how often it was asked for.
//! It is packed into an image together with this very binary, so that the first workload of a
//! cluster needs no registry.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::{Hint, Outcome, While};

/// The port that the page is served on unless another is named.
pub const PORT: u16 = 8080;
/// More visitors at once than this wait their turn.
const MAX_CONNECTIONS: usize = 256;

struct Place {
    pod: String,
    namespace: String,
    node: String,
    hits: AtomicU64,
}

/// Serves the page until SIGTERM or SIGINT, and finishes the answers under way.
pub async fn run(port: u16) -> Outcome {
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let listener = TcpListener::bind(address)
        .await
        .doing(|| format!("listening on {address}"))
        .hint(|| "choose another port with --port".into())?;
    let variable = |name: &str| std::env::var(name).ok();
    let place = Arc::new(Place {
        pod: variable("POD_NAME").or_else(|| variable("HOSTNAME")).unwrap_or_default(),
        namespace: variable("POD_NAMESPACE").unwrap_or_default(),
        node: variable("NODE_NAME").unwrap_or_default(),
        hits: AtomicU64::new(0),
    });
    let mut terminate = signal(SignalKind::terminate()).doing(|| "waiting for SIGTERM".into())?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(|| "waiting for SIGINT".into())?;
    let mut visitors = JoinSet::new();
    let stop = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if visitors.len() < MAX_CONNECTIONS => accepted,
            Some(_) = visitors.join_next() => continue,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (local, place) = (stream.local_addr(), place.clone());
        let answer = service_fn(move |request| {
            let page = page(&place, local.as_ref().ok(), &request);
            async move { Ok::<_, Infallible>(page) }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new());
        let connection = server.serve_connection(TokioIo::new(stream), answer).into_owned();
        let stop = stop.clone();
        visitors.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            // What a visitor's connection ends with is no concern of the page.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(listener);
    stop.cancel();
    while visitors.join_next().await.is_some() {}
    Ok(())
}

fn page(
    place: &Place,
    local: Option<&SocketAddr>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let hits = match request.uri().path() {
        // Probes do not count as visits.
        "/healthz" | "/readyz" | "/livez" => return Response::new(Full::from("ok")),
        _ => place.hits.fetch_add(1, Ordering::Relaxed) + 1,
    };
    let address = local.map(|address| address.ip().to_string()).unwrap_or_default();
    let rows = [
        ("pod", place.pod.as_str()),
        ("namespace", place.namespace.as_str()),
        ("node", place.node.as_str()),
        ("address", address.as_str()),
        ("hits", &hits.to_string()),
    ];
    let wants_page = request
        .headers()
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.as_bytes().windows(9).any(|part| part == b"text/html"));
    let (kind, body) = match wants_page {
        true => ("text/html; charset=utf-8", html(&rows)),
        false => ("text/plain; charset=utf-8", text(&rows)),
    };
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn text(rows: &[(&str, &str)]) -> String {
    let mut body = String::from("Hello from Coracle!\n");
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        body.push_str(&format!("{name}: {value}\n"));
    }
    body
}

fn html(rows: &[(&str, &str)]) -> String {
    let mut body = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content='width=device-width'><title>Hello from Coracle</title>\
         <style>body{font:18px/1.6 system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}\
         dt{color:#666;float:left;width:7rem;clear:left}dd{margin:0 0 .3rem 7rem}</style>\
         <h1>Hello from Coracle!</h1><dl>",
    );
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let escaped = value.replace('&', "&amp;").replace('<', "&lt;");
        body.push_str(&format!("<dt>{name}<dd>{escaped}"));
    }
    body.push_str("</dl>\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_is_known_and_escapes_it() {
        let rows = [("pod", "web-1"), ("node", ""), ("address", "<10.42.0.5>")];
        assert_eq!(text(&rows), "Hello from Coracle!\npod: web-1\naddress: <10.42.0.5>\n");
        assert!(html(&rows).contains("<dt>address<dd>&lt;10.42.0.5>"));
    }
}
