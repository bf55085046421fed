//! watch: changes as they happen, one JSON object a line, or one protobuf frame each.
//!
//! Lines of plain JSON are the stored bytes with a few around them, put together where they are
//! sent: kept once more for all watchers they would double what the window of events holds. A
//! protobuf frame takes work and is shared. What is ready is sent in one piece.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::protobuf;
use api::status::Status;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use store::{Compacted, Entry, Event, EventKind, Page, Revision, Watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::{Call, Content, Reply, Target};
use super::negotiate::{Format, Negotiated, Shape};
use super::options::ListOptions;
use super::read::{Selection, is_cached, unread_version};
use super::{Outcome, Registry, conversion, negotiate};
use crate::request::{BoxError, Response};
use crate::server::Context;

/// Most bytes sent in one piece.
const PIECE_MAX_BYTES: usize = 256 << 10;
/// More than what is around an object in its line.
const LINE_AROUND_BYTES: usize = 48;
/// How often a quiet watch tells how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// So long before its end a watch tells how far it came.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// A watch without a timeout of its own lasts this long, and up to twice as long, so that
/// the watches of one moment do not all come back in one moment.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
/// The longest that a watch lasts, whatever it asks for.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24 * 365);
/// Marks the bookmark that ends the initial state.
const INITIAL_END: &str = "k8s.io/initial-events-end";

impl Registry {
    /// Opens a watch.
    pub(super) async fn watch(&self, call: &Call) -> Outcome<Reply> {
        let options = ListOptions::parse(&call.query, true)?;
        let selection = Selection::parse(&call.target, &options)?;
        let wanted = self.reached(&options.resource_version, unread_version).await?;
        let initial = match options.send_initial_events {
            Some(initial) => initial,
            None => wanted == 0,
        };
        let mut ready = VecDeque::new();
        let lens = Lens {
            target: call.target.clone(),
            accept: call.accept,
            selection,
            headers_sent: AtomicBool::new(false),
        };
        let after = if initial {
            let page = self.store().list(lens.selection.range(&lens.target), Page::default());
            let mut list = page.map_err(|error| Status::internal_error(&error.to_string()))?;
            if options.send_initial_events.is_none() {
                // A client may go on from the version of any of these, and must find what follows.
                list.entries.sort_by_key(|entry| entry.revision);
            }
            conversion::translate_entries(&self.context, &lens.target, &mut list.entries).await?;
            for entry in &list.entries {
                if lens.selection.matches(&lens.target, entry) {
                    ready.push_back(lens.line("ADDED", entry)?);
                }
            }
            if options.send_initial_events == Some(true) && options.bookmarks {
                ready.push_back(Line::Whole(lens.bookmark(list.revision, true)?));
            }
            list.revision
        } else if wanted == 0 {
            self.store().revision()
        } else {
            wanted
        };
        let range = lens.selection.range(&lens.target);
        // As upstream: once the request itself is in order, what goes wrong is an event.
        let (watch, done) = match self.store().watch(range, after) {
            Ok(watch) => (watch, false),
            Err(compacted) => {
                ready.extend(lens.failure(&lens.too_old(compacted)).map(Line::Whole));
                let now = self.store().revision();
                (self.store().watch(range, now).map_err(|old| lens.too_old(old))?, true)
            }
        };
        let now = Instant::now();
        let jitter = || DEFAULT_TIMEOUT.mul_f64(1.0 + fastrand::f64());
        // What is asked for can be longer than the clock goes.
        let asked = options.timeout.unwrap_or_else(jitter);
        let end = now + asked.min(LONGEST_TIMEOUT);
        let bookmark = options
            .bookmarks
            .then(|| (now + BOOKMARK_INTERVAL).min(end - LAST_BOOKMARK.min(end - now)));
        let translator =
            conversion::translator(&call.target.resource).map(|_| Arc::clone(&self.context));
        let stopping = self.stopping();
        let feed = Feed { lens, watch, ready, end, bookmark, stopping, done, translator };
        Ok(Reply::ok(Content::Ready(feed.into_response(call.accept))))
    }
}

/// How one watcher sees the collection.
struct Lens {
    target: Target,
    accept: Negotiated,
    selection: Selection,
    headers_sent: AtomicBool,
}

impl Lens {
    /// Whether the bytes that all watchers share will do.
    fn is_plain(&self) -> bool {
        self.accept.is_plain() && self.target.is_storage_version()
    }

    /// Why a watch cannot go on: in the words of upstream's cache, or of what it has beneath it.
    fn too_old(&self, Compacted { asked, oldest }: Compacted) -> Status {
        if is_cached(&self.target) {
            return Status::expired(format!("too old resource version: {asked} ({oldest})"));
        }
        Status::expired("The resourceVersion for the provided watch is too old.")
    }

    /// The line that tells why a watch ends.
    fn failure(&self, status: &Status) -> Option<Bytes> {
        self.write("ERROR", serde_json::to_value(status).unwrap_or_default()).ok()
    }

    /// One line about an object.
    fn line(&self, kind: &'static str, entry: &Entry) -> Outcome<Line> {
        if self.is_plain() {
            return Ok(Line::Plain { kind, value: entry.value.clone() });
        }
        self.made(kind, entry).map(Line::Whole)
    }

    /// One that takes more than copying.
    fn made(&self, kind: &'static str, entry: &Entry) -> Outcome<Bytes> {
        if let Some(document) = negotiate::message(&self.target, &self.accept, &entry.value) {
            return Ok(protobuf::event(kind, &document?).into());
        }
        let mut object = negotiate::presented(&self.target, self.accept.shape, &entry.value)?;
        self.drop_headers(&mut object);
        self.write(kind, object)
    }

    /// Of the tables of one watch only the first carries the columns' definitions.
    fn drop_headers(&self, object: &mut Value) {
        if matches!(self.accept.shape, Shape::Table(_))
            && self.headers_sent.swap(true, Ordering::Relaxed)
        {
            object["columnDefinitions"] = json!([]);
        }
    }

    /// Lines are JSON where YAML was agreed on, which has no streaming form.
    fn write(&self, kind: &'static str, object: Value) -> Outcome<Bytes> {
        if self.accept.format == Format::Protobuf {
            return Ok(protobuf::event(kind, &self.accept.write(&object)?).into());
        }
        let dense = Negotiated { format: Format::Json, pretty: false, ..self.accept };
        let text = dense.write(&object)?;
        let value = Bytes::copy_from_slice(text.trim_ascii_end());
        Ok(Line::Plain { kind, value }.into_bytes())
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Outcome<Bytes> {
        let mut metadata =
            json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_END: "true"});
        }
        let object = json!({
            "kind": self.target.resource.kind, "apiVersion": self.target.api_version(), "metadata": metadata,
        });
        let mut object = negotiate::shaped(self.accept.shape, object);
        self.drop_headers(&mut object);
        self.write("BOOKMARK", object)
    }

    /// What this watcher is told of a change, if anything: an object that moves into the
    /// selection is added for it, one that moves out is deleted.
    fn translate(&self, event: &Event) -> Outcome<Option<Line>> {
        let kind = match event.kind {
            EventKind::Created => "ADDED",
            EventKind::Updated => "MODIFIED",
            EventKind::Deleted => "DELETED",
        };
        if self.selection.is_everything() {
            return self.shared(kind, event).map(Some);
        }
        let here = |entry: &Entry| self.selection.matches(&self.target, entry);
        let before = event.previous.as_deref().is_some_and(here);
        let now = event.kind != EventKind::Deleted && here(&event.entry);
        match (before, now, event.kind) {
            (false, false, _) => Ok(None),
            (true, true, _)
            | (true, false, EventKind::Deleted)
            | (false, true, EventKind::Created) => self.shared(kind, event).map(Some),
            (false, true, _) => self.line("ADDED", &event.entry).map(Some),
            // The state that matched, at the revision of the change that moved it out.
            (true, false, _) => match &event.previous {
                Some(previous) => self.left(previous, event.revision).map(Some),
                None => Ok(None),
            },
        }
    }

    fn shared(&self, kind: &'static str, event: &Event) -> Outcome<Line> {
        let storage = self.target.is_storage_version() && self.accept.shape == Shape::Object;
        if self.accept.format != Format::Protobuf || !storage {
            return self.line(kind, &event.entry);
        }
        if let Some(frame) = event.encoded.get() {
            return Ok(Line::Whole(frame.clone()));
        }
        let frame = self.made(kind, &event.entry)?;
        Ok(Line::Whole(event.encoded.get_or_init(|| frame).clone()))
    }

    fn left(&self, previous: &Entry, revision: Revision) -> Outcome<Line> {
        let value = store::Codec::stamp(&super::codec::JsonCodec, &previous.value, revision);
        self.line("DELETED", &Entry { value, ..previous.clone() })
    }
}

