//! get and list.

use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;
use std::time::Duration;

use api::protobuf::{self, Form};
use api::selector::{FieldSelector, LabelSelector};
use api::status::{Status, go_quote};
use api::table::Include;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use store::{Entry, List, ListError, Page, Range, Revision};

use super::call::{Call, Content, Reply, Target};
use super::continuation::Continue;
use super::negotiate::{Format, Negotiated, Shape};
use super::options::{ListOptions, VersionMatch};
use super::{Outcome, Registry, codec, component_status, conversion, negotiate};
use crate::request::{BoxError, Response, query_value};
use crate::response;

/// A list up to this size is sent in one piece, with its length.
const WHOLE_MAX_BYTES: usize = 64 << 10;
/// The size of the pieces of a longer one.
const PIECE_BYTES: usize = 128 << 10;
/// How many entries are looked through at a time for a page under a selector.
const SCAN_ENTRIES: usize = 500;
/// What stands between the items of a list in JSON, and behind them.
const JSON_BETWEEN: &[u8] = b",";
const JSON_END: &[u8] = b"]}\n";
/// Whose tables are not in the order of names.
const FLOW_SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
/// What upstream reads from its datastore alone.
const EVENTS: &str = "events";
/// How long a read waits for a revision that is yet to come.
const AHEAD_WAIT: Duration = Duration::from_secs(3);

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
const EXPIRED_VERSION: &str = "The resourceVersion for the provided list is too old.";

/// Which objects of a collection are meant.
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Reads the selectors of a request.
    pub fn parse(target: &Target, options: &ListOptions) -> Outcome<Self> {
        // Clients say themselves what they were looking for.
        let refuse = |error: api::selector::SelectorError| Status::bad_request(error.to_string());
        let labels = LabelSelector::parse(&options.labels).map_err(refuse)?;
        let mut fields = FieldSelector::parse(&options.fields, &target.resource).map_err(refuse)?;
        // The old form of a watch (`/api/v1/watch/pods/NAME`) has the name in its path.
        if !target.name.is_empty() && fields.exact("metadata.name").is_none() {
            let text = format!("{},metadata.name={}", options.fields, target.name);
            fields = FieldSelector::parse(&text, &target.resource).map_err(refuse)?;
        }
        Ok(Selection { labels, fields })
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether this object is meant.
    pub fn matches(&self, target: &Target, entry: &Entry) -> bool {
        if !self.fields.matches_key(&entry.key.namespace, &entry.key.name) {
            return false;
        }
        if !self.labels.is_empty() && !self.labels.matches(|name| entry.labels.get(name)) {
            return false;
        }
        if self.fields.needs_only_key() {
            return true;
        }
        // Selectors of built-in kinds know the fields of the stored form, whatever is shown.
        let object = negotiate::parse(&entry.value).and_then(|stored| {
            if target.resource.custom.is_some() { target.present(stored) } else { Ok(stored) }
        });
        object.is_ok_and(|object| self.fields.matches(&object))
    }

    /// The one namespace that is meant.
    fn namespace<'a>(&'a self, target: &'a Target) -> Option<&'a str> {
        match target.namespace.as_str() {
            "" => self.fields.exact("metadata.namespace").filter(|_| target.resource.namespaced),
            namespace => Some(namespace),
        }
    }

    /// What part of the store is concerned.
    pub fn range<'a>(&'a self, target: &'a Target) -> Range<'a> {
        Range { collection: target.resource.collection(), namespace: self.namespace(target) }
    }
}

/// A page as it is shown.
pub struct Shown {
    revision: Revision,
    /// What is on it.
    pub entries: Vec<Arc<Entry>>,
    next: Option<Continue>,
    remaining: Option<usize>,
}

impl Registry {
    /// Reads one object.
    pub(super) async fn get(&self, call: &Call) -> Outcome<Reply> {
        let target = &call.target;
        let version = query_value(&call.query, "resourceVersion").unwrap_or_default();
        let refusal = if is_cached(target) { unread_version } else { bad_version };
        self.reached(&version, refusal).await?;
        let entry = match component_status::all(&self.context, target) {
            Some(all) => all.into_iter().find(|entry| *entry.key.name == *target.name),
            None => self.store().get(&target.key()),
        };
        let entry = entry.ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
        Ok(Reply::ok(Content::Stored(entry.value.clone())))
    }

