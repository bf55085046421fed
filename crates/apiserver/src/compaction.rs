//! How long the past can be listed: lists go on from a token, or show an exact revision, for five
//! to ten minutes, as over upstream's compacted etcd, and then end with 410.
//!
//! What is in memory would often last longer, and for how long would be chance. Clients that meet
//! an end they can rely on handle it. Each server of several counts for itself.

use std::sync::Arc;
use std::time::Duration;

use store::{Revision, Store};

use crate::server::ApiServer;

/// How often what is older than a round is compacted: upstream's `--etcd-compaction-interval`.
const INTERVAL: Duration = Duration::from_secs(300);

/// The newest revision of the last round.
struct Noted(Revision);

impl Noted {
    /// Ends what was there before the last round.
    fn round(&mut self, store: &Store) {
        store.compact(self.0);
        self.0 = store.revision();
    }
}

/// Compacts until the server stops.
pub(crate) fn start(server: &Arc<ApiServer>) {
    let mut noted = Noted(server.context.store.revision());
    let stopping = server.context.stopping.clone();
    // A weak reference: this task must not keep a server alive that nobody else holds.
    let server = Arc::downgrade(server);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let Some(server) = server.upgrade() else { return };
            noted.round(&server.context.store);
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{get, send, started};
    use crate::user::User;
    use http::Method;

    const MAPS: &str = "/api/v1/namespaces/default/configmaps";

    #[tokio::test]
    async fn tokens_last_one_round_and_go_on_inconsistently_after_the_second() {
        let server = started().await;
        let admin = User::apiserver();
        let post = |name: &'static str| {
            let object = json!({"metadata": {"name": name}});
            let (server, admin) = (&server, &admin);
            async move { send(server, admin, Method::POST, MAPS, object).await }
        };
        let list = |query: String| {
            let (server, admin) = (&server, &admin);
            async move { get(server, admin, &format!("{MAPS}?{query}")).await }
        };
        for name in ["a", "b", "c"] {
            post(name).await;
        }
        let store = &server.context.store;
        let mut noted = Noted(store.revision());
        let (_, first) = list("limit=1".to_owned()).await;
        let token = first["metadata"]["continue"].as_str().unwrap();
        post("d").await;
        noted.round(store);
        let (code, page) = list(format!("limit=9&continue={token}")).await;
        assert_eq!((code.as_u16(), page["items"].as_array().unwrap().len()), (200, 2));
        noted.round(store);
        let (code, refusal) = list(format!("limit=9&continue={token}")).await;
        assert_eq!((code.as_u16(), &refusal["reason"]), (410, &json!("Expired")));
        let fresh = refusal["metadata"]["continue"].as_str().unwrap();
        let (_, rest) = list(format!("limit=9&continue={fresh}")).await;
        let names: Vec<_> = rest["items"].as_array().unwrap().iter().collect();
        let names: Vec<_> = names.iter().map(|item| item["metadata"]["name"].as_str()).collect();
        assert_eq!(names, [Some("b"), Some("c"), Some("d")], "as things are now");
    }
}
