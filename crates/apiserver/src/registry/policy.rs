//! The status of admission policies, written as their check finds it.

use serde_json::json;
use store::{Entry, Expect};

use super::{Registry, codec, negotiate};
use crate::admission::typing;

impl Registry {
    /// Checks a policy, if nobody has since it was written, and notes what was found.
    pub(crate) async fn check_policy(&self, entry: &Entry) {
        let Ok(mut policy) = negotiate::parse(&entry.value) else { return };
        if policy["status"]["observedGeneration"] == policy["metadata"]["generation"] {
            return;
        }
        let found = typing::status(&policy, self);
        let mut status = policy["status"].as_object().cloned().unwrap_or_default();
        status.extend(found.as_object().cloned().unwrap_or_default());
        policy["status"] = json!(status);
        let value = codec::encode(&policy).into();
        // Where somebody else wrote it meanwhile, that change comes here, too.
        let _ = self.store().put(entry.key.clone(), Expect::Revision(entry.revision), value).await;
    }
}