/// What is sent of a change.
enum Line {
    /// As it is.
    Whole(Bytes),
    /// An object whose bytes need no change.
    Plain { kind: &'static str, value: Bytes },
}

impl Line {
    /// At least as long as the line.
    fn room(&self) -> usize {
        match self {
            Line::Whole(line) => line.len(),
            Line::Plain { value, .. } => value.len() + LINE_AROUND_BYTES,
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Line::Whole(line) => out.extend_from_slice(line),
            Line::Plain { kind, value } => {
                for part in [b"{\"type\":\"", kind.as_bytes(), b"\",\"object\":", value, b"}\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
    }

    fn into_bytes(self) -> Bytes {
        if let Line::Whole(line) = self {
            return line;
        }
        let mut out = BytesMut::with_capacity(self.room());
        self.write(&mut out);
        out.freeze()
    }
}

/// A running watch.
struct Feed {
    lens: Lens,
    watch: Watch,
    /// Lines that wait to be sent.
    ready: VecDeque<Line>,
    end: Instant,
    /// When the next bookmark is due, where bookmarks are wanted.
    bookmark: Option<Instant>,
    stopping: CancellationToken,
    /// Nothing follows what is ready.
    done: bool,
    /// Where a webhook translates the kind, whoever asks it.
    translator: Option<Arc<Context>>,
}

impl Feed {
    fn into_response(self, accept: Negotiated) -> Response {
        let frames = stream::unfold(self, |mut feed| async move {
            let piece = feed.next().await?;
            Some((Ok::<_, BoxError>(Frame::data(piece)), feed))
        });
        let mut answer = http::Response::new(StreamBody::new(frames).boxed_unsync());
        let kind = HeaderValue::from_static(accept.stream_type());
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }

    /// The next piece of the body; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.piece() {
                return Some(piece);
            }
            if self.done {
                return None;
            }
            self.wait().await;
        }
    }

