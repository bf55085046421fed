//! `/openapi/v2` and `/openapi/v3`: written afresh for each client that does not have them
//! yet, straight into gzip where the client takes it, and kept nowhere: they are megabytes
//! that are asked for once a day.

use std::io::{self, Write};
use std::sync::Arc;

use api::openapi::{Foreign, OpenApi, V2_PROTOBUF, V2_PROTOBUF_OLD, V3_PROTOBUF, V3_PROTOBUF_OLD};
use api::status::Status;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::definitions::{self, Defined};
use crate::registry::accept;
use crate::request::{Response, query_value};
use crate::response;
use crate::server::Context;
use crate::{aggregation, compress};

const JSON: &str = "application/json";
/// Forms of a document: what clients call them, and what they are called in the answer.
type Forms = [(&'static str, &'static str); 3];
const V2_FORMS: Forms = [(JSON, JSON), (V2_PROTOBUF, V2_PROTOBUF), (V2_PROTOBUF_OLD, V2_PROTOBUF)];
const V3_FORMS: Forms = [(JSON, JSON), (V3_PROTOBUF, V3_PROTOBUF), (V3_PROTOBUF_OLD, V3_PROTOBUF)];
/// For documents whose address holds their hash.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Which document a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Document {
    V2,
    /// Group (empty for core) and version.
    V3(String, String),
}

/// Answers an OpenAPI path; upstream's plain 404 for any other.
pub(crate) async fn answer(
    context: Arc<Context>,
    path: String,
    query: String,
    headers: HeaderMap,
) -> Response {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let defined = context.definitions.get();
    let (document, forms) = match parts.as_slice() {
        ["openapi", "v2"] => (Document::V2, V2_FORMS),
        ["openapi", "v3"] => {
            let index = OpenApi::new(defined.all(), &context.config.version.git_version).v3_index();
            let index = aggregation::openapi_index(&context, index).await;
            return response::tagged(&headers, JSON, index.to_string());
        }
        ["openapi", "v3", "api", version] => {
            (Document::V3(String::new(), (*version).to_owned()), V3_FORMS)
        }
        ["openapi", "v3", "apis", group, version] => {
            (Document::V3((*group).to_owned(), (*version).to_owned()), V3_FORMS)
        }
        _ => return response::not_found(),
    };
    let Some(kind) = form(&headers, &forms) else {
        return response::status(&Status::not_acceptable(&[JSON, forms[1].0]));
    };
    let version = &context.config.version.git_version;
    let foreign = match document {
        Document::V3(..) => Vec::new(),
        Document::V2 => aggregation::openapi_v2(&context).await,
    };
    let hash = hash_of(&defined, &document, version, &foreign);
    let asked = query_value(&query, "hash").unwrap_or_default();
    let v3 = matches!(document, Document::V3(..));
    if v3 && !asked.is_empty() && asked != hash {
        return moved(&format!("{path}?hash={hash}"));
    }
    // Two forms of one document must not share a tag.
    let tag = format!("\"{hash}{}\"", if kind == JSON { "" } else { "-pb" });
    let mut answer = if response::is_known(&headers, &tag) {
        response::with_type(StatusCode::NOT_MODIFIED, kind, Vec::new())
    } else {
        let gzip = compress::accepted(&headers);
        let version = version.clone();
        let store = context.store.clone();
        let made = move || {
            let group = match &document {
                Document::V3(group, _) => Some(group.as_str()),
                Document::V2 => None,
            };
            let documents = definitions::documents(&store, &defined, group);
            let openapi = OpenApi::new(defined.all(), &version).with(documents);
            let openapi = openapi.with_foreign(&foreign);
            make(&openapi, &document, kind, gzip)
        };
        let made = tokio::task::spawn_blocking(made).await;
        match made {
            Ok(Ok(Some(text))) => written(text, kind, gzip),
            Ok(Ok(None)) => return response::not_found(),
            _ => return response::status(&Status::internal_error("writing the OpenAPI document")),
        }
    };
    let headers = answer.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if v3 && !asked.is_empty() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
    }
    answer
}

fn written(text: Vec<u8>, kind: &'static str, gzip: bool) -> Response {
    let mut answer = response::with_type(StatusCode::OK, kind, text);
    if gzip {
        let value = HeaderValue::from_static("gzip");
        answer.headers_mut().insert(header::CONTENT_ENCODING, value);
    }
    answer
}

fn moved(to: &str) -> Response {
    let mut answer = response::text(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(header::LOCATION, to);
    }
    answer
}

/// What the form is called that the client likes best; JSON for who takes anything.
fn form(headers: &HeaderMap, forms: &Forms) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    accept::clauses(accept).into_iter().find_map(|clause| {
        let kind = clause.split(';').next().unwrap_or_default().trim();
        let kind = if matches!(kind, "*/*" | "application/*" | "") { JSON } else { kind };
        forms.iter().find(|(name, _)| *name == kind).map(|(_, form)| *form)
    })
}

fn hash_of(defined: &Defined, document: &Document, version: &str, foreign: &[Foreign]) -> String {
    let openapi = OpenApi::new(defined.all(), version).with_foreign(foreign);
    match document {
        Document::V2 => openapi.v2_hash(),
        Document::V3(group, version) => openapi.v3_hash(group, version),
    }
}

/// The document's text, `None` where nothing is served under its group and version.
fn make(
    openapi: &OpenApi<'_>,
    document: &Document,
    kind: &str,
    gzip: bool,
) -> io::Result<Option<Vec<u8>>> {
    if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let there = write(openapi, document, kind, &mut encoder)?;
        Ok(there.then_some(encoder.finish()?))
    } else {
        let mut text = Vec::new();
        Ok(write(openapi, document, kind, &mut text)?.then_some(text))
    }
}

fn write(
    openapi: &OpenApi<'_>,
    document: &Document,
    kind: &str,
    out: &mut dyn Write,
) -> io::Result<bool> {
    match document {
        Document::V2 if kind == JSON => openapi.v2_json(out).map(|()| true),
        Document::V2 => openapi.v2_protobuf(out).map(|()| true),
        Document::V3(group, version) if kind == JSON => openapi.v3(group, version, out),
        Document::V3(group, version) => openapi.v3_protobuf(group, version, out),
    }
}
