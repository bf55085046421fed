//! The generic verbs over the store.

use std::sync::Arc;

use crate::request::{Request, RequestInfo, Response};
use crate::response;
use crate::server::Context;
use crate::user::User;

/// Answers every resource request that is not a proxy or a virtual review.
pub(crate) struct Registry {
    context: Arc<Context>,
}

impl Registry {
    /// A registry over the context's store.
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Registry { context })
    }

    /// Answers one authorized request.
    pub(crate) async fn handle(
        self: Arc<Self>,
        _info: RequestInfo,
        _user: User,
        _request: Request,
    ) -> Response {
        let _ = self.context.store.revision();
        response::not_found()
    }
}
