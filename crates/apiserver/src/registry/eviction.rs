//! `eviction`: a delete that asks the pod's disruption budget first.

use api::selector::LabelSelector;
use api::status::{Cause, Status};
use serde_json::{Value, json};
use store::{Page, Range};

use super::call::{Call, Reply, Target};
use super::delete::check_preconditions;
use super::options::{DeleteOptions, WriteOptions};
use super::views::success;
use super::write::{Change, Writer};
use super::{Outcome, Registry, decode, meta, names, negotiate};
use crate::admission::{self, Operation};

/// How many pods a budget may note as evicted and not gone yet.
const DISRUPTED_PODS_MAX: usize = 2000;
/// Seconds after which a budget that is being counted anew is worth another try.
const RETRY_SECONDS: u32 = 10;
/// How often an eviction is decided anew because the pod changed meanwhile.
const EVICT_ATTEMPTS: usize = 8;

/// Whether a pod may be evicted.
#[derive(Debug, PartialEq, Eq)]
enum Ruling {
    /// Whatever it becomes, nothing is disrupted.
    Free,
    /// It counts towards no budget, as long as it stays as it is.
    WhileUnchanged,
    /// One disruption of this budget is to be spent.
    Counted(Value),
}

impl Registry {
    /// POST on `pods/NAME/eviction`.
    pub(super) async fn evict(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let eviction = decode::parse(&call.content_type(), &call.body)?;
        let target = &call.target;
        if !meta::name(&eviction).is_empty() && meta::name(&eviction) != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut delete = DeleteOptions::parse("", Some(&eviction["deleteOptions"]))?;
        delete.dry_run |= options.dry_run;
        let writer = Writer {
            user: &call.user,
            manager: call.field_manager(&options),
            dry_run: delete.dry_run,
        };
        let operation = (Operation::Create, "eviction");
        let mut admitted = eviction;
        self.admission
            .pass(&self.attributes(operation, target, &writer, None), &mut admitted)
            .await?;
        for _ in 0..EVICT_ATTEMPTS {
            // A budget or a pod that another server knows of counts.
            self.context.fresh().await?;
            if self.evict_once(target, &writer, &delete).await? {
                return Ok(success());
            }
        }
        let why = "the pod changed again and again while it was to be evicted";
        Err(Status::conflict(&*target.resource, &target.name, why))
    }

