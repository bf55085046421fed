//! NamespaceAutoProvision: a namespace is made when something is first made in it.

use serde_json::json;

use super::call::Target;
use super::write::Writer;
use super::{Outcome, Registry};
use crate::admission::{Attributes, Cluster, Operation};
use crate::user::User;

impl Registry {
    /// Makes the namespace of a new object where there is none and the step is on.
    pub(super) async fn provide_namespace(&self, write: &Attributes<'_>) -> Outcome<()> {
        let name = write.namespace;
        let concerns = self.admission.is_on("NamespaceAutoProvision")
            && write.operation == Operation::Create
            && !write.dry_run
            && !name.is_empty()
            && write.resource.collection() != "namespaces";
        if !concerns || self.find("namespaces", "", name).is_some() {
            return Ok(());
        }
        let Some(resource) = self.resource("", "v1", "namespaces") else { return Ok(()) };
        let target = Target {
            resource,
            version: "v1".to_owned(),
            namespace: String::new(),
            name: String::new(),
        };
        let user = User::apiserver();
        let writer = Writer { user: &user, manager: "kube-apiserver".to_owned(), dry_run: false };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        // Boxed: it is a create within a create.
        match Box::pin(self.create(&target, &writer, object, true)).await {
            Err(status) if status.reason != "AlreadyExists" => Err(status),
            _ => Ok(()),
        }
    }
}
