//! The generic verbs over the store: one road for every kind.
//!
//! A request is resolved to a [`Target`] by the resource table, handed to its verb, and the
//! verb's reply is rendered as the client asked for it. What differs between kinds is asked of
//! `api::strategy`; the few views with a meaning of their own (scale, binding, eviction) build
//! a change and take the same road.

pub(crate) mod accept;
mod allocation;
mod call;
pub(crate) mod codec;
mod component_status;
mod connect;
mod continuation;
pub(crate) mod conversion;
pub(crate) mod decode;
mod delete;
mod deletion;
mod eviction;
mod expiry;
mod lasting;
pub(crate) mod meta;
mod names;
pub(crate) mod negotiate;
mod not_json;
mod options;
mod patch;
mod policy;
mod provision;
mod quota;
mod read;
pub(crate) mod scale;
mod services;
mod signing;
mod twice;
mod views;
mod watch;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::{self, Resource};
use api::status::Status;
use base::{Clock, SystemClock};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use store::{Key, Store};
use tokio_util::sync::CancellationToken;

pub use codec::JsonCodec;

use crate::admission::{Admission, AdmissionPlugins, Cluster};
use crate::body;
use crate::cached;
use crate::config::{Config, Tolerations};
use crate::parsed::Parsed;
use crate::request::{Request, RequestInfo, Response};
use crate::response;
use crate::server::Context;
use crate::user::User;
use allocation::Orphans;
use call::{Call, Content, Reply, Target};
use expiry::Swept;
use negotiate::Negotiated;
use quota::Ledger;

/// What a step comes to, or the `Status` that says why not.
pub(crate) type Outcome<T> = Result<T, Status>;

/// Group, version and plural of a served resource.
type Path = (String, String, String);

/// Answers every resource request that is not a proxy or a virtual review.
pub(crate) struct Registry {
    context: Arc<Context>,
    resources: HashMap<Path, Arc<Resource>>,
    admission: Admission,
    clock: Arc<dyn Clock>,
    orphans: Orphans,
    swept: Swept,
    ledger: Arc<Ledger>,
    parsed: Parsed,
}

impl Registry {
    /// A registry over the context's store.
    pub(crate) fn new(context: Arc<Context>) -> Result<Arc<Self>, String> {
        let mut resources = HashMap::new();
        for resource in api::resource::RESOURCES.iter() {
            let shared = Arc::new(resource.clone());
            for version in &resource.versions {
                let path =
                    (resource.group.to_string(), version.to_string(), resource.plural.to_string());
                resources.insert(path, Arc::clone(&shared));
            }
        }
        let clock = Arc::new(SystemClock);
        let orphans = Orphans::default();
        let swept = Swept::default();
        let (ledger, parsed) = (Arc::default(), Parsed::default());
        let admission = Admission::new(Arc::clone(&context))?;
        Ok(Arc::new(Registry {
            context,
            resources,
            admission,
            clock,
            orphans,
            swept,
            ledger,
            parsed,
        }))
    }

    /// Whether this server answers for a path of resources, if only to say what is wrong with it:
    /// for all in groups of its own, and for those of defined kinds in their scope. Upstream
    /// knows all other paths as little as `/nonsense`.
    pub(crate) fn knows(&self, info: &RequestInfo) -> bool {
        if resource::is_own_group(&info.group) {
            return true;
        }
        let path = (info.group.clone(), info.version.clone(), info.resource.clone());
        let within = !info.namespace.is_empty();
        self.context.definitions.get().find(&path).is_some_and(|row| {
            within == row.namespaced
                || (row.namespaced && matches!(info.verb.as_str(), "list" | "watch"))
        })
    }

    /// Answers one authorized request.
    pub(crate) async fn handle(
        self: Arc<Self>,
        info: RequestInfo,
        user: User,
        request: Request,
    ) -> Response {
        match self.answer(info, user, request).await {
            Ok(response) => response,
            Err(status) => response::status(&status),
        }
    }

    async fn answer(&self, info: RequestInfo, user: User, request: Request) -> Outcome<Response> {
        let target = self.target(&info)?;
        check_verb(&target.resource, &info)?;
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let messages = negotiate::form(&target).is_some();
        let accept = Negotiated::new(&parts.headers, &query, messages)?;
        let body = match info.verb.as_str() {
            "get" | "list" | "watch" => Bytes::new(),
            _ => body::whole(body, self.config().limits.body_bytes).await?,
        };
        let subresource = info.subresource.clone();
        let call = Call { target, subresource, user, query, headers: parts.headers, accept, body };
        let mut reply = self.dispatch(&info.verb, &call).await?;
        if let Content::Stored(bytes) = &mut reply.content {
            *bytes = conversion::translate_stored(&self.context, &call.target, bytes).await?;
        }
        negotiate::render(&call, reply)
    }

