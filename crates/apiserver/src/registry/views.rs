//! Views with a meaning of their own: `binding` and `eviction`.

use api::selector::LabelSelector;
use api::status::{Cause, FieldError, Status};
use http::StatusCode;
use serde_json::{Value, json};
use store::{Page, Range};

use super::call::{Call, Content, Reply, Target};
use super::options::{DeleteOptions, WriteOptions};
use super::read::invalid_options;
use super::write::{Change, Writer};
use super::{Outcome, Registry, decode, meta, names};

/// How many pods a budget may note as evicted and not gone yet.
const DISRUPTED_PODS_MAX: usize = 2000;
/// Seconds after which an eviction that a budget refused is worth another try.
const RETRY_SECONDS: u32 = 10;

impl Registry {
    /// POST on `pods/NAME/binding` or `bindings`: puts a pod on a node.
    pub(super) async fn bind(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "CreateOptions").map_err(invalid_options)?;
        let mut binding = decode::parse(&call.content_type(), &call.body)?;
        decode::drop_nulls(&mut binding);
        let name = match call.target.name.as_str() {
            "" => meta::name(&binding).to_owned(),
            name => name.to_owned(),
        };
        check_binding(&binding, &name)?;
        let target = self.pod(call, &name)?;
        let now = names::time(self.now());
        let build = |live: Option<&Value>| {
            let live = live.ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
            bound(&target, live, &binding, &now)
        };
        let writer = Writer {
            user: &call.user,
            manager: call.field_manager(&options),
            dry_run: options.dry_run,
        };
        let change = Change {
            target: &target,
            subresource: "binding",
            create: false,
            conditional: false,
            track: false,
            build: &build,
        };
        self.change(&change, &writer).await?;
        Ok(success())
    }

    /// The pod of that name in the request's namespace.
    fn pod(&self, call: &Call, name: &str) -> Outcome<Target> {
        let path = (String::new(), "v1".to_owned(), "pods".to_owned());
        let resource = self.resources.get(&path).ok_or_else(Status::unknown_path)?;
        let namespace = call.target.namespace.clone();
        Ok(Target {
            resource: resource.clone(),
            version: "v1".to_owned(),
            namespace,
            name: name.to_owned(),
        })
    }

    /// POST on `pods/NAME/eviction`: a delete that asks the pod's disruption budget first.
    pub(super) async fn evict(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "CreateOptions").map_err(invalid_options)?;
        let eviction = decode::parse(&call.content_type(), &call.body)?;
        let target = &call.target;
        if !meta::name(&eviction).is_empty() && meta::name(&eviction) != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut delete =
            DeleteOptions::parse("", Some(&eviction["deleteOptions"])).map_err(invalid_options)?;
        delete.dry_run |= options.dry_run;
        // A budget or a pod that another server knows of counts.
        self.context.fresh().await?;
        let entry = self
            .store()
            .get(&target.key())
            .ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
        let pod = super::negotiate::parse(&entry.value)?;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let harmless = matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::deleting(&pod);
        if !harmless {
            let writer = Writer {
                user: &call.user,
                manager: call.field_manager(&options),
                dry_run: delete.dry_run,
            };
            self.spend_budget(target, &pod, &writer).await?;
        }
        self.remove(target, &call.user, &delete).await?;
        Ok(success())
    }

    /// Takes one disruption from the budget that covers the pod, or refuses.
    async fn spend_budget(&self, target: &Target, pod: &Value, writer: &Writer<'_>) -> Outcome<()> {
        let range =
            Range { collection: "policy/poddisruptionbudgets", namespace: Some(&target.namespace) };
        let list = self.store().list(range, Page::default());
        let list = list.map_err(|error| Status::internal_error(&error.to_string()))?;
        let covers = |budget: &Value| {
            LabelSelector::from_object(&budget["spec"]["selector"])
                .is_ok_and(|selector| selector.matches_object(pod))
        };
        let budgets: Vec<Value> = list
            .entries
            .iter()
            .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
            .filter(covers)
            .collect();
        let budget = match budgets.as_slice() {
            [] => return Ok(()),
            [one] => one,
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::internal_error(why));
            }
        };
        let path = ("policy".to_owned(), "v1".to_owned(), "poddisruptionbudgets".to_owned());
        let resource = self.resources.get(&path).ok_or_else(Status::unknown_path)?.clone();
        let namespace = target.namespace.clone();
        let budget = Target {
            resource,
            version: "v1".to_owned(),
            namespace,
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
        self.change(&change, writer).await.map(|_| ())
    }
}

