//! Who may do what: a chain of authorizers, by default that of nodes, then RBAC. Each allows,
//! denies, or has no opinion; the first that has one decides. `system:masters` may do everything.

pub(crate) mod aggregate;
mod config;
pub(crate) mod escalation;
mod node;
pub(crate) mod rbac;
pub(crate) mod selectors;

use std::sync::{Arc, PoisonError, RwLock};

use api::status::{Status, go_quote};

use store::Store;

use crate::request::RequestInfo;
use crate::server::Context;
use crate::user::{MASTERS, User};
use crate::webhook::authorization::AuthorizationWebhook;
pub use config::{AuthorizerOptions, Authorizers};
pub(crate) use node::{node_name, referred};
use rbac::{Rbac, Rule};
pub use selectors::Selectors;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub group: &'a str,
    /// `*` for any.
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Path of a request that names no resource.
    pub path: &'a str,
    pub is_resource: bool,
    /// Which objects of a list are meant.
    pub selectors: &'a Selectors,
}

impl<'a> Attributes<'a> {
    /// The attributes of a request.
    pub(crate) fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: &info.verb,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            is_resource: info.is_resource,
            selectors: &info.selectors,
        }
    }

    /// A verb on a resource, with nothing else said.
    pub(crate) fn on(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Attributes {
            user,
            verb,
            group,
            version: "*",
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            is_resource: true,
            selectors: &selectors::ALL,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub allowed: bool,
    /// Whether nobody further on may allow it. Neither is no opinion.
    pub denied: bool,
    /// Which binding allows it, or what kept rules from being found.
    pub reason: String,
    /// Why an authorizer could not be asked.
    pub error: String,
}

impl Decision {
    /// It is allowed, for this reason.
    pub(crate) fn allow(reason: String) -> Self {
        Decision { allowed: true, reason, ..Self::default() }
    }

    /// Nothing is known for or against it; what was looked for is said.
    pub(crate) fn no_opinion(reason: String) -> Self {
        Decision { reason, ..Self::default() }
    }

    fn is_settled(&self) -> bool {
        self.allowed || self.denied
    }

    /// What this and the next of a chain come to.
    fn then(self, next: Decision) -> Decision {
        if self.is_settled() || next.is_settled() {
            return if self.is_settled() { self } else { next };
        }
        let joined = |one: String, other: String, between: &str| {
            let both = [one, other].into_iter().filter(|text| !text.is_empty());
            both.collect::<Vec<_>>().join(between)
        };
        Decision {
            reason: joined(self.reason, next.reason, "\n"),
            error: joined(self.error, next.error, ", "),
            ..Decision::default()
        }
    }
}

/// An authorizer that answers from what this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Node,
    Rbac,
    Allow,
    Deny,
}

/// A part of the chain.
enum Link {
    /// Neighbours of our own.
    Own(Vec<Own>),
    /// Another server.
    Webhook(Box<AuthorizationWebhook>),
}

/// All authorizers in their order.
pub(crate) struct Authorizer {
    rbac: Rbac,
    node: node::NodeAuthorizer,
    chain: RwLock<Arc<Vec<Link>>>,
}

impl Authorizer {
    /// The chain that is configured, over the store's own roles and bindings.
    pub(crate) fn new(store: &Store, authorizers: &Authorizers) -> Result<Self, String> {
        let chain = RwLock::new(Self::made(store, authorizers)?);
        let (rbac, node) = (Rbac::new(store.clone()), node::NodeAuthorizer::new(store.clone()));
        Ok(Authorizer { rbac, node, chain })
    }

    /// Another chain from now on; answers of webhooks are forgotten.
    pub(crate) fn set(&self, store: &Store, authorizers: &Authorizers) -> Result<(), String> {
        let chain = Self::made(store, authorizers)?;
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(())
    }

    fn chain(&self) -> Arc<Vec<Link>> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn made(store: &Store, authorizers: &Authorizers) -> Result<Arc<Vec<Link>>, String> {
        let mut chain: Vec<Link> = Vec::new();
        for one in &authorizers.0 {
            let own = match one {
                AuthorizerOptions::Node => Own::Node,
                AuthorizerOptions::Rbac => Own::Rbac,
                AuthorizerOptions::AlwaysAllow => Own::Allow,
                AuthorizerOptions::AlwaysDeny => Own::Deny,
                AuthorizerOptions::Webhook(options) => {
                    let webhook = AuthorizationWebhook::new(options, store)?;
                    chain.push(Link::Webhook(Box::new(webhook)));
                    continue;
                }
            };
            match chain.last_mut() {
                Some(Link::Own(all)) => all.push(own),
                _ => chain.push(Link::Own(vec![own])),
            }
        }
        Ok(Arc::new(chain))
    }

    /// Whether the request may proceed. What this server's own memory refuses is looked at again
    /// when it is up to date: the binding may have been made at another server.
    pub(crate) async fn decide(&self, attributes: &Attributes<'_>, context: &Context) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::allow(String::new());
        }
        let mut decision = Decision::default();
        for link in self.chain().iter() {
            let next = match link {
                Link::Webhook(webhook) => webhook.decide(attributes).await,
                Link::Own(all) => {
                    let first = self.own(all, attributes);
                    if !first.allowed && context.refreshed().await {
                        self.own(all, attributes)
                    } else {
                        first
                    }
                }
            };
            decision = decision.then(next);
            if decision.is_settled() {
                break;
            }
        }
        decision
    }

    fn own(&self, all: &[Own], attributes: &Attributes<'_>) -> Decision {
        let mut decision = Decision::default();
        for one in all {
            decision = decision.then(match one {
                Own::Node => self.node.authorize(attributes),
                Own::Rbac => self.rbac.authorize(attributes),
                Own::Allow => Decision::allow(String::new()),
                Own::Deny => Decision {
                    denied: true,
                    reason: "Everything is forbidden.".to_owned(),
                    ..Decision::default()
                },
            });
            if decision.is_settled() {
                break;
            }
        }
        decision
    }

    /// The rules that hold for a user in a namespace, and what could not be resolved.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (rules, mut errors) = self.rbac.rules_for(user, namespace);
        if node_name(user).is_some() {
            errors.push("rules for node authorizer not supported".to_owned());
        }
        if self.chain().iter().any(|link| matches!(link, Link::Webhook(_))) {
            errors.push("webhook authorizer does not support user rule resolution".to_owned());
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
