//! How the client wants its answer: media type, Table or metadata only, pretty or dense.

use api::protobuf::{self, Form};
use api::resource::split_api_version;
use api::status::{Status, go_quote};
use api::table::{self, Include, Printer};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Outcome;
pub use super::accept::{Format, Shape};
use super::accept::{clauses, understand};
use super::call::{Call, Content, Reply, Target};
use crate::request::{Response, query_true, query_value};
use crate::response;

/// What client and server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// Shape of objects.
    pub shape: Shape,
    /// Notation.
    pub format: Format,
    /// Whether JSON is indented.
    pub pretty: bool,
    /// Whether a shape other than the object's own is to be of `meta.k8s.io/v1beta1`.
    pub beta: bool,
}

/// Kinds that upstream advises against, and what it says of them.
const DEPRECATED: [(&str, &str); 2] = [
    ("componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ("endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
];

/// What kinds without messages of their own (custom resources) are served in: all but the last.
pub(crate) const SERVED: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// Upstream's word on a Table in protobuf.
const TABLE_HAS_NO_MESSAGE: &str = "object *v1.Table does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message";

/// The media types of answers about a kind that has, or has not, messages of its own.
fn served(messages: bool) -> &'static [&'static str] {
    if messages { &SERVED } else { &SERVED[..2] }
}

impl Negotiated {
    /// Reads `Accept`, `pretty` and, as upstream does, whether a person with curl is asking.
    /// `messages` tells whether the kind has a protobuf form.
    pub fn new(headers: &HeaderMap, query: &str, messages: bool) -> Outcome<Self> {
        let accept = text(headers, header::ACCEPT);
        let pretty = is_pretty(headers, query);
        let include = query_value(query, "includeObject").unwrap_or_default();
        let (shape, format, beta) = if accept.is_empty() {
            (Shape::Object, Format::Json, false)
        } else {
            clauses(accept)
                .into_iter()
                .filter_map(understand)
                .find(|(shape, format, _)| {
                    (messages || *format != Format::Protobuf)
                        && !(streams_list(query) && matches!(shape, Shape::Table(_)))
                })
                .ok_or_else(|| Status::not_acceptable(served(messages)))?
        };
        if matches!((shape, format), (Shape::Table(_), Format::Protobuf)) {
            return Err(Status::new(406, "NotAcceptable", TABLE_HAS_NO_MESSAGE));
        }
        let shape = match shape {
            Shape::Table(_) => Shape::Table(Include::parse(&include).ok_or_else(|| {
                let given = go_quote(&include);
                Status::bad_request(format!("Unable to convert to Table as requested: includeObject: Invalid value: {given}: must be 'Metadata', 'Object', 'None', or empty"))
            })?),
            shape => shape,
        };
        Ok(Negotiated { shape, format, pretty, beta })
    }

    /// Whether bytes from the store can be sent as they are.
    pub fn is_plain(&self) -> bool {
        *self
            == Negotiated { shape: Shape::Object, format: Format::Json, pretty: false, beta: false }
    }

