//! Role-based access control over the store's own objects, held in memory.
//!
//! The tables catch up with the store when they are asked, not in a task of their own: an
//! idle server then has nothing to wake up for, and a binding holds from the very next request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use serde::Deserialize;
use store::{Entry, Store};

use super::{Attributes, Decision};
use crate::authn::service_account_parts;
use crate::feed::{Change, Feed};
use crate::user::User;

/// API group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
/// Store collection of ClusterRoles.
pub(crate) const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const CLUSTER_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";
const ROLES: &str = "rbac.authorization.k8s.io/roles";
const BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
const COLLECTIONS: [&str; 4] = [CLUSTER_ROLES, ROLES, CLUSTER_BINDINGS, BINDINGS];

/// A rule of a role (`PolicyRule`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

/// Whom a binding gives its role to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Subject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

/// Which role a binding gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Binding {
    role_ref: RoleRef,
    // Written as null by some clients.
    subjects: Option<Vec<Subject>>,
}

/// Namespace (empty for cluster scope) and name.
type Place = (Arc<str>, Arc<str>);

#[derive(Default)]
struct Tables {
    roles: HashMap<Place, Arc<Vec<Rule>>>,
    /// By namespace, empty for ClusterRoleBindings.
    bindings: HashMap<Arc<str>, HashMap<Arc<str>, Binding>>,
}

/// Roles and bindings in memory.
pub(crate) struct Rbac {
    store: Store,
    tables: RwLock<Tables>,
    /// The feeds of [`COLLECTIONS`], in that order.
    feeds: Mutex<[Feed; COLLECTIONS.len()]>,
    /// The store's revision that the tables have seen everything of.
    seen: AtomicU64,
}

impl Rule {
    /// Whether the rule allows the request.
    pub(crate) fn allows(&self, want: &Attributes) -> bool {
        if !has(&self.verbs, want.verb) {
            return false;
        }
        if !want.is_resource {
            return self.non_resource_urls.iter().any(|rule| url_matches(rule, want.path));
        }
        has(&self.api_groups, want.group)
            && self.resources.iter().any(|rule| resource_matches(rule, want))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == want.name))
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == "*" || item == value)
}

/// Whether a rule's path, which may end in `*`, covers a path.
pub(crate) fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

fn resource_matches(rule: &str, want: &Attributes) -> bool {
    match (rule, want.subresource) {
        ("*", _) => true,
        (rule, "") => rule == want.resource,
        (rule, subresource) => rule.split_once('/').is_some_and(|(resource, sub)| {
            sub == subresource && (resource == "*" || resource == want.resource)
        }),
    }
}

impl Subject {
    fn covers(&self, user: &User, namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.name,
            "Group" => user.in_group(&self.name),
            "ServiceAccount" => {
                let own = if self.namespace.is_empty() { namespace } else { &self.namespace };
                !own.is_empty()
                    && service_account_parts(&user.name) == Some((own, self.name.as_str()))
            }
            _ => false,
        }
    }

    fn describe(&self, namespace: &str) -> String {
        if self.kind != "ServiceAccount" {
            return format!("{} {:?}", self.kind, self.name);
        }
        let own = if self.namespace.is_empty() { namespace } else { &self.namespace };
        format!("{} {:?}", self.kind, format!("{}/{own}", self.name))
    }
}

impl Rbac {
    /// Tables over a store's roles and bindings.
    pub(crate) fn new(store: Store) -> Self {
        let feeds = COLLECTIONS.map(|collection| Feed::new(store.clone(), collection));
        // Lower than any revision: the first question fills the tables.
        let seen = AtomicU64::new(0);
        Rbac { store, tables: RwLock::default(), feeds: Mutex::new(feeds), seen }
    }

    /// The tables as of now.
    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        let now = self.store.revision();
        if self.seen.load(Ordering::Acquire) < now {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            for (collection, feed) in COLLECTIONS.iter().zip(feeds.iter_mut()) {
                while let Some(change) = feed.try_next() {
                    let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
                    match *collection {
                        CLUSTER_ROLES | ROLES => {
                            tables.change_roles(*collection == CLUSTER_ROLES, change);
                        }
                        _ => tables.change_bindings(*collection == CLUSTER_BINDINGS, change),
                    }
                }
            }
            self.seen.fetch_max(now, Ordering::AcqRel);
        }
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a binding allows the request, and which; or which roles were missing.
    pub(crate) fn authorize(&self, want: &Attributes) -> Decision {
        let mut missing = Vec::new();
        let mut reason = None;
        self.visit(want.user, want.namespace, |found| match found {
            Ok((rules, describe)) => {
                if rules.iter().any(|rule| rule.allows(want)) {
                    reason = Some(format!("RBAC: allowed by {}", describe()));
                }
                reason.is_none()
            }
            Err(error) => {
                missing.push(error);
                true
            }
        });
        match reason {
            Some(reason) => Decision::allow(reason),
            None => Decision::no_opinion(describe_missing(missing)),
        }
    }

