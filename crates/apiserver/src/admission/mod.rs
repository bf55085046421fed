//! Admission: what a write meets on its way to the store, in upstream's order. First the steps
//! that may change the object, with mutating webhooks as the last; then, when the object is
//! complete and valid, the steps that only look at it, with validating webhooks and quotas as
//! the last. The steps of our own are plain functions over one [`Attributes`], each of which
//! looks at what it cares for and lets the rest pass; only those that ask somebody wait.

mod authority;
mod defaults;
mod hook;
mod limit_ranger;
mod mutating_policy;
mod namespace_lifecycle;
mod node_restriction;
mod optional;
mod plugins;
mod pod_security;
mod policy;
mod priority;
pub(crate) mod quota;
mod review;
mod rules;
mod runtime_class;
mod scene;
mod service_account;
mod tolerations;
mod topology;
mod translations;
pub(crate) mod typing;
mod validating_policy;
mod verdict;
mod webhooks;

use std::sync::Arc;

use api::resource::Resource;
use serde_json::{Value, json};

use crate::cached::Cached;
use crate::config::Tolerations;
use crate::registry::Outcome;
use crate::server::Context;
use crate::user::User;
use hook::Hooks;
use optional::ImagePolicy;
use policy::Policies;
use webhooks::Invoked;

pub use plugins::AdmissionPlugins;
pub use translations::Translations;

/// What is about to happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It changes; patches are updates.
    Update,
    /// It goes.
    Delete,
    /// Somebody speaks to what is behind it: exec, attach, port forwarding, proxies.
    Connect,
}

impl Operation {
    /// As rules and reviews name it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Read access to the cluster's state, as the admission functions need it.
pub trait Cluster: Send + Sync {
    /// The object as stored, `None` where there is none.
    fn find(&self, collection: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a collection.
    fn all(&self, collection: &str) -> Vec<Value>;
    /// The objects of a collection in a namespace.
    fn within(&self, collection: &str, namespace: &str) -> Vec<Value>;
    /// How long pods stay on a node that is lost when they say nothing.
    fn tolerations(&self) -> Tolerations;
    /// Which steps there are, and how they are configured.
    fn plugins(&self) -> &AdmissionPlugins;
    /// The row of a resource.
    fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>>;
    /// The row of a kind, such as a policy's parameters have.
    fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>>;
    /// The kinds that show the same objects, this one among them.
    fn views(&self, resource: &Resource) -> Vec<Arc<Resource>>;
}

/// A write and its surroundings.
pub struct Attributes<'a> {
    /// What happens.
    pub operation: Operation,
    /// To which kind.
    pub resource: &'a Resource,
    /// In which of its versions the client speaks.
    pub version: &'a str,
    /// Through which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty for cluster scope.
    pub namespace: &'a str,
    /// Name; empty where it is generated later.
    pub name: &'a str,
    /// On whose behalf.
    pub user: &'a User,
    /// The state that is replaced.
    pub old: Option<&'a Value>,
    /// Whether nothing will be written.
    pub dry_run: bool,
    /// The `CreateOptions` and so on, as a JSON object; null where there are none.
    pub options: Value,
    /// The rest of the cluster.
    pub cluster: &'a dyn Cluster,
    /// What of it has been translated for those who know other versions.
    pub translations: Translations,
}

impl Attributes<'_> {
    fn is(&self, operation: Operation, collection: &str) -> bool {
        self.operation == operation
            && self.subresource.is_empty()
            && self.resource.collection() == collection
    }
}

/// The options of a write as reviews show them.
pub fn options(kind: &str, manager: &str, dry_run: bool) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if !manager.is_empty() {
        options["fieldManager"] = manager.into();
    }
    options
}