    /// Reads a collection.
    pub(super) async fn list(&self, call: &Call) -> Outcome<Reply> {
        let mut options = ListOptions::parse(&call.query, false)?;
        if options.resource_version == "0" && !options.is_continued() && is_cached(&call.target) {
            // Upstream's cache has no pages.
            options.limit = None;
        }
        let selection = Selection::parse(&call.target, &options)?;
        let mut shown = match component_status::all(&self.context, &call.target) {
            Some(all) => self.whole(&call.target, &selection, all),
            None => self.page(&call.target, &options, &selection).await?,
        };
        conversion::translate_entries(&self.context, &call.target, &mut shown.entries).await?;
        Ok(Reply::ok(Content::Ready(answer(&call.target, call.accept, shown)?)))
    }

    /// What is not stored is shown in one page.
    fn whole(&self, target: &Target, selection: &Selection, mut all: Vec<Arc<Entry>>) -> Shown {
        all.retain(|entry| selection.matches(target, entry));
        let revision = self.store().revision();
        Shown { revision, entries: all, next: None, remaining: None }
    }

    pub(super) async fn page(
        &self,
        target: &Target,
        options: &ListOptions,
        selection: &Selection,
    ) -> Outcome<Shown> {
        let (mut after, mut at) = (None, None);
        let paged = options.is_continued();
        if paged {
            let token = Continue::decode(&options.continue_token)
                .map_err(|why| Status::bad_request(format!("invalid continue token: {why}")))?;
            if !matches!(options.resource_version.as_str(), "" | "0") {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            at = token.revision;
            match token.revision {
                // The first page may have come from a server that was ahead of this one.
                Some(revision) => drop(self.reached(&revision.to_string(), bad_version).await?),
                None => self.context.fresh().await?,
            }
            after = Some((token.after.0.into(), token.after.1.into()));
        } else {
            let wanted = self.reached(&options.resource_version, bad_version).await?;
            let exact = match options.version_match {
                Some(how) => how == VersionMatch::Exact,
                // Upstream's old rule: a limit makes a plain resourceVersion exact.
                None => options.limit.is_some() && wanted > 0,
            };
            at = if exact { Some(wanted) } else { at };
        }
        self.collect(target, options, selection, after, at).map_err(|error| match error {
            ListError::Expired { .. } if paged => expired_token(&options.continue_token),
            ListError::Expired { .. } => Status::expired(EXPIRED_VERSION),
            ListError::Ahead { asked, newest } => too_new(asked, newest),
        })
    }

    /// Goes through the store until the page is full or the collection is at its end.
    fn collect(
        &self,
        target: &Target,
        options: &ListOptions,
        selection: &Selection,
        mut after: Option<store::Slot>,
        mut at: Option<Revision>,
    ) -> Result<Shown, ListError> {
        let limit = options.limit.unwrap_or(usize::MAX);
        let everything = selection.is_everything();
        let scan = match (options.limit, everything) {
            (None, _) => 0,
            (Some(limit), true) => limit,
            (Some(_), false) => SCAN_ENTRIES,
        };
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        loop {
            let page = Page { limit: scan, after: after.take(), at };
            let List { revision, entries: found, remaining, next } =
                self.store().list(selection.range(target), page)?;
            let count = found.len();
            let mut used = 0;
            if everything {
                used = count;
                entries.extend(found.iter().cloned());
            } else {
                for entry in found.iter() {
                    if entries.len() == limit {
                        break;
                    }
                    used += 1;
                    if selection.matches(target, entry) {
                        entries.push(entry.clone());
                    }
                }
            }
            let rest = remaining + (count - used);
            let full = entries.len() >= limit && rest > 0;
            if full || next.is_none() {
                let last = used.checked_sub(1).and_then(|last| found.get(last)).filter(|_| full);
                let next = last.map(|entry| Continue {
                    revision: Some(revision),
                    after: (entry.key.namespace.to_string(), entry.key.name.to_string()),
                });
                let remaining = (next.is_some() && everything).then_some(rest);
                return Ok(Shown { revision, entries, next, remaining });
            }
            // All further pages show the state of the first.
            (after, at) = (next, Some(revision));
        }
    }

    /// The revision that a `resourceVersion` parameter names (0 for any), once it is there.
    /// Without one, everything that anybody was told is done is there. What is no version is
    /// refused as the verb refuses it.
    pub(super) async fn reached(
        &self,
        text: &str,
        refusal: fn(String) -> Status,
    ) -> Outcome<Revision> {
        let wanted: Revision = match text {
            "" => {
                self.context.fresh().await?;
                0
            }
            text => text.parse().map_err(|error| refusal(not_a_version(text, &error)))?,
        };
        let reached = tokio::time::timeout(AHEAD_WAIT, self.store().reached(wanted)).await;
        reached.map_err(|_| too_new(wanted, self.store().revision()))?;
        Ok(wanted)
    }
}

/// Why a text is no version, as Go says it.
fn not_a_version(text: &str, error: &ParseIntError) -> String {
    let quoted = go_quote(text);
    let why = match error.kind() {
        IntErrorKind::PosOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("resourceVersion: Invalid value: {quoted}: strconv.ParseUint: parsing {quoted}: {why}")
}

/// A list's refusal of what is no version.
fn bad_version(why: String) -> Status {
    Status::bad_request(format!("invalid resource version: {why}"))
}

/// That of a watch, and of a get from upstream's cache: it tells what reading the version came to.
pub(super) fn unread_version(why: String) -> Status {
    Status::new(500, "", why)
}

/// Whether upstream reads these objects from memory. It keeps no events there.
pub(super) fn is_cached(target: &Target) -> bool {
    target.resource.collection() != EVENTS
}

fn too_new(wanted: Revision, newest: Revision) -> Status {
    let message = format!("Too large resource version: {wanted}, current: {newest}");
    let mut status = Status::new(504, "Timeout", format!("Timeout: {message}")).with_retry_after(1);
    status.details.get_or_insert_default().causes.push(api::status::Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    });
    status
}

/// 410 with a token that goes on without promising one consistent state.
fn expired_token(token: &str) -> Status {
    let mut status = Status::expired(EXPIRED_TOKEN);
    status.continue_token =
        Continue::decode(token).ok().map(|token| Continue { revision: None, ..token }.encode());
    status
}

/// `metadata` of the list that a page is.
pub fn metadata(shown: &Shown) -> Value {
    let mut metadata = json!({"resourceVersion": shown.revision.to_string()});
    if let Some(next) = &shown.next {
        metadata["continue"] = next.encode().into();
    }
    if let Some(remaining) = shown.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// A list as the client wants it. Stored bytes are spliced in unread where nothing has to change.
fn answer(target: &Target, accept: Negotiated, shown: Shown) -> Outcome<Response> {
    let api_version = target.api_version();
    let (kind, api_version) = match accept.shape {
        Shape::Partial if accept.format == Format::Protobuf => {
            ("PartialObjectMetadataList", accept.meta_version())
        }
        Shape::Partial => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        Shape::Object | Shape::Table(_) => {
            (target.resource.list_kind.as_ref(), api_version.as_str())
        }
    };
    let metadata = metadata(&shown);
    if accept.format == Format::Protobuf {
        return messages(target, accept, (api_version, kind), &metadata, &shown.entries);
    }
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        json!(kind),
        json!(api_version)
    );
    if let Shape::Table(include) = accept.shape {
        return table(target, accept, include, &head, &shown.entries);
    }
    if accept.is_plain() && target.is_storage_version() {
        let values = shown.entries.iter().map(|entry| codec::untyped(&entry.value));
        return Ok(spliced(accept, head.into(), JSON_BETWEEN, values.collect(), JSON_END));
    }
    let mut items = Vec::with_capacity(shown.entries.len());
    for entry in &shown.entries {
        items.push(item(target, accept.shape, &entry.value)?);
    }
    if accept.format == Format::Json && !accept.pretty && !accept.beta {
        let items = items.iter().map(|item| (None, item.to_string().into()));
        return Ok(spliced(accept, head.into(), JSON_BETWEEN, items.collect(), JSON_END));
    }
    let mut list: Value = negotiate::parse(format!("{head}]}}").as_bytes())?;
    list["items"] = items.into();
    Ok(response::with_type(StatusCode::OK, accept.content_type(), accept.write(&list)?))
}

/// A stored object as an item of a list. Items of built-in kinds leave to the list what they are.
pub(super) fn item(target: &Target, shape: Shape, stored: &[u8]) -> Outcome<Value> {
    let mut item = negotiate::presented(target, shape, stored)?;
    if shape == Shape::Object && target.resource.custom.is_none() {
        let fields = item.as_object_mut();
        fields.into_iter().for_each(|fields| {
            fields.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind"));
        });
    }
    Ok(item)
}

/// The list in protobuf. Stored bytes are turned into messages without parsing them into trees.
fn messages(
    target: &Target,
    accept: Negotiated,
    (api_version, kind): (&str, &str),
    metadata: &Value,
    entries: &[Arc<Entry>],
) -> Outcome<Response> {
    let partial = accept.shape == Shape::Partial;
    let form = if partial { Form::partial() } else { negotiate::form(target) };
    let form = form.ok_or_else(|| Status::internal_error("the kind has no messages"))?;
    let mut items: Vec<(Option<u8>, Bytes)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let item = if partial || target.is_storage_version() {
            form.item(&entry.value)
        } else {
            let object = negotiate::presented(target, accept.shape, &entry.value)?;
            form.item(object.to_string().as_bytes())
        };
        items.push((None, item.map_err(negotiate::unmade)?.into()));
    }
    let length = items.iter().map(|(_, item)| item.len()).sum();
    let head = protobuf::list_head(api_version, kind, metadata, length);
    let head = head.map_err(negotiate::unmade)?;
    Ok(spliced(accept, head, b"", items, &protobuf::list_tail()))
}

