//! The table of resources: what the API serves, under which names, with which verbs.
//!
//! Everything generic in the API server (routing, discovery, RBAC attributes, OpenAPI paths,
//! printing) reads this table instead of having code for a kind. A CustomResourceDefinition adds
//! rows of the same type at run time, hence `Cow` strings.

mod builtin;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use crate::custom::{Custom, definition};

/// A string that is static for built-in kinds and owned for those of a CRD.
pub type Text = Cow<'static, str>;

/// Verbs of a kind that is stored and can be deleted as a collection (nearly all of them).
pub const STANDARD_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Verbs of `status`, `scale` and similar views on a stored object.
pub const VIEW_VERBS: &[&str] = &["get", "patch", "update"];

/// Collections whose writes are checkpointed instead of being made durable one by one: they
/// change all the time and are rebuilt by their writers after a crash.
pub const VOLATILE_COLLECTIONS: &[&str] = &["events", "coordination.k8s.io/leases"];

/// One kind of object as the API serves it.
///
/// Versions that differ in more than their schema (subresources, say) are rows of their own that
/// share a `collection`; so are `events` of the core group and of `events.k8s.io`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: Text,
    /// Served versions, the preferred one first.
    pub versions: Vec<Text>,
    /// Version objects are stored in.
    pub storage_version: Text,
    /// Group objects are stored in. Differs from `group` only for `events.k8s.io`.
    pub storage_group: Text,
    /// Kind of one object, for instance `Pod`.
    pub kind: Text,
    /// Kind of a list of them, for instance `PodList`; empty where `list` is not served.
    pub list_kind: Text,
    /// Name in paths, for instance `pods`.
    pub plural: Text,
    /// Name people may use for one of them, for instance `pod`.
    pub singular: Text,
    /// Abbreviations, for instance `po`.
    pub short_names: Vec<Text>,
    /// Groups of kinds that a client may name together, for instance `all`.
    pub categories: Vec<Text>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs served on the resource itself, in alphabetical order as discovery prints them.
    pub verbs: &'static [&'static str],
    /// Views and actions below an object, ordered by name.
    pub subresources: Vec<Subresource>,
    /// Whether objects are kept. Reviews, bindings and component statuses are answered on the spot.
    pub stored: bool,
    /// Name of the store's collection, `plural` or `group/plural`.
    pub collection: Text,
    /// Fields a field selector may name besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<Text>,
    /// What a CustomResourceDefinition says of the kind; none of those that are built in.
    pub custom: Option<Arc<Custom>>,
}

/// A view or an action below an object, for instance `pods/log`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subresource {
    /// Last segment of the path, for instance `status`.
    pub name: Text,
    /// Group of `kind`; `None` means the resource's own.
    pub group: Option<Text>,
    /// Version of `kind`; `None` means the version the request was made in.
    pub version: Option<Text>,
    /// Kind that is sent and received, for instance `Scale`.
    pub kind: Text,
    /// Verbs served, in alphabetical order.
    pub verbs: &'static [&'static str],
}

/// An API group and its served versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Name, empty for the core group.
    pub name: &'a str,
    /// Versions, the preferred one first.
    pub versions: Vec<&'a str>,
}

/// All built-in resources: groups in the order in which upstream's discovery lists them,
/// resources of a group by their plural name.
pub static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(builtin::table);

impl Resource {
    /// A stored kind with one version, the standard verbs and no subresources; the rest is set
    /// by the caller.
    pub fn new(
        group: impl Into<Text>,
        version: impl Into<Text>,
        kind: impl Into<Text>,
        plural: impl Into<Text>,
    ) -> Self {
        let (group, version, kind) = (group.into(), version.into(), kind.into());
        let plural = plural.into();
        Self {
            versions: vec![version.clone()],
            storage_version: version,
            storage_group: group.clone(),
            list_kind: Cow::Owned(format!("{kind}List")),
            singular: Cow::Owned(kind.to_lowercase()),
            collection: collection_name(&group, &plural),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: STANDARD_VERBS,
            subresources: Vec::new(),
            stored: true,
            selectable_fields: Vec::new(),
            custom: None,
            group,
            kind,
            plural,
        }
    }

    /// Whether the resource itself answers `verb`.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether `version` is served.
    pub fn serves(&self, version: &str) -> bool {
        self.versions.iter().any(|served| served == version)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Name of the store's collection. Resources that are two views of the same objects share it.
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// `group/version`, or `version` alone in the core group: an object's `apiVersion`.
    pub fn api_version(&self, version: &str) -> String {
        api_version(&self.group, version)
    }

    /// `apiVersion` objects of this resource are stored with.
    pub fn storage_api_version(&self) -> String {
        api_version(&self.storage_group, &self.storage_version)
    }

    /// `plural` or `plural.group`, as upstream names a resource in messages.
    pub fn qualified(&self) -> Text {
        qualified(&self.plural, &self.group)
    }

    /// `kind` or `kind.group`, as upstream names a kind in messages about invalid objects.
    pub fn qualified_kind(&self) -> Text {
        qualified(&self.kind, &self.group)
    }
}

/// Name of the collection that holds `plural` of `group`: `pods`, `apps/deployments`.
pub fn collection_name(group: &str, plural: &str) -> Text {
    match group {
        "" => Cow::Owned(plural.to_owned()),
        group => Cow::Owned(format!("{group}/{plural}")),
    }
}

/// `group/version`, or `version` alone in the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits an `apiVersion` into group and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The built-in resource served at this path.
///
/// A scan of some seventy rows; it takes less than a microsecond.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.serves(version))
}

