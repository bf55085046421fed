//! NamespaceLifecycle: nothing is made in a namespace that is not there or is going away, and
//! the namespaces that the cluster itself needs stay.

use super::{Attributes, Operation};
use crate::registry::{Outcome, meta};
use api::status::{Cause, Status};
use serde_json::Value;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) fn admit(attributes: &Attributes<'_>, object: &mut Value) -> Outcome<()> {
    if attributes.namespace.is_empty() || attributes.resource.collection() == "namespaces" {
        return Ok(());
    }
    // Reviews are answered, not kept: they may name a namespace that is not there.
    let review =
        attributes.resource.collection() == "authorization.k8s.io/localsubjectaccessreviews";
    if review || attributes.operation != Operation::Create {
        return Ok(());
    }
    let namespace = attributes.namespace;
    let Some(found) = attributes.cluster.find("namespaces", "", namespace) else {
        let namespaces = api::resource::find("", "v1", "namespaces");
        return Err(namespaces.map_or_else(
            || Status::internal_error("the resource table has no namespaces"),
            |resource| Status::not_found(resource, namespace),
        ));
    };
    if meta::deleting(&found) || found["status"]["phase"] == "Terminating" {
        return Err(terminating(attributes, object));
    }
    Ok(())
}

fn terminating(attributes: &Attributes<'_>, object: &Value) -> Status {
    let namespace = attributes.namespace;
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut failure = Status::forbidden(attributes.resource, meta::name(object), &why);
    let cause = Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    };
    failure.details.get_or_insert_default().causes.push(cause);
    failure
}

pub(super) fn admit_delete(attributes: &Attributes<'_>) -> Outcome<()> {
    let namespace = attributes.resource.collection() == "namespaces";
    if namespace && IMMORTAL.contains(&attributes.name) {
        let why = "this namespace may not be deleted";
        return Err(Status::forbidden(attributes.resource, attributes.name, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, create};
    use serde_json::json;

    #[test]
    fn missing_and_terminating_namespaces() {
        let cluster = Few::default().with("namespaces", json!({"metadata": {"name": "ok"}})).with(
            "namespaces",
            json!({"metadata": {"name": "end", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        );
        let message = |namespace: &str| {
            let mut object = json!({"metadata": {"name": "a", "namespace": namespace}});
            create(admit, &cluster, ("", "v1", "configmaps"), &mut object).err().map(|f| f.message)
        };
        assert_eq!(message("ok"), None);
        assert_eq!(message("no").as_deref(), Some("namespaces \"no\" not found"));
        assert_eq!(
            message("end").as_deref(),
            Some(
                "configmaps \"a\" is forbidden: unable to create new content in namespace end because it is being terminated"
            )
        );
    }
}
