//! Which member to use: the nearest that is well, and the others that the etcd names.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::members::Member;

/// How often to look whether the nearest member is back, and who the others are. First soon:
/// a member may be lost before the first round.
const INTERVAL: Duration = Duration::from_secs(20);

impl Core {
    /// Keeps the list of members, and goes back to the first of them, for ever.
    pub(super) async fn discover(self: Arc<Self>) {
        loop {
            if self.options.discover {
                self.learn_members().await;
            }
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.members.prefer_first().await {
                tracing::debug!(error = base::chain(&error), "the nearest etcd member stays away");
            }
        }
    }

    async fn learn_members(&self) {
        let list = |m: Member| async move { m.client.cluster_client().member_list().await };
        match self.members.request("list the members of", list).await {
            Ok(listed) => {
                let voters = listed.members().iter().filter(|member| !member.is_learner());
                let urls = voters.flat_map(|member| member.client_urls().iter().cloned());
                self.members.fall_back_on(urls.collect());
            }
            Err(trouble) => {
                let error = trouble.into_error(&self.options);
                tracing::debug!(error = base::chain(&error), "etcd does not name its members");
            }
        }
    }
}
