//! What every request passes before it meets its handler.

use std::sync::Arc;

use api::status::Status;

use crate::authn;
use crate::authz::Attributes;
use crate::request::{Request, RequestInfo, Response};
use crate::response;
use crate::server::ApiServer;
use crate::user::User;

impl ApiServer {
    /// Answers a request; `fixed` is the identity of an in-process caller.
    pub(crate) async fn answer(
        self: Arc<Self>,
        mut request: Request,
        fixed: Option<User>,
    ) -> Response {
        let info = match RequestInfo::parse(request.method(), request.uri()) {
            Ok(info) => info,
            Err(message) => return response::status(&Status::bad_request(message)),
        };
        let context = &self.context;
        let user = match fixed {
            Some(user) => user,
            None => {
                match authn::authenticate(&mut request, &context.tokens, context.config.anonymous) {
                    Some(user) => user,
                    None => return response::status(&Status::unauthorized()),
                }
            }
        };
        let attributes = Attributes::of(&user, &info);
        let decision = context.authorizer.authorize(&attributes);
        if !decision.allowed {
            return response::status(&attributes.forbidden(&decision.reason));
        }
        if info.is_resource {
            return Arc::clone(&self.registry).handle(info, user, request).await;
        }
        response::not_found()
    }
}
