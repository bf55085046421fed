//! OpenAPI documents of aggregated servers: those of v3 are listed in this server's index, and
//! fetched through it from where they are; the one of v2 becomes part of this server's.

use std::sync::Arc;
use std::time::Duration;

use api::openapi::Foreign;
use serde_json::Value;
use tokio::time::Instant;

use super::{ApiService, ask_all, pass};
use crate::server::Context;

/// How long an aggregated server may take to list its documents.
const PATIENCE: Duration = Duration::from_secs(5);
/// For this long it is believed to say the same in OpenAPI v2, as upstream does.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Adds the documents of aggregated servers to the index of `/openapi/v3`.
pub(crate) async fn openapi_index(context: &Arc<Context>, mut index: Value) -> Value {
    let asked = there(context).into_iter().map(|service| listed(Arc::clone(context), service));
    for (path, found) in ask_all(asked).await.into_iter().flatten() {
        index["paths"][path] = found;
    }
    index
}

/// What an aggregated server said in OpenAPI v2.
pub(super) struct Described {
    said: Foreign,
    tag: String,
    /// The APIService as it was then: another one, or another state of it, is asked anew.
    of: Arc<ApiService>,
    at: Instant,
}

impl Described {
    fn is_fresh(&self, service: &Arc<ApiService>) -> bool {
        Arc::ptr_eq(&self.of, service) && self.at.elapsed() < ASK_AGAIN
    }
}

/// What aggregated servers say in OpenAPI v2.
pub(crate) async fn openapi_v2(context: &Arc<Context>) -> Vec<Foreign> {
    let asked = there(context).into_iter().map(|service| described(Arc::clone(context), service));
    let mut all = ask_all(asked).await;
    // Answers come in no order, and the document must not change with it.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().filter_map(|(_, found)| found).collect()
}

/// One of them: from memory where that is fresh, else by the tag that is known. Who does not answer
/// now is believed to say what it said before.
async fn described(context: Arc<Context>, service: Arc<ApiService>) -> (String, Option<Foreign>) {
    let name = service.name.clone();
    let known = context.aggregator.described(&name);
    if let Some(known) = known.as_ref().filter(|known| known.is_fresh(&service)) {
        return (name, Some(known.said.clone()));
    }
    let tag = known.as_ref().map_or("", |known| known.tag.as_str());
    let answer = pass::fetch_other(&context, &service, "/openapi/v2", tag, PATIENCE).await;
    let (said, tag) = match (answer, known) {
        (Ok(Some((document, tag))), _) => {
            (Foreign::of(&document, &service.group, &service.version), tag)
        }
        (Ok(None), Some(known)) => (known.said.clone(), known.tag.clone()),
        (_, known) => return (name, known.map(|known| known.said.clone())),
    };
    let described = Described { said: said.clone(), tag, of: service, at: Instant::now() };
    context.aggregator.describe(&name, described);
    (name, Some(said))
}

/// The APIServices whose servers answer.
fn there(context: &Context) -> Vec<Arc<ApiService>> {
    let table = context.aggregator.table();
    let foreign = table.values().filter(|one| one.service.is_some() && one.is_available());
    foreign.cloned().collect()
}

/// An aggregated server's entry of its own index; servers of before OpenAPI v3 have none.
async fn listed(context: Arc<Context>, service: Arc<ApiService>) -> Option<(String, Value)> {
    let path = format!("apis/{}/{}", service.group, service.version);
    let theirs = pass::fetch(&context, &service, "/openapi/v3", PATIENCE).await.ok()?;
    let found = theirs["paths"][&path].clone();
    found.is_object().then_some((path, found))
}