/// 201 without an object.
fn success() -> Reply {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Reply { status: StatusCode::CREATED, content: Content::Object(status), warnings: Vec::new() }
}

fn check_binding(binding: &Value, name: &str) -> Outcome<()> {
    let given = meta::name(binding);
    if !given.is_empty() && given != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if binding["target"]["name"].as_str().is_none_or(str::is_empty) {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(("", "Binding"), name, &errors)) }
}

/// The pod on its node, with the condition that says so.
fn bound(target: &Target, live: &Value, binding: &Value, now: &str) -> Outcome<Value> {
    let name = &target.name;
    let refuse = |why: String| Err(Status::conflict(("", "pods/binding"), name, &why));
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(live) {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(live)
        ));
    }
    if meta::deleting(live) {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = live["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if live["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = live.clone();
    meta::member(&mut pod, "spec").insert("nodeName".to_owned(), binding["target"]["name"].clone());
    for field in ["annotations", "labels"] {
        if let Some(added) = binding["metadata"][field].as_object() {
            let mut all = pod["metadata"][field].as_object().cloned().unwrap_or_default();
            all.extend(added.clone());
            meta::set(&mut pod, field, Value::Object(all));
        }
    }
    let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    meta::member(&mut pod, "status").insert("conditions".to_owned(), conditions.into());
    Ok(pod)
}

/// The budget after one more disruption.
fn spent(budget: &Value, pod: &str, now: &str) -> Outcome<Value> {
    let status = &budget["status"];
    let refuse = |reason: &str, message: String| {
        let mut refusal = Status::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            RETRY_SECONDS,
        );
        let cause = Cause { reason: reason.to_owned(), message, field: String::new() };
        refusal.details.get_or_insert_default().causes.push(cause);
        Err(refusal)
    };
    let name = meta::name(budget);
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return refuse(
            "DisruptionBudget",
            format!("The disruption budget {name} is still being processed by the server."),
        );
    }
    let disrupted = status["disruptedPods"].as_object().cloned().unwrap_or_default();
    if number("disruptionsAllowed") <= 0 || disrupted.len() >= DISRUPTED_PODS_MAX {
        let (wanted, found) = (number("desiredHealthy"), number("currentHealthy"));
        return refuse(
            "DisruptionBudget",
            format!(
                "The disruption budget {name} needs {wanted} healthy pods and has {found} currently"
            ),
        );
    }
    let mut budget = budget.clone();
    let left = number("disruptionsAllowed") - 1;
    let mut disrupted = disrupted;
    disrupted.insert(pod.to_owned(), now.into());
    let status = meta::member(&mut budget, "status");
    status.insert("disruptionsAllowed".to_owned(), left.into());
    status.insert("disruptedPods".to_owned(), Value::Object(disrupted));
    Ok(budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_spent_one_by_one() {
        let budget = json!({"metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3}});
        let once = spent(&budget, "p", "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(once["status"]["disruptionsAllowed"], 0);
        let refused = spent(&once, "q", "").unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(
            refused.details.unwrap().causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 3 currently"
        );
        let mut stale = budget;
        stale["metadata"]["generation"] = json!(2);
        assert_eq!(spent(&stale, "p", "").unwrap_err().code, 429);
    }
}
