//! From an authorized request to whoever answers it.

use std::sync::Arc;

use api::resource::is_own_group;
use api::status::Status;
use http::{Method, StatusCode};

use crate::request::{Request, RequestInfo, Response};
use crate::server::ApiServer;
use crate::user::User;
use crate::{aggregation, discovery, openapi, proxy, response, reviews, token_request};

/// Paths listed at the root beside those of discovery and health checks.
const FIXED_PATHS: [&str; 6] = [
    "/.well-known/openid-configuration",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/version",
];

impl ApiServer {
    /// Passes a request on by what its path names.
    pub(crate) async fn route(
        self: Arc<Self>,
        info: RequestInfo,
        user: User,
        request: Request,
    ) -> Response {
        if let Some(service) = self.context.aggregator.answering(&info) {
            return aggregation::pass_on(Arc::clone(&self.context), service, user, request).await;
        }
        if !info.is_resource {
            return self.path(info, request).await;
        }
        if !self.registry.knows(&info) {
            return response::not_found();
        }
        if reviews::is_review(&info) {
            return reviews::handle(Arc::clone(&self.context), info, user, request).await;
        }
        if token_request::is_token_request(&info) {
            return token_request::handle(Arc::clone(&self.context), info, user, request).await;
        }
        if proxy::is_proxied(&info) {
            let query = request.uri().query().unwrap_or_default();
            if info.subresource != "log"
                && let Err(status) = self.registry.connect(&info, &user, query).await
            {
                return response::status(&status);
            }
            return proxy::handle(Arc::clone(&self.context), info, user, request).await;
        }
        Arc::clone(&self.registry).handle(info, user, request).await
    }

    /// Answers paths that name no resource; all are for reading.
    async fn path(self: Arc<Self>, info: RequestInfo, request: Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        }
        let path = info.path.as_str();
        if let Some(answer) = discovery::answer(&self.context, path, request.headers()) {
            return answer;
        }
        let query = request.uri().query().unwrap_or("");
        if let Some(answer) = self.health.answer(path, query) {
            return answer;
        }
        match path.trim_end_matches('/') {
            "" => self.root(),
            "/version" => response::pretty(&discovery::version(&self.context.config.version)),
            "/metrics" => self.metrics_page(),
            "/.well-known/openid-configuration" => {
                let mut answer =
                    response::json(StatusCode::OK, &self.context.tokens.openid_configuration());
                openid_cache(&mut answer);
                answer
            }
            "/openid/v1/jwks" => {
                let keys = self.context.tokens.jwks().to_string();
                let mut answer =
                    response::with_type(StatusCode::OK, "application/jwk-set+json", keys);
                openid_cache(&mut answer);
                answer
            }
            path if path.starts_with("/openapi") => {
                let context = Arc::clone(&self.context);
                let headers = request.headers().clone();
                openapi::answer(context, path.to_owned(), query.to_owned(), headers).await
            }
            path if is_of_own_group(path) => response::status(&Status::unknown_path()),
            _ => response::not_found(),
        }
    }

    fn root(&self) -> Response {
        let mut paths: Vec<String> = FIXED_PATHS.iter().map(|path| (*path).to_owned()).collect();
        paths.extend(discovery::paths(&self.context));
        paths.extend(self.health.paths());
        paths.sort();
        response::pretty(&serde_json::json!({"paths": paths}))
    }
}

/// Whether a path leads into a group of this server's own, whose unknown paths are errors of the
/// API; all others are just no pages.
fn is_of_own_group(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("api"), Some(_)) => true,
        (Some("apis"), Some(group)) => !group.is_empty() && is_own_group(group),
        _ => false,
    }
}

/// Keys change rarely: relying parties may keep them for an hour.
fn openid_cache(answer: &mut Response) {
    let value = http::HeaderValue::from_static("public, max-age=3600");
    answer.headers_mut().insert(http::header::CACHE_CONTROL, value);
}