    /// All that is ready, within a piece's limit.
    fn piece(&mut self) -> Option<Bytes> {
        let first = self.ready.pop_front().or_else(|| self.pull())?;
        let Some(mut line) = self.ready.pop_front().or_else(|| self.pull()) else {
            return Some(first.into_bytes());
        };
        let mut piece =
            BytesMut::with_capacity(PIECE_MAX_BYTES.min((first.room() + line.room()) * 8));
        first.write(&mut piece);
        loop {
            line.write(&mut piece);
            if piece.len() >= PIECE_MAX_BYTES {
                break;
            }
            match self.ready.pop_front().or_else(|| self.pull()) {
                Some(next) => line = next,
                None => break,
            }
        }
        Some(piece.freeze())
    }

    /// A line from changes that have happened already.
    fn pull(&mut self) -> Option<Line> {
        while !self.done && self.translator.is_none() {
            let event = self.watch.try_next()?;
            if let Some(line) = self.take(Some(event)) {
                return Some(line);
            }
        }
        None
    }

    /// Turns what the store said into a line; notes the watch's end.
    fn take(&mut self, said: Option<Result<Arc<Event>, Compacted>>) -> Option<Line> {
        let failure = match said {
            Some(Ok(event)) => match self.lens.translate(&event) {
                Ok(line) => return line,
                Err(status) => status,
            },
            Some(Err(compacted)) => self.lens.too_old(compacted),
            None => {
                self.done = true;
                return None;
            }
        };
        self.done = true;
        self.lens.failure(&failure).map(Line::Whole)
    }

    /// The same, where it may have to be translated first.
    async fn understand(&mut self, said: Option<Result<Arc<Event>, Compacted>>) -> Option<Line> {
        let (Some(context), Some(Ok(event))) = (&self.translator, &said) else {
            return self.take(said);
        };
        let target = &self.lens.target;
        match conversion::translate_event(context, target, Arc::clone(event)).await {
            Ok(event) => self.take(Some(Ok(event))),
            Err(status) => {
                self.done = true;
                self.lens.failure(&status).map(Line::Whole)
            }
        }
    }

    /// Waits for a change, a bookmark's time, or the end.
    async fn wait(&mut self) {
        let due = self.bookmark.unwrap_or(self.end).min(self.end);
        tokio::select! {
            biased;
            said = self.watch.next() => {
                let line = self.understand(said).await;
                self.ready.extend(line);
            }
            () = self.stopping.cancelled() => self.done = true,
            () = tokio::time::sleep_until(due) => self.on_time(),
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if now >= self.end {
            self.done = true;
        }
        if self.bookmark.is_some() {
            // Everything up to here was sent, or is of no concern to this watcher.
            let revision = self.watch.progress();
            self.ready.extend(self.lens.bookmark(revision, false).ok().map(Line::Whole));
            let last = self.end.checked_sub(LAST_BOOKMARK).unwrap_or(self.end);
            let next = if now >= last { self.end } else { (now + BOOKMARK_INTERVAL).min(last) };
            self.bookmark =
                (!self.done && next > now).then_some(next).filter(|next| *next < self.end);
        }
    }
}
