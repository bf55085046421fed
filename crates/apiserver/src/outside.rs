//! Requests on this port that are no part of the Kubernetes API: how boards join is the binary's
//! business.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use api::status::Status;
use futures::FutureExt;

use crate::authn::Peer;
use crate::request::{Request, Response};
use crate::response;
use crate::user::User;

/// The other end of a request that is handed on.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Where it comes from; `None` within the process.
    pub address: Option<SocketAddr>,
    /// The identity in its client certificate, which the TLS handshake has verified.
    pub user: Option<User>,
}

/// Answers requests below paths of its own. It gets them before anybody has asked who the caller
/// is or has limited anything: both are its own business.
pub trait Outside: Send + Sync + 'static {
    /// Whether requests for this path are its own.
    fn takes(&self, path: &str) -> bool;

    /// Answers a request.
    fn answer(
        self: Arc<Self>,
        request: Request,
        caller: Caller,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>>;
}

/// Hands a request on. A panic becomes an answer: one bad request must not end the server.
pub(crate) async fn answer(outside: Arc<dyn Outside>, request: Request) -> Response {
    let caller = request.extensions().get::<Peer>().map_or_else(Caller::default, |peer| Caller {
        address: Some(peer.address),
        user: peer.user.as_deref().cloned(),
    });
    let path = request.uri().path().to_owned();
    let work = AssertUnwindSafe(outside.answer(request, caller)).catch_unwind();
    work.await.unwrap_or_else(|_| {
        tracing::error!(%path, "a handler panicked");
        response::status(&Status::internal_error("This request caused a panic."))
    })
}
