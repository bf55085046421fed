//! What a StatefulSet says of itself.

use client::Pod;
use k8s_openapi::api::apps::v1::StatefulSetStatus;

use super::{Round, made_from};
use crate::pods;
use crate::replicaset::count;

impl Round<'_> {
    /// The status as the pods are now; a finished roll-out makes the new revision the current one.
    pub(super) fn status(&self) -> StatefulSetStatus {
        let number =
            |test: &dyn Fn(&Pod) -> bool| count(self.pods.iter().filter(|pod| test(pod)).count());
        let of = |revision: &str| {
            number(&|pod| !pods::is_terminating(pod) && made_from(pod) == revision)
        };
        let all = count(self.pods.len());
        let ready = number(&|pod| pods::phase(pod) == "Running" && pods::is_ready(pod));
        let updated = of(&self.update.name);
        let wanted = self.spec.replicas.unwrap_or(1);
        let rolls = self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
        let rolls = rolls != Some("OnDelete");
        let done = rolls && [updated, ready, all].iter().all(|number| *number == wanted);
        let current = if done { &self.update.name } else { &self.current.name };
        let some = |number: i32| (number != 0).then_some(number);
        let before = self.set.status.as_ref();
        StatefulSetStatus {
            replicas: all,
            ready_replicas: some(ready),
            available_replicas: Some(number(&|pod| self.is_available(pod))),
            current_replicas: some(of(current)),
            updated_replicas: some(updated),
            current_revision: Some(current.clone()),
            update_revision: Some(self.update.name.clone()),
            collision_count: Some(before.and_then(|s| s.collision_count).unwrap_or(0)),
            conditions: before.and_then(|s| s.conditions.clone()),
            observed_generation: self.set.metadata.generation,
        }
    }
}