    /// All rules that hold for a user in a namespace, and the roles that were missing.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        self.visit(user, namespace, |found| {
            match found {
                Ok((own, _)) => rules.extend(own.iter().cloned()),
                Err(error) => missing.push(error),
            }
            true
        });
        (rules, missing)
    }

    /// The rules of a role.
    pub(crate) fn role_rules(
        &self,
        kind: &str,
        name: &str,
        namespace: &str,
    ) -> Result<Arc<Vec<Rule>>, String> {
        self.tables().role(kind, name, namespace)
    }

    /// Shows each role that is bound to the user to `see` until that returns false: those of
    /// ClusterRoleBindings first, then those of the namespace's RoleBindings.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut see: impl FnMut(Result<(&[Rule], &dyn Fn() -> String), String>) -> bool,
    ) {
        let tables = self.tables();
        let scopes: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
        for scope in scopes {
            for (name, binding) in tables.bindings.get(*scope).into_iter().flatten() {
                let subjects = binding.subjects.as_deref().unwrap_or_default();
                let Some(subject) = subjects.iter().find(|subject| subject.covers(user, scope))
                else {
                    continue;
                };
                let role = &binding.role_ref;
                let describe = || {
                    let (kind, name) = match *scope {
                        "" => ("ClusterRoleBinding", name.to_string()),
                        scope => ("RoleBinding", format!("{name}/{scope}")),
                    };
                    let subject = subject.describe(scope);
                    format!("{kind} {name:?} of {} {:?} to {subject}", role.kind, role.name)
                };
                let more = match tables.role(&role.kind, &role.name, scope) {
                    Ok(rules) => see(Ok((&rules, &describe))),
                    Err(error) => see(Err(error)),
                };
                if !more {
                    return;
                }
            }
        }
    }
}

fn describe_missing(missing: Vec<String>) -> String {
    match missing.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

impl Tables {
    fn role(&self, kind: &str, name: &str, namespace: &str) -> Result<Arc<Vec<Rule>>, String> {
        let (scope, singular) = match kind {
            "ClusterRole" => ("", "clusterrole"),
            _ => (namespace, "role"),
        };
        self.roles
            .get(&(scope.into(), name.into()))
            .cloned()
            .ok_or_else(|| format!("{singular}.{GROUP} {name:?} not found"))
    }

    fn change_roles(&mut self, cluster: bool, change: Change) {
        match change {
            Change::Reset(entries) => {
                self.roles.retain(|(namespace, _), _| namespace.is_empty() != cluster);
                self.roles.extend(entries.iter().map(|entry| (place(entry), role_of(entry))));
            }
            Change::Put(entry) => {
                self.roles.insert(place(&entry), role_of(&entry));
            }
            Change::Gone(entry) => {
                self.roles.remove(&place(&entry));
            }
        }
    }

    fn change_bindings(&mut self, cluster: bool, change: Change) {
        match change {
            Change::Reset(entries) => {
                self.bindings.retain(|namespace, _| namespace.is_empty() != cluster);
                for entry in entries {
                    self.put_binding(&entry);
                }
            }
            Change::Put(entry) => self.put_binding(&entry),
            Change::Gone(entry) => {
                let (namespace, name) = place(&entry);
                if let Some(bindings) = self.bindings.get_mut(&namespace) {
                    bindings.remove(&name);
                    if bindings.is_empty() {
                        self.bindings.remove(&namespace);
                    }
                }
            }
        }
    }

    fn put_binding(&mut self, entry: &Entry) {
        let (namespace, name) = place(entry);
        // What cannot be read grants nothing.
        let binding = serde_json::from_slice(&entry.value).unwrap_or_default();
        self.bindings.entry(namespace).or_default().insert(name, binding);
    }
}

fn place(entry: &Entry) -> Place {
    (Arc::clone(&entry.key.namespace), Arc::clone(&entry.key.name))
}

fn role_of(entry: &Entry) -> Arc<Vec<Rule>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Role {
        // Written as null by some clients.
        rules: Option<Vec<Rule>>,
    }
    // What cannot be read grants nothing.
    let role: Role = serde_json::from_slice(&entry.value).unwrap_or_default();
    Arc::new(role.rules.unwrap_or_default())
}
