//! The running server's side of `coracle snapshot save`: the command asks, the server writes, since
//! only it has the datastore open.

use std::pin::Pin;
use std::sync::Arc;

use apiserver::{Body, Caller, Outside, Request, Response};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Order, Saved, Source, Tally, take};
use crate::failure::{Failure, Hint, Outcome, While};

/// Where snapshots are asked for.
pub const PATH: &str = "/v1-coracle/snapshots";
/// An order is a few lines.
const MAX_ORDER_BYTES: usize = 64 << 10;
/// Who may have all of the cluster in a file.
const ADMINS: &str = "system:masters";

/// Takes snapshots for whoever may have them, one at a time.
pub struct Desk {
    source: Source,
    tally: Arc<Tally>,
    busy: Mutex<()>,
}

/// What a refusal says.
#[derive(Serialize, Deserialize)]
pub struct Refusal {
    /// What went wrong.
    pub error: String,
    /// The next step.
    pub hint: Option<String>,
}

impl Desk {
    /// A desk over a running server's store.
    pub fn new(source: Source, tally: Arc<Tally>) -> Arc<Self> {
        Arc::new(Desk { source, tally, busy: Mutex::new(()) })
    }

    /// Takes a snapshot, after any that is being taken.
    pub async fn take(&self, order: &Order) -> Outcome<Saved> {
        let _turn = self.busy.lock().await;
        let outcome = take(&self.source, order).await;
        self.tally.note(&outcome);
        outcome
    }

    /// What the snapshots are of.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Answers a request for [`PATH`].
    pub async fn serve(&self, request: Request, caller: Caller) -> Response {
        let is_admin = caller.user.is_some_and(|user| user.groups.iter().any(|g| g == ADMINS));
        if !is_admin {
            let refusal = Failure::new("only the cluster's admin may take snapshots")
                .hint("run `sudo coracle snapshot save` on a server");
            return refuse(StatusCode::FORBIDDEN, &refusal);
        }
        if request.method() != Method::POST {
            let refusal = Failure::new("snapshots are asked for by POST");
            return refuse(StatusCode::METHOD_NOT_ALLOWED, &refusal);
        }
        let order = match read(request).await {
            Ok(order) => order,
            Err(failure) => return refuse(StatusCode::BAD_REQUEST, &failure),
        };
        match self.take(&order).await {
            Ok(saved) => answer(StatusCode::OK, &saved),
            Err(failure) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &failure),
        }
    }
}

impl Outside for Desk {
    fn takes(&self, path: &str) -> bool {
        path == PATH
    }

    fn answer(
        self: Arc<Self>,
        request: Request,
        caller: Caller,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        Box::pin(async move { self.serve(request, caller).await })
    }
}

async fn read(request: Request) -> Outcome<Order> {
    let doing = || "reading what snapshot is wanted".to_owned();
    let (mut body, mut order) = (request.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string()).doing(doing)?;
        order.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if order.len() > MAX_ORDER_BYTES {
            return Err(Failure::new("what snapshot is wanted takes more than 64 KiB to say"));
        }
    }
    serde_json::from_slice(&order)
        .doing(doing)
        .hint(|| "use the `coracle` of the release that the server runs".into())
}

fn refuse(status: StatusCode, failure: &Failure) -> Response {
    tracing::warn!(hint = failure.next_step(), "snapshot: {}", base::chain(failure));
    let refusal =
        Refusal { error: base::chain(failure), hint: failure.next_step().map(str::to_owned) };
    answer(status, &refusal)
}

fn answer(status: StatusCode, content: &impl Serialize) -> Response {
    let content = serde_json::to_vec(content).unwrap_or_default();
    let body = http_body_util::Full::new(Bytes::from(content)).map_err(|never| match never {});
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}
