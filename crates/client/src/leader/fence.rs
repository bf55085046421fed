use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::{BoxError, Service};

/// Until when leadership is certain. A timer that fires late (a stopped process, a board without
/// a free core) must not let a write of the old leader slip out before its work is ended; what
/// asks the fence first cannot do that.
#[derive(Debug, Clone, Default)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

/// A request was not sent because this server no longer leads for certain.
#[derive(Debug, thiserror::Error)]
#[error("this server no longer holds the lease {0}")]
pub struct Fenced(Arc<str>);

impl Fence {
    /// Whether nobody else can hold the lease yet.
    pub fn holds(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// The service with the fence before it: requests are refused once leadership is not certain.
    pub fn around<S>(&self, lease: &str, service: S) -> FencedService<S> {
        FencedService { fence: self.clone(), lease: lease.into(), service }
    }
}

/// See [`Fence::around`].
#[derive(Debug, Clone)]
pub struct FencedService<S> {
    fence: Fence,
    lease: Arc<str>,
    service: S,
}

impl<S, R> Service<R> for FencedService<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = futures::future::Either<
        futures::future::ErrInto<S::Future, BoxError>,
        futures::future::Ready<Result<S::Response, BoxError>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: R) -> Self::Future {
        use futures::{FutureExt, TryFutureExt};
        if !self.fence.holds() {
            return futures::future::err(Fenced(self.lease.clone()).into()).right_future();
        }
        self.service.call(request).err_into().left_future()
    }
}