    /// One attempt; false where what was decided from does not hold any more.
    async fn evict_once(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        delete: &DeleteOptions,
    ) -> Outcome<bool> {
        let entry = self
            .store()
            .get(&target.key())
            .ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
        let pod = negotiate::parse(&entry.value)?;
        // Before anything is spent for it.
        admission::admit_eviction(writer.user, &target.resource, &pod)?;
        let ruling = match exemption(&pod) {
            Some(exempt) => exempt,
            None => match self.budget_of(target, &pod)? {
                Some(budget) => ruling(&pod, budget),
                None => Ruling::Free,
            },
        };
        if let Ruling::Counted(budget) = &ruling {
            self.spend(target, budget, writer).await?;
        }
        let mut delete = delete.clone();
        let pinned = ruling == Ruling::WhileUnchanged && delete.resource_version.is_none();
        if pinned {
            delete.resource_version = Some(entry.revision.to_string());
        }
        let done = self.mark_and_remove(target, writer, delete, meta::deleting(&pod)).await;
        match done {
            Err(status) if pinned && status.reason == "Conflict" => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Says in the pod's status why it goes, where it does not go already, and deletes it.
    async fn mark_and_remove(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        mut delete: DeleteOptions,
        going: bool,
    ) -> Outcome<()> {
        if !going && !writer.dry_run {
            let revision = self.note_eviction(target, writer, &delete).await?;
            // The version that was asked for has been seen; this write has moved it.
            delete.resource_version = delete.resource_version.and(revision);
        }
        self.remove(target, writer.user, &delete).await.map(drop)
    }

    /// The budget that covers the pod.
    fn budget_of(&self, target: &Target, pod: &Value) -> Outcome<Option<Value>> {
        let range =
            Range { collection: "policy/poddisruptionbudgets", namespace: Some(&target.namespace) };
        let list = self.store().list(range, Page::default());
        let list = list.map_err(|error| Status::internal_error(&error.to_string()))?;
        let covers = |budget: &Value| {
            LabelSelector::from_object(&budget["spec"]["selector"])
                .is_ok_and(|selector| selector.matches_object(pod))
        };
        let parsed = list.entries.iter().filter_map(|e| serde_json::from_slice(&e.value).ok());
        let mut budgets = parsed.filter(covers);
        match (budgets.next(), budgets.next()) {
            (budget, None) => Ok(budget),
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                Err(Status::new(500, "", why))
            }
        }
    }

    /// Takes one disruption from the budget, or refuses.
    async fn spend(&self, target: &Target, budget: &Value, writer: &Writer<'_>) -> Outcome<()> {
        let path = ("policy".to_owned(), "v1".to_owned(), "poddisruptionbudgets".to_owned());
        let resource = self.resources.get(&path).ok_or_else(Status::unknown_path)?.clone();
        let budget = Target {
            resource,
            version: "v1".to_owned(),
            namespace: target.namespace.clone(),
            name: meta::name(budget).to_owned(),
        };
        let now = names::time(self.now());
        let build = |live: Option<&Value>| match live {
            Some(live) => spent(live, &target.name, &now),
            None => Err(Status::not_found(&*budget.resource, &budget.name)),
        };
        let change = Change {
            target: &budget,
            subresource: "status",
            create: false,
            conditional: false,
            track: true,
            build: &build,
        };
        self.change(&change, writer).await.map(drop)
    }

    /// Says in the pod's status why it goes; Jobs decide by it whether a failure counts. Gives
    /// the version that the pod has then.
    async fn note_eviction(
        &self,
        target: &Target,
        writer: &Writer<'_>,
        delete: &DeleteOptions,
    ) -> Outcome<Option<String>> {
        let now = names::time(self.now());
        let build = |live: Option<&Value>| match live {
            Some(live) => {
                // As upstream has it, before the condition is written.
                check_preconditions(target, live, delete)?;
                Ok(with_target_condition(live, &now))
            }
            None => Err(Status::not_found(&*target.resource, &target.name)),
        };
        let change = Change {
            target,
            subresource: "status",
            create: false,
            conditional: false,
            track: true,
            build: &build,
        };
        let written = self.change(&change, writer).await?;
        let pod = negotiate::parse(&written.value)?;
        Ok(meta::revision(&pod).map(|revision| revision.to_string()))
    }
}

fn with_target_condition(pod: &Value, now: &str) -> Value {
    let mut pod = pod.clone();
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "lastTransitionTime": now,
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    }));
    meta::member(&mut pod, "status").insert("conditions".to_owned(), conditions.into());
    pod
}

/// What holds for a pod that no budget is asked about: it has ended, is going already, or has not
/// begun.
fn exemption(pod: &Value) -> Option<Ruling> {
    match pod["status"]["phase"].as_str().unwrap_or_default() {
        "Succeeded" | "Failed" => Some(Ruling::Free),
        _ if meta::deleting(pod) => Some(Ruling::Free),
        "Pending" => Some(Ruling::WhileUnchanged),
        _ => None,
    }
}

/// A pod that is not ready counts towards no budget: it may go where the budget always lets
/// such go, or where enough others are healthy.
fn ruling(pod: &Value, budget: Value) -> Ruling {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let enough =
        number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    if !ready && (always || enough) { Ruling::WhileUnchanged } else { Ruling::Counted(budget) }
}

