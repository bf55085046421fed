//! NamespaceExists: nothing is written in a namespace that is not there. NamespaceLifecycle says so
//! of what is made; this step also looks at changes and deletions.

use api::status::Status;
use serde_json::Value;

use super::super::{Attributes, Operation};
use crate::registry::Outcome;

/// Refuses what is written in no namespace.
pub(in super::super) fn exists(attributes: &Attributes<'_>, _: &Value) -> Outcome<()> {
    let name = attributes.namespace;
    let elsewhere = name.is_empty() || attributes.resource.collection() == "namespaces";
    if elsewhere
        || attributes.operation == Operation::Connect
        || attributes.cluster.find("namespaces", "", name).is_some()
    {
        return Ok(());
    }
    Err(Status::not_found(("", "namespaces"), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Few, attributes};
    use serde_json::json;

    #[test]
    fn changes_and_deletions_need_a_namespace_too() {
        let cluster = Few::default().with("namespaces", json!({"metadata": {"name": "there"}}));
        let mut write = attributes(&cluster, ("", "v1", "configmaps"), "there");
        for operation in [Operation::Create, Operation::Update, Operation::Delete] {
            write.operation = operation;
            write.namespace = "there";
            exists(&write, &Value::Null).unwrap();
            write.namespace = "gone";
            let why = exists(&write, &Value::Null).unwrap_err();
            assert_eq!(why.message, "namespaces \"gone\" not found");
        }
        let of_cluster = attributes(&cluster, ("", "v1", "nodes"), "");
        exists(&of_cluster, &Value::Null).unwrap();
    }
}