type Admit = fn(&Attributes<'_>, &mut Value) -> Outcome<()>;
/// Brings what somebody else has made of an object into order.
type Settle<'a> = &'a (dyn Fn(&mut Value) + Send + Sync);
type Check = fn(&Attributes<'_>, &Value) -> Outcome<()>;

/// What may change an object, and checks that upstream makes in the same pass.
const MUTATING: &[(&str, Admit)] = &[
    ("NamespaceLifecycle", namespace_lifecycle::admit),
    ("LimitRanger", limit_ranger::admit),
    ("ServiceAccount", service_account::admit),
    ("NodeRestriction", node_restriction::admit),
    ("TaintNodesByCondition", defaults::taint),
    ("AlwaysPullImages", optional::always_pull),
    ("PodNodeSelector", optional::select_nodes),
    ("Priority", priority::admit_pod),
    ("DefaultTolerationSeconds", tolerations::admit),
    ("PodTolerationRestriction", optional::add_tolerations),
    ("EventRateLimit", optional::limit_events),
    ("ExtendedResourceToleration", optional::tolerate_resources),
    ("DefaultStorageClass", defaults::storage_class),
    ("StorageObjectInUseProtection", defaults::protect),
    ("RuntimeClass", runtime_class::admit),
    ("DefaultIngressClass", defaults::ingress_class),
    ("PodTopologyLabels", topology::admit),
];

/// What only looks at the object that is to be stored (null when it goes).
const VALIDATING: &[(&str, Check)] = &[
    ("NamespaceExists", optional::exists),
    ("LimitPodHardAntiAffinityTopology", optional::hard_anti_affinity),
    ("LimitRanger", limit_ranger::check),
    ("AlwaysPullImages", optional::check_pulled),
    ("PodSecurity", pod_security::check),
    ("PodNodeSelector", optional::check_nodes),
    ("Priority", priority::check_class),
    ("PodTolerationRestriction", optional::check_tolerations),
    ("PersistentVolumeClaimResize", defaults::check_resize),
    ("RuntimeClass", runtime_class::check),
    ("DenyServiceExternalIPs", optional::external_addresses),
    ("AlwaysDeny", optional::deny),
    // Of the configuration of admission itself: no plugin of its own, and never off.
    ("", typing::check),
];

/// Lets the eviction of a pod pass or says why not.
pub fn admit_eviction(user: &User, resource: &Resource, pod: &Value) -> Outcome<()> {
    node_restriction::admit_eviction(user, resource, pod)
}

/// The whole chain, with what it keeps in memory.
pub(crate) struct Admission {
    context: Arc<Context>,
    /// Who is asked about images.
    images: Option<ImagePolicy>,
    mutating: Cached<Hooks>,
    validating: Cached<Hooks>,
    mutating_policies: Cached<Policies>,
    validating_policies: Cached<Policies>,
}

impl Admission {
    /// Reads nothing yet.
    pub(crate) fn new(context: Arc<Context>) -> Result<Self, String> {
        let store = &context.store;
        let images = context.config.admission.images.as_ref();
        let images = images.map(|options| ImagePolicy::new(options, store)).transpose()?;
        Ok(Admission {
            images,
            mutating: Cached::new(store.clone(), &[hook::MUTATING], Hooks::mutating),
            validating: Cached::new(store.clone(), &[hook::VALIDATING], Hooks::validating),
            mutating_policies: Cached::new(store.clone(), &policy::MUTATING, Policies::mutating),
            validating_policies: Cached::new(
                store.clone(),
                &policy::VALIDATING,
                Policies::validating,
            ),
            context,
        })
    }

    /// Whether a step is taken.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.context.config.admission.is_on(name)
    }

    /// Completes an object that is written, or says why it may not be. `settle` brings what a
    /// webhook has made of it into order.
    pub(crate) async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        settle: Settle<'_>,
    ) -> Outcome<()> {
        let plugins = &self.context.config.admission;
        if plugins.is_on("ServiceAccount") {
            service_account::await_default(attributes, object, &self.context.store).await;
        }
        let chain = |object: &mut Value| {
            let mut on = MUTATING.iter().filter(|(name, _)| plugins.is_on(name));
            on.try_for_each(|(_, step)| step(attributes, object))
        };
        chain(object)?;
        let mut invoked = Invoked::default();
        if self.ask_to_mutate(attributes, object, &mut invoked, settle).await? {
            // What was changed is completed again, and seen by those who asked for it.
            let before = object.clone();
            chain(object)?;
            invoked.again(*object != before);
            self.ask_to_mutate(attributes, object, &mut invoked, settle).await?;
        }
        Ok(())
    }

    /// One round of policies and webhooks; whether one has changed the object.
    async fn ask_to_mutate(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        invoked: &mut Invoked,
        settle: Settle<'_>,
    ) -> Outcome<bool> {
        let context = &self.context;
        let plugins = &context.config.admission;
        let second = invoked.is_second();
        let mut by_policy = false;
        if plugins.is_on("MutatingAdmissionPolicy") {
            let policies = self.mutating_policies.get();
            by_policy =
                mutating_policy::mutate(context, attributes, &policies, object, second, settle)
                    .await?;
        }
        if by_policy && second {
            invoked.again(true);
        }
        if !plugins.is_on("MutatingAdmissionWebhook") {
            return Ok(by_policy);
        }
        let hooks = self.mutating.get();
        let by_hook =
            webhooks::mutate(context, attributes, &hooks, object, invoked, settle).await?;
        Ok(by_policy || by_hook)
    }

    /// Lets a write pass as it will be stored, or says why not; the object is null for deletions.
    pub(crate) async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
    ) -> Outcome<()> {
        let plugins = &self.context.config.admission;
        if attributes.operation != Operation::Connect {
            let mut on = VALIDATING.iter().filter(|(name, _)| plugins.is_on(name));
            on.try_for_each(|(_, step)| step(attributes, object))?;
            if plugins.is_on("OwnerReferencesPermissionEnforcement") {
                optional::check_owners(&self.context, attributes, object).await?;
            }
        }
        if let (true, Some(images)) = (plugins.is_on("ImagePolicyWebhook"), &self.images) {
            images.check(attributes, object).await?;
        }
        if plugins.is_on("ValidatingAdmissionPolicy") {
            let policies = self.validating_policies.get();
            validating_policy::validate(&self.context, attributes, &policies, object).await?;
        }
        if plugins.is_on("ValidatingAdmissionWebhook") {
            let hooks = self.validating.get();
            webhooks::validate(&self.context, attributes, &hooks, object).await?;
        }
        Ok(())
    }

    /// Lets something pass that changes no object by itself (a connection, an eviction), or says
    /// why not; `object` is what was sent.
    pub(crate) async fn pass(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Outcome<()> {
        self.ask_to_mutate(attributes, object, &mut Invoked::default(), &|_| ()).await?;
        self.validate(attributes, object).await
    }

    /// Lets a deletion pass or says why not.
    pub(crate) async fn delete(&self, attributes: &Attributes<'_>) -> Outcome<()> {
        namespace_lifecycle::admit_delete(attributes)?;
        node_restriction::admit_delete(attributes)?;
        let (mut nothing, mut invoked) = (Value::Null, Invoked::default());
        self.ask_to_mutate(attributes, &mut nothing, &mut invoked, &|_| ()).await?;
        self.validate(attributes, &Value::Null).await
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::collections::BTreeMap;

    /// A cluster of a few objects, keyed by collection, namespace and name.
    #[derive(Default)]
    pub struct Few(pub BTreeMap<(String, String, String), Value>, pub AdmissionPlugins);

    impl Few {
        pub fn with(mut self, collection: &str, object: Value) -> Self {
            let field =
                |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            self.0.insert((collection.to_owned(), field("namespace"), field("name")), object);
            self
        }
    }

    impl Cluster for Few {
        fn find(&self, collection: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
            let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
            self.0.get(&key).cloned().map(Arc::new)
        }

        fn all(&self, collection: &str) -> Vec<Value> {
            self.0
                .iter()
                .filter(|(key, _)| key.0 == collection)
                .map(|(_, value)| value.clone())
                .collect()
        }

        fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
            api::resource::find(group, version, plural).cloned().map(Arc::new)
        }

        fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
            let (group, version) = api::resource::split_api_version(api_version);
            api::resource::find_kind(group, version, kind).cloned().map(Arc::new)
        }

        fn within(&self, collection: &str, namespace: &str) -> Vec<Value> {
            let mut all = self.all(collection);
            all.retain(|object| object["metadata"]["namespace"] == namespace);
            all
        }

        fn tolerations(&self) -> Tolerations {
            Tolerations::default()
        }

        fn plugins(&self) -> &AdmissionPlugins {
            &self.1
        }

        fn views(&self, resource: &Resource) -> Vec<Arc<Resource>> {
            vec![Arc::new(resource.clone())]
        }
    }

    /// A create of this kind by an administrator, on a cluster.
    pub fn attributes<'a>(
        cluster: &'a Few,
        (group, version, plural): (&str, &'static str, &str),
        namespace: &'a str,
    ) -> Attributes<'a> {
        static ADMIN: std::sync::LazyLock<User> = std::sync::LazyLock::new(User::admin);
        Attributes {
            operation: Operation::Create,
            resource: api::resource::find(group, version, plural).unwrap(),
            version,
            subresource: "",
            namespace,
            name: "",
            user: &ADMIN,
            old: None,
            dry_run: false,
            options: Value::Null,
            cluster,
            translations: Translations::default(),
        }
    }

    /// Runs one step on a create.
    pub fn create(
        step: Admit,
        cluster: &Few,
        collection: (&str, &'static str, &str),
        object: &mut Value,
    ) -> Outcome<()> {
        let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (field("namespace"), field("name"));
        let mut attributes = attributes(cluster, collection, &namespace);
        attributes.name = &name;
        step(&attributes, object)
    }
}
