//! Who a request is made by.

use std::collections::BTreeMap;

/// The group that every authorizer lets through.
pub const MASTERS: &str = "system:masters";
/// The group of every caller that proved who it is.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of every caller that did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name under which the API server writes the objects that it keeps.
pub const APISERVER: &str = "system:apiserver";
/// The name of a caller that gave no credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// An identity as authentication found it; a request extension behind the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User name, for instance `system:node:pi-1`.
    pub name: String,
    /// Identifier that outlives a re-used name; empty where there is none.
    pub uid: String,
    /// Groups, `system:authenticated` among them for whoever proved an identity.
    pub groups: Vec<String>,
    /// Facts from the authenticator, for instance the pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of this name in these groups and in `system:authenticated`.
    pub fn new<'a>(name: &str, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        User { name: name.to_owned(), groups, ..User::default() }
    }

    /// The cluster's administrator, as in the admin kubeconfig.
    pub fn admin() -> Self {
        User::new("system:admin", [MASTERS])
    }

    /// The API server itself, for the objects that it keeps.
    pub fn apiserver() -> Self {
        User::new(APISERVER, [MASTERS])
    }

    /// A component of the control plane, for instance `system:kube-scheduler`.
    pub fn component(name: &str) -> Self {
        User::new(name, [])
    }

    /// A service account, with the groups that upstream gives it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        User::new(
            &format!("system:serviceaccount:{namespace}:{name}"),
            ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
        )
    }

    /// A node's agent, as its client certificate names it.
    pub fn node(name: &str) -> Self {
        User::new(&format!("system:node:{name}"), ["system:nodes"])
    }

    /// A caller without credentials.
    pub fn anonymous() -> Self {
        User {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..User::default()
        }
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}
