//! One request as the verbs see it.

use std::sync::Arc;

use api::resource::Resource;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use store::Key;

use super::negotiate::Negotiated;
use super::options::WriteOptions;
use super::{Outcome, meta};
use crate::request::Response;
use crate::user::User;

/// The longest name of a field manager, as upstream has it: longer user agents are cut, longer
/// names refused.
pub const MANAGER_MAX_BYTES: usize = 128;

/// A collection, or an object in it, in one of its served versions.
#[derive(Debug, Clone)]
pub struct Target {
    /// The kind's row.
    pub resource: Arc<Resource>,
    /// The version that the client speaks.
    pub version: String,
    /// Namespace; empty for cluster scope and for requests over all namespaces.
    pub namespace: String,
    /// Name; empty for the collection.
    pub name: String,
}

impl Target {
    /// Where the object stands in the store.
    pub fn key(&self) -> Key {
        Key::new(self.resource.collection(), self.namespace.as_str(), self.name.as_str())
    }

    /// The same collection, another name.
    pub fn named(&self, name: &str) -> Self {
        Target { name: name.to_owned(), ..self.clone() }
    }

    /// The `apiVersion` that the client speaks.
    pub fn api_version(&self) -> String {
        self.resource.api_version(&self.version)
    }

    /// Whether stored bytes can be shown as they are. Those of defined kinds cannot: their schema
    /// may have other fields and defaults by now.
    pub fn is_storage_version(&self) -> bool {
        self.resource.group == self.resource.storage_group
            && self.version == self.resource.storage_version
            && self.resource.custom.is_none()
    }

    /// A stored object in the version that the client speaks.
    pub fn present(&self, mut stored: Value) -> Outcome<Value> {
        if let Some(custom) = &self.resource.custom {
            // What a webhook translates has been translated before.
            stored["apiVersion"] = self.api_version().into();
            custom.prune(&self.version, &mut stored);
            custom.default(&self.version, &mut stored);
        } else if !self.is_storage_version() {
            let from = self.resource.storage_api_version();
            api::convert::convert(&self.resource, &from, &self.api_version(), &mut stored);
        }
        Ok(stored)
    }

    /// A client's object in the version that is stored.
    pub fn to_storage(&self, mut object: Value) -> Value {
        if self.resource.custom.is_some() {
            object["apiVersion"] = self.resource.storage_api_version().into();
        } else if !self.is_storage_version() {
            let to = self.resource.storage_api_version();
            api::convert::convert(&self.resource, &self.api_version(), &to, &mut object);
        }
        object
    }
}

/// One authorized request.
pub struct Call {
    /// What it is about.
    pub target: Target,
    /// Which view of it; empty for the object itself.
    pub subresource: String,
    /// On whose behalf.
    pub user: User,
    /// The query as sent.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// How the answer is to be shown.
    pub accept: Negotiated,
    /// The body; empty for reads.
    pub body: Bytes,
}

impl Call {
    /// The media type of the body, without parameters.
    pub fn content_type(&self) -> String {
        let text = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        text.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Who owns the fields that this request sets: who it says, else the program that sends it.
    pub fn field_manager(&self, options: &WriteOptions) -> String {
        if !options.field_manager.is_empty() {
            return options.field_manager.clone();
        }
        let agent = self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let name = agent.unwrap_or_default().split('/').next().unwrap_or_default();
        let mut name: String = name.chars().filter(|c| !c.is_control()).collect();
        name.truncate(name.floor_char_boundary(MANAGER_MAX_BYTES));
        if name.is_empty() { component(&self.user).to_owned() } else { name }
    }

    /// Refuses a body that names another object than the path does.
    pub fn check_names(&self, object: &Value) -> Outcome<()> {
        use api::status::Status;
        let (name, namespace) = (meta::name(object), meta::namespace(object));
        let target = &self.target;
        if name.is_empty() {
            return Err(Status::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                target.name
            )));
        }
        if name != target.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        if !namespace.is_empty() && !target.namespace.is_empty() && namespace != target.namespace {
            return Err(Status::bad_request(format!(
                "the namespace of the object ({namespace}) does not match the namespace on the URL ({})",
                target.namespace
            )));
        }
        Ok(())
    }
}

/// The part of the cluster that a user is, for the cluster's own clients name no program.
fn component(user: &User) -> &str {
    match user.name.strip_prefix("system:") {
        Some(name) if name.starts_with("node:") => "kubelet",
        Some(name) if name.starts_with("kube-") => name,
        _ => "unknown",
    }
}

/// What a verb answers with.
pub enum Content {
    /// Bytes as the store gave them: the storage version, stamped.
    Stored(Bytes),
    /// An object in the version that the client speaks, or of another kind (Scale, Status).
    Object(Value),
    /// An answer that is made already: a list, a watch.
    Ready(Response),
}

/// An answer to be rendered as the client wants it.
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// What is shown.
    pub content: Content,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl Reply {
    /// 200 with content.
    pub fn ok(content: Content) -> Self {
        Reply { status: StatusCode::OK, content, warnings: Vec::new() }
    }

    /// 201 for what was made, else 200.
    pub fn written(stored: Bytes, created: bool) -> Self {
        let status = if created { StatusCode::CREATED } else { StatusCode::OK };
        Reply { status, content: Content::Stored(stored), warnings: Vec::new() }
    }

    /// The same with warnings.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}
