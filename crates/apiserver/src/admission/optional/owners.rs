//! OwnerReferencesPermissionEnforcement: who names an owner may delete what is owned, and who has it
//! hold up its owner's deletion may set the owner's finalizers.

use api::status::Status;
use serde_json::Value;

use super::super::{Attributes, Operation};
use crate::authz;
use crate::registry::{Outcome, meta};
use crate::server::Context;

/// Refuses a change of owners for which the user lacks the permissions.
pub(in super::super) async fn check(
    context: &Context,
    write: &Attributes<'_>,
    object: &Value,
) -> Outcome<()> {
    let written = matches!(write.operation, Operation::Create | Operation::Update);
    let is_pod_status = write.resource.collection() == "pods" && write.subresource == "status";
    if !written || is_pod_status || owners(Some(object)) == owners(write.old) {
        return Ok(());
    }
    let (user, resource) = (write.user, write.resource);
    let forbidden = |why: String| Err(Status::forbidden(resource, meta::name(object), &why));
    let delete = authz::Attributes {
        version: write.version,
        subresource: write.subresource,
        namespace: write.namespace,
        name: write.name,
        ..authz::Attributes::on(user, "delete", &resource.group, &resource.plural)
    };
    let decision = context.decide(&delete).await;
    if !decision.allowed {
        return forbidden(format!(
            "cannot set an ownerRef on a resource you can't delete: {}",
            words(&decision)
        ));
    }
    for owner in newly_blocking(object, write.old) {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
        let Some(row) = write.cluster.kind(api_version, kind) else {
            return forbidden(format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
            ));
        };
        let (_, version) = api::resource::split_api_version(api_version);
        let finalize = authz::Attributes {
            version,
            subresource: "finalizers",
            namespace: if row.namespaced { write.namespace } else { "" },
            name,
            ..authz::Attributes::on(user, "update", &row.group, &row.plural)
        };
        let decision = context.decide(&finalize).await;
        if !decision.allowed {
            return forbidden(format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}",
                words(&decision)
            ));
        }
    }
    Ok(())
}

/// A decision's reason and error, as upstream prints the two.
fn words(decision: &authz::Decision) -> String {
    let error = if decision.error.is_empty() { "<nil>" } else { &decision.error };
    format!("{}, {error}", decision.reason)
}

fn owners(object: Option<&Value>) -> &[Value] {
    let owners = object.and_then(|object| object["metadata"]["ownerReferences"].as_array());
    owners.map(Vec::as_slice).unwrap_or_default()
}

/// Owners whose deletion the object is to hold up and did not before.
fn newly_blocking<'o>(object: &'o Value, old: Option<&Value>) -> Vec<&'o Value> {
    let blocks = |owner: &&Value| owner["blockOwnerDeletion"] == true;
    let had = |owner: &Value| {
        owners(old).iter().any(|before| before["uid"] == owner["uid"] && blocks(&before))
    };
    owners(Some(object)).iter().filter(blocks).filter(|owner| !had(owner)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_new_blocks_count() {
        let owned = |list: Value| json!({"metadata": {"ownerReferences": list}});
        let (plain, blocking) =
            (json!({"uid": "a"}), json!({"uid": "a", "blockOwnerDeletion": true}));
        let count = |new: &Value, old: Option<&Value>| {
            let old = old.map(|old| owned(json!([old])));
            newly_blocking(&owned(json!([new])), old.as_ref()).len()
        };
        assert_eq!(count(&plain, None), 0);
        assert_eq!(count(&blocking, None), 1);
        assert_eq!(count(&blocking, Some(&plain)), 1);
        assert_eq!(count(&blocking, Some(&blocking)), 0);
        assert_eq!(count(&blocking, Some(&json!({"uid": "b", "blockOwnerDeletion": true}))), 1);
    }
}
