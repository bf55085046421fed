//! Objects in upstream's protobuf form (`application/vnd.kubernetes.protobuf`), which clients
//! written in Go send and ask for where they know the kind.
//!
//! The wire carries field numbers only: the table made by `cargo xtask generate` turns them into
//! JSON names, and the structural schema says how each value is to be read. What an encoder
//! written in Go sends for "not set" (empty texts, zero numbers, zero times) is left out again
//! where its JSON leaves it out. The other way, what a
//! JSON object has is written, straight from its text: a list of stored objects is never parsed
//! into trees.
//! Format: k8s.io/apimachinery/pkg/runtime/serializer/protobuf.

mod decode;
mod discovery;
mod encode;
mod wire;

#[cfg(test)]
mod tests;

pub use decode::decode;
pub use discovery::discovery;
pub use encode::{EncodeError, Form, document, encode, event, list_head, list_tail};

use flate2::bufread::GzDecoder;
use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

/// Media type of the form.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every document begins with.
const MAGIC: &[u8] = b"k8s\0";

static DATA: &[u8] = include_bytes!("../data/protobuf.gz");

static NUMBERS: LazyLock<HashMap<Box<str>, Message>> = LazyLock::new(|| {
    let mut text = String::new();
    let read = GzDecoder::new(DATA).read_to_string(&mut text);
    read.expect("the generated file is part of the binary and a test reads all of it");
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let message = |rest: &str| Message::new(entries(&mut rest.chars().peekable()));
    lines.map(|(name, rest)| (name.into(), message(rest))).collect()
});

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The document does not begin as it must.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    /// A field's length or number is not what protobuf allows.
    #[error("the protobuf message is cut short or broken")]
    Broken,
    /// Nothing is known of the kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// `kind` of the envelope.
        kind: String,
        /// `apiVersion` of the envelope.
        api_version: String,
    },
}

/// The fields of a definition.
struct Message {
    /// As they are looked up when reading.
    entries: Vec<Entry>,
    /// Ordered by JSON name, as they are looked up when writing: the field's number, behind the
    /// numbers of the flattened messages around it.
    places: Vec<(Box<str>, Box<[u64]>)>,
}

impl Message {
    fn new(entries: Vec<Entry>) -> Self {
        fn collect(entries: &[Entry], around: &[u64], places: &mut Vec<(Box<str>, Box<[u64]>)>) {
            for entry in entries {
                match entry {
                    Entry::Named { number, name, .. } => {
                        places.push((name.clone(), [around, &[*number]].concat().into()));
                    }
                    Entry::Flattened(number, inner) => {
                        collect(inner, &[around, &[*number]].concat(), places);
                    }
                }
            }
        }
        let mut places = Vec::new();
        collect(&entries, &[], &mut places);
        places.sort();
        Message { entries, places }
    }

    /// Where a field stands on the wire.
    fn place(&self, name: &str) -> Option<&[u64]> {
        let found = self.places.binary_search_by(|(own, _)| (**own).cmp(name)).ok()?;
        self.places.get(found).map(|(_, place)| &**place)
    }
}

/// A field of a message.
enum Entry {
    Named {
        number: u64,
        name: Box<str>,
        /// Whether zero, false and the empty text are values here, as upstream holds them by
        /// pointer or never leaves them out.
        shown: bool,
    },
    /// A message whose fields JSON shows in their owner.
    Flattened(u64, Vec<Entry>),
}

/// Reads `name=1* 2(name=3 ...)` up to the end or a closing parenthesis.
fn entries(text: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Vec<Entry> {
    let mut list = Vec::new();
    loop {
        let mut word = String::new();
        while let Some(c) = text.next_if(|c| !matches!(c, ' ' | '(' | ')')) {
            word.push(c);
        }
        let next = text.next();
        if next == Some('(') {
            list.push(Entry::Flattened(word.parse().unwrap_or(0), entries(text)));
            continue;
        }
        if let Some((name, number)) = word.split_once('=') {
            let plain = number.trim_end_matches('*');
            let (shown, number) = (plain != number, plain.parse().unwrap_or(0));
            list.push(Entry::Named { number, name: name.into(), shown });
        }
        if matches!(next, None | Some(')')) {
            return list;
        }
    }
}