/// The list as printed columns.
fn table(
    target: &Target,
    accept: Negotiated,
    include: Include,
    head: &str,
    entries: &[Arc<Entry>],
) -> Outcome<Response> {
    let list: Value = negotiate::parse(format!("{head}]}}").as_bytes())?;
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        rows.push(negotiate::row(target, include, &negotiate::parse(&entry.value)?)?);
    }
    if target.resource.collection() == FLOW_SCHEMAS {
        rows.sort_by_cached_key(by_precedence);
    }
    let table = negotiate::printer(target).assemble(rows, list["metadata"].clone(), true);
    Ok(response::with_type(StatusCode::OK, accept.content_type(), accept.write(&table)?))
}

/// Rules about requests are shown in the order in which they are asked.
fn by_precedence(row: &Value) -> (i64, String) {
    const PRECEDENCE: usize = 2;
    let cells = &row["cells"];
    (cells[PRECEDENCE].as_i64().unwrap_or(0), cells[0].as_str().unwrap_or_default().to_owned())
}

/// The list's body, made piece by piece so that a long list is never held twice. Where an item is
/// the rest of something that is shared, the byte that it begins with comes before it.
fn spliced(
    accept: Negotiated,
    head: Vec<u8>,
    between: &'static [u8],
    values: Vec<(Option<u8>, Bytes)>,
    end: &[u8],
) -> Response {
    let inner: usize = values.iter().map(|(_, value)| value.len() + between.len() + 1).sum();
    let total = head.len() + inner + end.len();
    let mut values = values.into_iter();
    let end = end.to_vec();
    let mut open = Some(head);
    let mut first = true;
    let mut pieces = std::iter::from_fn(move || {
        let start = open.take()?;
        let mut piece = Vec::with_capacity(total.min(PIECE_BYTES + (16 << 10)));
        piece.extend_from_slice(&start);
        for (begin, value) in values.by_ref() {
            if !std::mem::take(&mut first) {
                piece.extend_from_slice(between);
            }
            piece.extend(begin);
            piece.extend_from_slice(&value);
            if piece.len() >= PIECE_BYTES {
                open = Some(Vec::new());
                return Some(Bytes::from(piece));
            }
        }
        piece.extend_from_slice(&end);
        Some(Bytes::from(piece))
    });
    if total <= WHOLE_MAX_BYTES {
        let whole = pieces.next().unwrap_or_default();
        return response::with_type(StatusCode::OK, accept.content_type(), whole);
    }
    let frames = futures::stream::iter(pieces.map(|piece| Ok::<_, BoxError>(Frame::data(piece))));
    let mut answer = http::Response::new(StreamBody::new(frames).boxed_unsync());
    let kind = HeaderValue::from_static(accept.content_type());
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