    /// The `Content-Type` of an answer.
    pub fn content_type(&self) -> &'static str {
        match self.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => protobuf::MEDIA_TYPE,
        }
    }

    /// The `Content-Type` of a watch.
    pub fn stream_type(&self) -> &'static str {
        match self.format {
            Format::Json => "application/json",
            // YAML has no streaming form.
            Format::Yaml => "application/json;stream=watch",
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    /// The `apiVersion` of shapes other than the object's own.
    pub fn meta_version(&self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }

    /// An object in the notation that was agreed on.
    pub fn write(&self, value: &Value) -> Outcome<Vec<u8>> {
        if self.beta {
            let mut value = value.clone();
            version_shapes(&mut value, self.meta_version());
            return Negotiated { beta: false, ..*self }.write(&value);
        }
        let mut bytes = match (self.format, self.pretty) {
            (Format::Json, false) => serde_json::to_vec(value),
            (Format::Json, true) => serde_json::to_vec_pretty(value),
            (Format::Protobuf, _) => return protobuf::encode(value).map_err(unmade),
            (Format::Yaml, _) => {
                return serde_saphyr::to_string(value)
                    .map(String::into_bytes)
                    .map_err(|error| Status::internal_error(&error.to_string()));
            }
        }
        .map_err(|error| Status::internal_error(&error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Whether a watch is to begin with what is there, as a list would. Upstream shows that in no
/// Table, and a client that takes nothing else is refused.
fn streams_list(query: &str) -> bool {
    ["sendInitialEvents", "allowWatchBookmarks"].iter().all(|key| query_true(query, key))
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    value.unwrap_or_default()
}

/// Whether a person reads the answer: the request says so, or comes from where people type.
pub(crate) fn is_pretty(headers: &HeaderMap, query: &str) -> bool {
    let agent = text(headers, header::USER_AGENT);
    match query_value(query, "pretty").as_deref() {
        Some(value) => !matches!(value, "" | "false" | "0"),
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|person| agent.starts_with(person)),
    }
}

/// Gives a shape, and the shapes inside it, another version of their group.
fn version_shapes(value: &mut Value, version: &str) {
    let shape = matches!(
        value["kind"].as_str(),
        Some("Table" | "PartialObjectMetadata" | "PartialObjectMetadataList")
    );
    if !shape || value["apiVersion"] != "meta.k8s.io/v1" {
        return;
    }
    value["apiVersion"] = version.into();
    for (list, inside) in [("items", ""), ("rows", "/object")] {
        for item in value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            item.pointer_mut(inside).into_iter().for_each(|value| version_shapes(value, version));
        }
    }
}

/// An object that has no message, or a stored value that is broken.
pub fn unmade(error: protobuf::EncodeError) -> Status {
    let message = base::chain(&error);
    match error {
        protobuf::EncodeError::UnknownKind { .. } => Status::new(406, "NotAcceptable", message),
        protobuf::EncodeError::Json(_) => Status::internal_error(&message),
    }
}

/// The document of a stored value, straight from its bytes, where the client is to see what is
/// stored in protobuf.
pub fn message(target: &Target, accept: &Negotiated, stored: &[u8]) -> Option<Outcome<Vec<u8>>> {
    if accept.format != Format::Protobuf {
        return None;
    }
    let (form, api_version, kind) = match accept.shape {
        Shape::Object if target.is_storage_version() => {
            (form(target)?, target.api_version(), &*target.resource.kind)
        }
        Shape::Partial => {
            (Form::partial()?, accept.meta_version().to_owned(), "PartialObjectMetadata")
        }
        Shape::Object | Shape::Table(_) => return None,
    };
    let document =
        form.message(stored).map(|message| protobuf::document(&api_version, kind, &message));
    Some(document.map_err(unmade))
}

/// How the target's kind is written in protobuf, if it is.
pub fn form(target: &Target) -> Option<Form> {
    let resource = &target.resource;
    let built_in = resource.custom.is_none();
    built_in.then(|| Form::of(&resource.group, &target.version, &resource.kind)).flatten()
}

/// The notation that a client wants a whole object in which is not stored; `None` where it takes
/// none that there is.
pub(crate) fn notation(headers: &HeaderMap) -> Option<Format> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let Some(accept) = accept.filter(|accept| !accept.is_empty()) else {
        return Some(Format::Json);
    };
    clauses(accept).into_iter().find_map(|clause| match understand(clause)? {
        (Shape::Object, format, _) => Some(format),
        _ => None,
    })
}

/// An object that is not stored (a bookmark, a Scale) as the agreed shape shows it.
pub fn shaped(shape: Shape, object: Value) -> Value {
    match shape {
        Shape::Object => object,
        Shape::Partial => table::partial_metadata(&object),
        Shape::Table(include) => {
            let version = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            let printer = Printer::of(split_api_version(text("apiVersion")).0, text("kind"));
            printer.table([&object], version, Timestamp::now(), include, true)
        }
    }
}

/// A stored value as the client is to see it: version, then shape.
pub fn presented(target: &Target, shape: Shape, stored: &[u8]) -> Outcome<Value> {
    let stored = parse(stored)?;
    match shape {
        Shape::Object => target.present(stored),
        Shape::Partial => Ok(table::partial_metadata(&stored)),
        Shape::Table(include) => {
            let version = json!({"resourceVersion": stored["metadata"]["resourceVersion"]});
            let row = row(target, include, &stored)?;
            Ok(printer(target).assemble(vec![row], version, true))
        }
    }
}

/// The printer of a target's kind.
pub fn printer(target: &Target) -> Printer {
    Printer::of_resource(&target.resource, &target.version)
}

/// A stored object as a row of a table.
pub fn row(target: &Target, include: Include, stored: &Value) -> Outcome<Value> {
    let shown = match include {
        Include::None => None,
        Include::Metadata => Some(table::partial_metadata(stored)),
        Include::Object => Some(target.present(stored.clone())?),
    };
    Ok(printer(target).row(stored, Timestamp::now(), shown))
}

/// A stored value as a tree.
pub fn parse(stored: &[u8]) -> Outcome<Value> {
    serde_json::from_slice(stored)
        .map_err(|error| Status::internal_error(&format!("reading a stored object: {error}")))
}

/// Makes the HTTP answer.
pub fn render(call: &Call, reply: Reply) -> Outcome<Response> {
    let accept = call.accept;
    let mut answer = match reply.content {
        Content::Ready(ready) => ready,
        Content::Stored(bytes) if accept.is_plain() && call.target.is_storage_version() => {
            response::with_type(reply.status, accept.content_type(), bytes)
        }
        Content::Stored(bytes) => {
            let body = match message(&call.target, &accept, &bytes) {
                Some(document) => document?,
                None => accept.write(&presented(&call.target, accept.shape, &bytes)?)?,
            };
            response::with_type(reply.status, accept.content_type(), body)
        }
        Content::Object(value) => {
            let value = if value["kind"] == "Status" { value } else { shaped(accept.shape, value) };
            response::with_type(reply.status, accept.content_type(), accept.write(&value)?)
        }
    };
    let collection = call.target.resource.collection();
    let deprecated = DEPRECATED.iter().find(|(of, _)| *of == collection);
    let deprecated = deprecated.map(|(_, text)| (*text).to_owned());
    response::add_warnings(&mut answer, deprecated.into_iter().chain(reply.warnings));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_streamed_is_no_table() {
        const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let agreed = |accept: &str, query: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Negotiated::new(&headers, query, true).map(|n| n.shape).map_err(|status| status.code)
        };
        let both = format!("{TABLE},application/json");
        let streamed = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true";
        assert_eq!(agreed(TABLE, streamed), Err(406));
        assert_eq!(agreed(&both, streamed), Ok(Shape::Object));
        for other in ["watch=true&allowWatchBookmarks=true", "watch=true&sendInitialEvents=true"] {
            assert_eq!(agreed(&both, other), Ok(Shape::Table(Include::Metadata)), "{other}");
        }
    }

    #[test]
    fn accept_is_read_as_clients_mean_it() {
        let agreed = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Negotiated::new(&headers, "", true).ok().map(|n| (n.shape, n.format))
        };
        for (accept, expected) in [
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some((Shape::Object, Format::Protobuf)),
            ),
            ("application/yaml", Some((Shape::Object, Format::Yaml))),
            ("application/yaml;q=0.5, application/json", Some((Shape::Object, Format::Json))),
            ("*/*", Some((Shape::Object, Format::Json))),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Some((Shape::Partial, Format::Json)),
            ),
            ("application/cbor", None),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some((Shape::Table(Include::Metadata), Format::Json)),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                Some((Shape::Table(Include::Metadata), Format::Json)),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
        ] {
            assert_eq!(agreed(accept), expected, "{accept}");
        }
        let mut table = json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": [
            {"object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}},
            {"object": {"kind": "Pod", "apiVersion": "v1"}}]});
        version_shapes(&mut table, "meta.k8s.io/v1beta1");
        let versions = ["/apiVersion", "/rows/0/object/apiVersion", "/rows/1/object/apiVersion"];
        let versions = versions.map(|pointer| table.pointer(pointer).unwrap().clone());
        assert_eq!(versions, ["meta.k8s.io/v1beta1", "meta.k8s.io/v1beta1", "v1"]);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, protobuf::MEDIA_TYPE.parse().unwrap());
        let refused = Negotiated::new(&headers, "", false).unwrap_err();
        assert_eq!(
            refused.message,
            "only the following media types are accepted: application/json, application/yaml"
        );
    }
}