/// The budget after one more disruption.
fn spent(budget: &Value, pod: &str, now: &str) -> Outcome<Value> {
    let status = &budget["status"];
    let name = meta::name(budget);
    let refuse = |mut refusal: Status, why: &str| {
        let message = format!("The disruption budget {name} {why}");
        let reason = "DisruptionBudget".to_owned();
        let cause = Cause { reason, message, field: String::new() };
        refusal.details.get_or_insert_default().causes.push(cause);
        Err(refusal)
    };
    let later = |seconds| {
        let why = "Cannot evict pod as it would violate the pod's disruption budget.";
        Status::too_many_requests(why, seconds)
    };
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return refuse(later(RETRY_SECONDS), "is still being processed by the server.");
    }
    let mut disrupted = status["disruptedPods"].as_object().cloned().unwrap_or_default();
    if disrupted.len() > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return refuse(
            Status::forbidden(("policy", "poddisruptionbudget"), name, why),
            "does not allow evicting pods currently: too many pending evictions not confirmed by PDB controller",
        );
    }
    if number("disruptionsAllowed") <= 0 {
        // Nobody can say when a pod becomes healthy.
        return refuse(later(0), &no_disruption(status));
    }
    let mut budget = budget.clone();
    let left = number("disruptionsAllowed") - 1;
    disrupted.insert(pod.to_owned(), now.into());
    let status = meta::member(&mut budget, "status");
    status.insert("disruptionsAllowed".to_owned(), left.into());
    status.insert("disruptedPods".to_owned(), Value::Object(disrupted));
    Ok(budget)
}

/// Why a budget allows no disruption, in upstream's words.
fn no_disruption(status: &Value) -> String {
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let (wanted, found) = (number("desiredHealthy"), number("currentHealthy"));
    let conditions = status["conditions"].as_array();
    let condition = conditions.into_iter().flatten().find(|condition| {
        condition["type"] == "DisruptionAllowed" && condition["status"] == "False"
    });
    let text = |field: &str| condition.and_then(|c| c[field].as_str()).unwrap_or_default();
    let (reason, message) = (text("reason"), text("message"));
    match reason {
        // Where nothing could be counted the numbers mean nothing.
        "SyncFailed" if !message.is_empty() => {
            format!("does not allow evicting pods currently because it failed sync: {message}")
        }
        _ if found <= wanted => {
            format!("needs {wanted} healthy pods and has {found} currently")
        }
        _ if !message.is_empty() => {
            format!("does not allow evicting pods currently ({reason}): {message}")
        }
        _ => "does not allow evicting pods currently".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_spent_one_by_one() {
        let budget = json!({"metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 2}});
        let once = spent(&budget, "p", "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(once["status"]["disruptionsAllowed"], 0);
        let refused = spent(&once, "q", "").unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(
            refused.details.unwrap().causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
        let mut failed = once;
        failed["status"]["conditions"] = json!([{"type": "DisruptionAllowed", "status": "False",
            "reason": "SyncFailed", "message": "no scale"}]);
        assert_eq!(
            spent(&failed, "q", "").unwrap_err().details.unwrap().causes[0].message,
            "The disruption budget b does not allow evicting pods currently because it failed sync: no scale"
        );
        let mut stale = budget;
        stale["metadata"]["generation"] = json!(2);
        assert_eq!(spent(&stale, "p", "").unwrap_err().code, 429);
    }

    #[test]
    fn pods_that_are_not_ready_count_towards_no_budget() {
        let pod =
            |ready: &str| json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let budget = |policy: &str, healthy: i64| {
            json!({"spec": {"unhealthyPodEvictionPolicy": policy},
                   "status": {"currentHealthy": healthy, "desiredHealthy": 2}})
        };
        for (ready, policy, healthy, counted) in [
            ("True", "AlwaysAllow", 3, true),
            ("False", "AlwaysAllow", 0, false),
            ("False", "IfHealthyBudget", 2, false),
            ("False", "IfHealthyBudget", 1, true),
        ] {
            let ruling = ruling(&pod(ready), budget(policy, healthy));
            assert_eq!(ruling != Ruling::WhileUnchanged, counted, "{ready} {policy}");
        }
    }
}