/// The built-in resource whose objects have this kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.kind == kind && r.group == group && r.serves(version))
}

/// Whether built-in kinds are of this group, in whatever version.
pub fn is_own_group(group: &str) -> bool {
    RESOURCES.iter().any(|resource| resource.group == group)
}

/// Groups among `resources`, in the order of their first row, each with its served versions.
/// Versions keep the order in which the rows name them: rows put the preferred one first.
pub fn groups<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for resource in resources {
        let at = groups.iter().position(|g| g.name == resource.group).unwrap_or_else(|| {
            groups.push(Group { name: &resource.group, versions: Vec::new() });
            groups.len() - 1
        });
        for version in &resource.versions {
            if !groups[at].versions.contains(&version.as_ref()) {
                groups[at].versions.push(version);
            }
        }
        if resource.custom.is_some() {
            groups[at].versions.sort_by_key(|version| definition::priority(version));
        }
    }
    groups
}

pub(crate) fn qualified(name: &Text, group: &str) -> Text {
    if group.is_empty() { name.clone() } else { Cow::Owned(format!("{name}.{group}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_up_by_path_and_by_kind() {
        let line = |r: Option<&Resource>| {
            r.map(|r| {
                format!(
                    "{} {} {} {}",
                    r.qualified(),
                    r.kind,
                    r.collection(),
                    r.storage_api_version()
                )
            })
        };
        for (group, version, plural, expected) in [
            ("", "v1", "pods", Some("pods Pod pods v1")),
            (
                "apps",
                "v1",
                "deployments",
                Some("deployments.apps Deployment apps/deployments apps/v1"),
            ),
            ("events.k8s.io", "v1", "events", Some("events.events.k8s.io Event events v1")),
            (
                "autoscaling",
                "v1",
                "horizontalpodautoscalers",
                Some(
                    "horizontalpodautoscalers.autoscaling HorizontalPodAutoscaler autoscaling/horizontalpodautoscalers autoscaling/v2",
                ),
            ),
            ("apps", "v1beta1", "deployments", None),
            ("", "v1", "deployments", None),
        ] {
            assert_eq!(line(find(group, version, plural)).as_deref(), expected, "{plural}");
        }
        assert_eq!(find_kind("", "v1", "Endpoints").unwrap().singular, "endpoints");
        assert_eq!(find_kind("", "v1", "Endpoints").unwrap().list_kind, "EndpointsList");
    }

    #[test]
    fn lists_groups_as_upstream_does() {
        let groups: Vec<String> = groups(RESOURCES.iter())
            .iter()
            .map(|g| format!("{}:{}", g.name, g.versions.join(",")))
            .collect();
        assert_eq!(
            groups.join(" "),
            ":v1 apiregistration.k8s.io:v1 apps:v1 events.k8s.io:v1 authentication.k8s.io:v1 \
             authorization.k8s.io:v1 autoscaling:v2,v1 batch:v1 certificates.k8s.io:v1 \
             networking.k8s.io:v1 policy:v1 rbac.authorization.k8s.io:v1 storage.k8s.io:v1 \
             admissionregistration.k8s.io:v1 apiextensions.k8s.io:v1 scheduling.k8s.io:v1 \
             coordination.k8s.io:v1 node.k8s.io:v1 discovery.k8s.io:v1 resource.k8s.io:v1 \
             flowcontrol.apiserver.k8s.io:v1"
        );
    }

    #[test]
    fn rows_are_ordered_and_complete() {
        for pair in RESOURCES.windows(2) {
            let [a, b] = pair else { continue };
            assert!(a.group != b.group || a.plural < b.plural, "{} before {}", a.plural, b.plural);
        }
        for r in RESOURCES.iter() {
            assert!(r.verbs.is_sorted(), "{}", r.plural);
            assert!(r.subresources.is_sorted_by(|a, b| a.name < b.name), "{}", r.plural);
            assert_eq!(r.list_kind.is_empty(), !r.allows("list"), "{}", r.plural);
            assert!(r.serves(&r.storage_version), "{}", r.plural);
        }
        for name in VOLATILE_COLLECTIONS {
            assert!(RESOURCES.iter().any(|r| r.collection() == *name), "{name}");
        }
    }

    #[test]
    fn subresources_name_foreign_kinds() {
        let pod = find("", "v1", "pods").unwrap();
        let names: Vec<&str> = pod.subresources.iter().map(|s| s.name.as_ref()).collect();
        assert_eq!(
            names.join(" "),
            "attach binding ephemeralcontainers eviction exec log portforward proxy resize status"
        );
        let eviction = pod.subresource("eviction").unwrap();
        assert_eq!(eviction.group.as_deref(), Some("policy"));
        assert_eq!(eviction.kind, "Eviction");
        let scale = find("apps", "v1", "statefulsets").unwrap().subresource("scale").unwrap();
        assert_eq!(
            (scale.group.as_deref(), scale.version.as_deref()),
            (Some("autoscaling"), Some("v1"))
        );
        assert_eq!(scale.verbs, VIEW_VERBS);
    }
}
