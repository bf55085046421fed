//! OpenAPI v3 documents of aggregated servers: listed in this server's index, and fetched through
//! it from where they are.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{ApiService, ask_all, pass};
use crate::server::Context;

/// How long an aggregated server may take to list its documents.
const PATIENCE: Duration = Duration::from_secs(5);

/// Adds the documents of aggregated servers to the index of `/openapi/v3`.
pub(crate) async fn openapi_index(context: &Arc<Context>, mut index: Value) -> Value {
    let table = context.aggregator.table();
    let there: Vec<Arc<ApiService>> = table
        .values()
        .filter(|service| service.service.is_some() && service.is_available())
        .cloned()
        .collect();
    let asked = there.into_iter().map(|service| listed(Arc::clone(context), service));
    for (path, found) in ask_all(asked).await.into_iter().flatten() {
        index["paths"][path] = found;
    }
    index
}

/// An aggregated server's entry of its own index; servers of before OpenAPI v3 have none.
async fn listed(context: Arc<Context>, service: Arc<ApiService>) -> Option<(String, Value)> {
    let path = format!("apis/{}/{}", service.group, service.version);
    let theirs = pass::fetch(&context, &service, "/openapi/v3", PATIENCE).await.ok()?;
    let found = theirs["paths"][&path].clone();
    found.is_object().then_some((path, found))
}
