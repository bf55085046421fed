//! Who may do what: the node authorizer, then RBAC; `system:masters` may do everything.

pub(crate) mod aggregate;
pub(crate) mod escalation;
mod node;
pub(crate) mod rbac;

use api::status::{Status, go_quote};

use store::Store;

use crate::request::RequestInfo;
use crate::user::{MASTERS, User};
pub(crate) use node::{node_name, referred};
use rbac::{Rbac, Rule};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Path of a request that names no resource.
    pub path: &'a str,
    pub is_resource: bool,
    /// The node that a field selector names; empty where there is none.
    pub selected_node: &'a str,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub(crate) fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: &info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            is_resource: info.is_resource,
            selected_node: &info.selected_node,
        }
    }

    /// A verb on a resource, with nothing else said.
    pub(crate) fn on(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Attributes {
            user,
            verb,
            group,
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            is_resource: true,
            selected_node: "",
        }
    }

    fn message(&self) -> String {
        let user = go_quote(&self.user.name);
        let verb = self.verb;
        if !self.is_resource {
            return format!("User {user} cannot {verb} path {}", go_quote(self.path));
        }
        let resource = if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", go_quote(self.namespace))
        };
        let (resource, group) = (go_quote(&resource), go_quote(self.group));
        format!("User {user} cannot {verb} resource {resource} in API group {group} {place}")
    }

    /// The 403 for this request.
    pub(crate) fn forbidden(&self, reason: &str) -> Status {
        let mut why =
            self.message().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        // Without a resource both are empty, which words the message accordingly.
        Status::forbidden((self.group, self.resource), self.name, &why)
    }
}

/// The answer to [`Attributes`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub allowed: bool,
    /// Which binding allows it, or what kept rules from being found.
    pub reason: String,
}

/// All authorizers in their order.
pub(crate) struct Authorizer {
    rbac: Rbac,
    node: node::NodeAuthorizer,
}

impl Authorizer {
    /// An authorizer over the store's own roles and bindings.
    pub(crate) fn new(store: &Store) -> Self {
        Authorizer {
            rbac: Rbac::new(store.clone()),
            node: node::NodeAuthorizer::new(store.clone()),
        }
    }

    /// Whether the request may proceed.
    pub(crate) fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision { allowed: true, reason: String::new() };
        }
        let node = self.node.authorize(attributes);
        if node.allowed {
            return node;
        }
        let mut rbac = self.rbac.authorize(attributes);
        if !rbac.allowed && !node.reason.is_empty() {
            rbac.reason = [node.reason, rbac.reason].join("\n").trim_end().to_owned();
        }
        rbac
    }

    /// The rules that hold for a user in a namespace, and what could not be resolved.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (rules, mut errors) = self.rbac.rules_for(user, namespace);
        if node_name(user).is_some() {
            errors.push("rules for node authorizer not supported".to_owned());
        }
        (rules, errors)
    }

    /// The rules of a role, or upstream's "not found" text.
    pub(crate) fn role_rules(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
    ) -> Result<std::sync::Arc<Vec<Rule>>, String> {
        self.rbac.role_rules(kind, name, namespace)
    }
}