    /// The resource and the object that a path names.
    fn target(&self, info: &RequestInfo) -> Outcome<Target> {
        let path = (info.group.clone(), info.version.clone(), info.resource.clone());
        let defined = self.context.definitions.get();
        let resource = self.resources.get(&path).or_else(|| defined.find(&path));
        let resource = resource.ok_or_else(Status::unknown_path)?;
        if info.verb == "create" && defined.is_ending(resource.collection()) {
            let mut refusal = Status::method_not_allowed(&**resource, &info.verb);
            refusal.message =
                "create not allowed while custom resource definition is terminating".to_owned();
            return Err(refusal);
        }
        let namespace = if resource.namespaced { info.namespace.clone() } else { String::new() };
        let in_namespace = !info.namespace.is_empty() && resource.collection() != "namespaces";
        let collection = matches!(info.verb.as_str(), "list" | "watch");
        let of_one = matches!(info.verb.as_str(), "get" | "update" | "patch" | "delete");
        let misnamed = (of_one && info.name.is_empty())
            || (info.verb == "create" && info.subresource.is_empty() && !info.name.is_empty());
        if misnamed {
            return Err(no_such_method());
        }
        if !resource.namespaced && in_namespace {
            return Err(Status::unknown_path());
        }
        if resource.namespaced && namespace.is_empty() && !collection {
            return Err(if matches!(info.verb.as_str(), "create" | "deletecollection") {
                no_such_method()
            } else {
                Status::unknown_path()
            });
        }
        let name = info.name.clone();
        Ok(Target {
            resource: Arc::clone(resource),
            version: info.version.clone(),
            namespace,
            name,
        })
    }

    async fn dispatch(&self, verb: &str, call: &Call) -> Outcome<Reply> {
        self.sweep_events(&call.target).await;
        match (call.subresource.as_str(), verb) {
            ("", "get") => self.get(call).await,
            ("", "list") => self.list(call).await,
            ("", "watch") => self.watch(call).await,
            ("", "create") if call.target.resource.collection() == "bindings" => {
                self.bind(call).await
            }
            ("", "create") => self.post(call).await,
            ("", "update") => self.put(call).await,
            ("", "patch") => self.patch(call).await,
            ("", "delete") => self.delete(call).await,
            ("", "deletecollection") => self.delete_collection(call).await,
            ("scale", "get") => self.get_scale(call).await,
            ("scale", "update") => self.put_scale(call).await,
            ("scale", "patch") => self.patch_scale(call).await,
            ("binding", "create") => self.bind(call).await,
            ("eviction", "create") => self.evict(call).await,
            (_, "get") => self.get(call).await,
            (_, "update") => self.put(call).await,
            (_, "patch") => self.patch(call).await,
            _ => Err(Status::method_not_allowed(&*call.target.resource, verb)),
        }
    }

    fn store(&self) -> &Store {
        &self.context.store
    }

    fn config(&self) -> &Config {
        &self.context.config
    }

    fn stopping(&self) -> CancellationToken {
        self.context.stopping.clone()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Now, as objects have it.
pub(crate) fn time_now() -> String {
    names::time(SystemClock.now())
}

/// Refuses verbs and subresources that the table does not have. Upstream's answers about defined
/// kinds say which kind and object.
fn check_verb(resource: &Resource, info: &RequestInfo) -> Outcome<()> {
    let defined = resource.custom.is_some();
    let verbs = match info.subresource.as_str() {
        "" => resource.verbs,
        name => match resource.subresource(name) {
            Some(subresource) => subresource.verbs,
            None if defined => return Err(Status::not_found(resource, &info.name)),
            None => return Err(Status::unknown_path()),
        },
    };
    if verbs.contains(&info.verb.as_str()) {
        return Ok(());
    }
    Err(if defined { Status::method_not_allowed(resource, &info.verb) } else { no_such_method() })
}

/// What a path answers to a method that it does not have.
fn no_such_method() -> Status {
    let why = "the server does not allow this method on the requested resource";
    Status::new(405, "MethodNotAllowed", why)
}

impl Cluster for Registry {
    fn find(&self, collection: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let entry = self.store().get(&Key::new(collection, namespace, name))?;
        self.parsed.get(&entry)
    }

    fn all(&self, collection: &str) -> Vec<Value> {
        cached::objects(self.store(), collection, None)
    }

    fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        let defined = self.context.definitions.get();
        self.resources.get(&path).or_else(|| defined.find(&path)).cloned()
    }

    fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let (group, version) = api::resource::split_api_version(api_version);
        let is = |row: &&Arc<Resource>| {
            row.group == group && row.kind == kind && row.serves(version) && row.stored
        };
        let defined = self.context.definitions.get();
        self.resources.values().chain(defined.rows()).find(is).cloned()
    }

    fn within(&self, collection: &str, namespace: &str) -> Vec<Value> {
        cached::objects(self.store(), collection, Some(namespace))
    }

    fn tolerations(&self) -> Tolerations {
        self.context.config.tolerations
    }

    fn plugins(&self) -> &AdmissionPlugins {
        &self.context.config.admission
    }

    fn views(&self, resource: &Resource) -> Vec<Arc<Resource>> {
        let defined = self.context.definitions.get();
        let all = self.resources.values().chain(defined.rows());
        let mut rows: Vec<Arc<Resource>> =
            all.filter(|row| row.collection == resource.collection).cloned().collect();
        rows.sort_by(|a, b| (&a.group, &a.versions).cmp(&(&b.group, &b.versions)));
        rows.dedup_by(|a, b| Arc::ptr_eq(a, b));
        if rows.is_empty() {
            rows.push(Arc::new(resource.clone()));
        }
        rows
    }
}
