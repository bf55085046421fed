//! A view with a meaning of its own: `binding`.

use api::status::{FieldError, Status};
use http::StatusCode;
use serde_json::{Value, json};

use super::call::{Call, Content, Reply, Target};
use super::options::WriteOptions;
use super::write::{Change, Writer};
use super::{Outcome, Registry, decode, meta, names};

impl Registry {
    /// POST on `pods/NAME/binding` or `bindings`: puts a pod on a node.
    pub(super) async fn bind(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
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
            bound(&target.name, live, &binding, &now)
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
}

/// 201 without an object.
pub fn success() -> Reply {
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
fn bound(name: &str, live: &Value, binding: &Value, now: &str) -> Outcome<Value> {
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
    let status = meta::member(&mut pod, "status");
    status.insert("conditions".to_owned(), conditions.into());
    // It has a node; the one that was kept for it says nothing any more.
    status.shift_remove("nominatedNodeName");
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_kept_for_a_pod_that_has_a_node() {
        let live = json!({"metadata": {"name": "p"}, "status": {"nominatedNodeName": "a",
            "conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let binding = json!({"metadata": {"name": "p"}, "target": {"name": "b"}});
        let Ok(pod) = bound("p", &live, &binding, "now") else { panic!("not bound") };
        assert_eq!(pod["spec"]["nodeName"], "b");
        let scheduled = json!({"type": "PodScheduled", "status": "True",
            "lastProbeTime": null, "lastTransitionTime": "now"});
        assert_eq!(pod["status"], json!({"conditions": [scheduled]}));
    }
}
