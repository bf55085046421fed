//! The form of a snapshot: frames, each closed by a hash over everything up to there.
//!
//! ```text
//! coracle-snapshot                       the first line
//! A  what it is a snapshot of            JSON, see About
//! S  the cluster's keys and tokens       see secrets.rs
//! O  objects, about 1 MiB at a time      zstd
//! ...
//! Z  what must have been read            JSON, see Totals
//! ```
//! A frame is its kind (1 byte), the length of its content (4 bytes, little end first), the content,
//! and SHA-256 over the hash before it and all of these. So a frame that is altered, left out, put
//! elsewhere or missing at the end is found where it happens, and reading needs the memory of one
//! frame. Where it is encrypted, all of this stands inside age's format.
//!
//! A copy of the engine's own files was turned down: it could only be restored into that engine.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::age::AgeError;

/// The form this version writes, and the newest it reads.
pub const FORMAT: u32 = 1;
const FIRST_LINE: &[u8] = b"coracle-snapshot\n";
/// Objects are gathered up to this size before they are compressed.
const FRAME_BYTES: usize = 1 << 20;
/// No frame is larger, compressed or not: one object of the largest size fits beside others.
const MAX_FRAME_BYTES: usize = 4 << 20;
/// Fast on small boards; each level above costs twice the time for a few per cent.
const ZSTD_LEVEL: i32 = 3;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The form it is written in.
    pub format: u32,
    /// When it was taken.
    pub created: Timestamp,
    /// The board that took it.
    pub node: String,
    /// The release that took it.
    pub version: String,
    /// The engine that held the data.
    pub engine: String,
    /// The cluster: the hash of the authority that its servers prove themselves with.
    pub cluster: String,
    /// The revision that all objects are as of.
    pub revision: u64,
    /// Why it was taken.
    pub reason: Reason,
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Somebody asked for it.
    OnDemand,
    /// The schedule did.
    Scheduled,
    /// A new version was about to start for the first time.
    PreUpgrade,
}

/// What a whole snapshot holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many objects.
    pub objects: u64,
    /// The bytes of their values.
    pub bytes: u64,
    /// How many of each collection.
    pub collections: BTreeMap<String, u64>,
}

/// An object as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Such as `apps/deployments`.
    pub collection: String,
    /// Empty for cluster scope.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The revision that created it.
    pub created: u64,
    /// The revision that it is at.
    pub revision: u64,
    /// Its value.
    pub value: Vec<u8>,
}

/// Why a file cannot be read as a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum BadSnapshot {
    /// It is something else.
    #[error("it is no snapshot of Coracle")]
    NotASnapshot,
    /// It was written by a newer release.
    #[error("it has format {found}, this version reads up to {FORMAT}")]
    TooNew {
        /// Its format.
        found: u32,
    },
    /// It ends too early.
    #[error("it is cut: it ends at byte {at}, where {wanted} should go on")]
    Cut {
        /// Where it ends.
        at: u64,
        /// What is missing.
        wanted: &'static str,
    },
    /// It does not match its checksum.
    #[error("it is altered: {what} at byte {at}")]
    Altered {
        /// Where the frame starts.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// It is encrypted and no passphrase was given.
    #[error("it is encrypted")]
    Encrypted,
    /// It cannot be decrypted.
    #[error(transparent)]
    Age(#[from] AgeError),
    /// It cannot be read at all.
    #[error("reading it failed")]
    Read(#[source] io::Error),
}

impl BadSnapshot {
    /// The next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotASnapshot => "`coracle snapshot list` shows what there is",
            Self::TooNew { .. } => "restore it with the release that took it, or a newer one",
            Self::Cut { .. } | Self::Altered { .. } => {
                "fetch the file again, or take another; `coracle snapshot list` shows what there is"
            }
            Self::Encrypted => "name the file that holds the passphrase with --passphrase-file",
            Self::Age(AgeError::WrongPassphrase) => {
                "name the file with the passphrase it was taken with; --passphrase-file"
            }
            Self::Age(AgeError::OtherRecipient) => {
                "decrypt it with `age --decrypt` first; the result can be restored"
            }
            Self::Age(AgeError::TooMuchWork(_)) => {
                "decrypt it with `age --decrypt` on a larger machine; the result can be restored"
            }
            Self::Age(_) => "fetch the file again, or take another snapshot",
            Self::Read(_) => "see whether the disk or the network is well, and try again",
        }
    }
}

impl From<io::Error> for BadSnapshot {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<AgeError>()) {
            Some(age) => BadSnapshot::Age(*age),
            None => BadSnapshot::Read(error),
        }
    }
}

/// Writes a snapshot.
pub struct Writer<W: Write> {
    out: W,
    hash: [u8; 32],
    gathered: Vec<u8>,
    totals: Totals,
}

impl<W: Write> Writer<W> {
    /// Writes the beginning: what it is of, and the cluster's keys and tokens.
    pub fn new(mut out: W, about: &About, secrets: &[u8]) -> io::Result<Self> {
        out.write_all(FIRST_LINE)?;
        let gathered = Vec::with_capacity(FRAME_BYTES + (64 << 10));
        let mut writer = Writer { out, hash: [0; 32], gathered, totals: Totals::default() };
        writer.frame(b'A', &serde_json::to_vec(about)?)?;
        writer.frame(b'S', secrets)?;
        Ok(writer)
    }

    /// Adds an object.
    pub fn object(
        &mut self,
        [collection, namespace, name]: [&str; 3],
        [created, revision]: [u64; 2],
        value: &[u8],
    ) -> io::Result<()> {
        for number in [created, revision] {
            self.gathered.extend_from_slice(&number.to_le_bytes());
        }
        for part in [collection.as_bytes(), namespace.as_bytes(), name.as_bytes(), value] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            self.gathered.extend_from_slice(&length.to_le_bytes());
            self.gathered.extend_from_slice(part);
        }
        self.totals.count(collection, value.len());
        if self.gathered.len() >= FRAME_BYTES { self.flush_objects() } else { Ok(()) }
    }

    fn flush_objects(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let compressed = zstd::bulk::compress(&self.gathered, ZSTD_LEVEL)?;
        self.gathered.clear();
        self.frame(b'O', &compressed)
    }

    /// Writes the end, and gives back what was written to and the totals.
    pub fn finish(mut self) -> io::Result<(W, Totals)> {
        self.flush_objects()?;
        let totals = serde_json::to_vec(&self.totals)?;
        self.frame(b'Z', &totals)?;
        Ok((self.out, self.totals))
    }

    fn frame(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let head = head_of(kind, length);
        self.hash = chain(&self.hash, &head, content);
        self.out.write_all(&head)?;
        self.out.write_all(content)?;
        self.out.write_all(&self.hash)
    }
}

impl Totals {
    fn count(&mut self, collection: &str, value_bytes: usize) {
        self.objects += 1;
        self.bytes += value_bytes as u64;
        match self.collections.get_mut(collection) {
            Some(count) => *count += 1,
            None => drop(self.collections.insert(collection.to_owned(), 1)),
        }
    }
}

fn head_of(kind: u8, length: u32) -> [u8; 5] {
    let [a, b, c, d] = length.to_le_bytes();
    [kind, a, b, c, d]
}

fn chain(before: &[u8; 32], head: &[u8; 5], content: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(head);
    hash.update(content);
    hash.finalize().into()
}

/// Reads a snapshot, checking each part before it is given out.
pub struct Reader<R: Read> {
    input: R,
    /// Where the next frame starts.
    at: u64,
    hash: [u8; 32],
    about: About,
    secrets: Vec<u8>,
    objects: Vec<u8>,
    given: usize,
    /// Where the frame of the present objects starts.
    objects_at: u64,
    totals: Totals,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    pub fn new(mut input: R) -> Result<Self, BadSnapshot> {
        let mut first = Vec::new();
        input.by_ref().take(FIRST_LINE.len() as u64).read_to_end(&mut first)?;
        match first.as_slice() {
            FIRST_LINE => {}
            // Nothing at all is what a full disk or a power cut leaves.
            part if FIRST_LINE.starts_with(part) => {
                return Err(BadSnapshot::Cut { at: part.len() as u64, wanted: "the first line" });
            }
            _ => return Err(BadSnapshot::NotASnapshot),
        }
        let mut frames = Frames { input, at: first.len() as u64, hash: [0; 32] };
        let about = frames.expect(b'A', "what it is a snapshot of")?;
        let about = parse_about(&about, FIRST_LINE.len() as u64)?;
        let secrets = frames.expect(b'S', "the cluster's keys")?;
        let Frames { input, at, hash } = frames;
        Ok(Reader {
            input,
            at,
            hash,
            about,
            secrets,
            objects: Vec::new(),
            given: 0,
            objects_at: at,
            totals: Totals::default(),
            ended: false,
        })
    }

    /// What it is a snapshot of.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The cluster's keys and tokens, as they were given to the writer.
    pub fn secrets(&self) -> &[u8] {
        &self.secrets
    }

    /// The next object; none after the last, when all of the file has been checked.
    pub fn next_object(&mut self) -> Result<Option<Object>, BadSnapshot> {
        while self.given == self.objects.len() {
            if self.ended {
                return Ok(None);
            }
            self.next_objects()?;
        }
        let mut rest = &self.objects[self.given..];
        let before = rest.len();
        let object = parse_object(&mut rest).ok_or(BadSnapshot::Altered {
            at: self.objects_at,
            what: "objects run into each other",
        })?;
        self.given += before - rest.len();
        self.totals.count(&object.collection, object.value.len());
        Ok(Some(object))
    }

    /// Reads all that is left, for its checksums alone.
    pub fn check(mut self) -> Result<(About, Totals), BadSnapshot> {
        while self.next_object()?.is_some() {}
        Ok((self.about, self.totals))
    }

    fn next_objects(&mut self) -> Result<(), BadSnapshot> {
        let start = self.at;
        let mut frames = Frames { input: &mut self.input, at: self.at, hash: self.hash };
        let (kind, content) = frames.next("objects")?;
        (self.at, self.hash) = (frames.at, frames.hash);
        let altered = |what| BadSnapshot::Altered { at: start, what };
        match kind {
            b'O' => {
                self.objects = zstd::bulk::decompress(&content, MAX_FRAME_BYTES)
                    .map_err(|_| altered("objects cannot be unpacked"))?;
                (self.given, self.objects_at) = (0, start);
                Ok(())
            }
            b'Z' => {
                let totals: Totals = serde_json::from_slice(&content)
                    .map_err(|_| altered("the totals cannot be read"))?;
                if totals != self.totals {
                    return Err(altered("there are other objects than it says"));
                }
                if self.input.read(&mut [0])? != 0 {
                    let what = "something stands behind the end";
                    return Err(BadSnapshot::Altered { at: self.at, what });
                }
                self.ended = true;
                Ok(())
            }
            _ => Err(altered("a frame of unknown kind")),
        }
    }
}

/// The frames of a file, one after the other.
struct Frames<R> {
    input: R,
    at: u64,
    hash: [u8; 32],
}

impl<R: Read> Frames<R> {
    fn expect(&mut self, kind: u8, wanted: &'static str) -> Result<Vec<u8>, BadSnapshot> {
        let at = self.at;
        match self.next(wanted)? {
            (found, content) if found == kind => Ok(content),
            _ => Err(BadSnapshot::Altered { at, what: "a frame in the wrong place" }),
        }
    }

    fn next(&mut self, wanted: &'static str) -> Result<(u8, Vec<u8>), BadSnapshot> {
        let start = self.at;
        let head: [u8; 5] = self.array(wanted)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(BadSnapshot::Altered { at: start, what: "a frame larger than any can be" });
        }
        let mut content = Vec::with_capacity(length);
        self.input.by_ref().take(length as u64).read_to_end(&mut content)?;
        self.at += content.len() as u64;
        if content.len() < length {
            return Err(BadSnapshot::Cut { at: self.at, wanted });
        }
        let sum: [u8; 32] = self.array(wanted)?;
        self.hash = chain(&self.hash, &head, &content);
        match sum == self.hash {
            true => Ok((head[0], content)),
            false => Err(BadSnapshot::Altered { at: start, what: "the checksum does not match" }),
        }
    }

    fn array<const N: usize>(&mut self, wanted: &'static str) -> Result<[u8; N], BadSnapshot> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => return Err(BadSnapshot::Cut { at: self.at, wanted }),
                Ok(read) => {
                    filled += read;
                    self.at += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }
}

/// The format is looked at before the rest, which a newer one may shape otherwise.
fn parse_about(content: &[u8], at: u64) -> Result<About, BadSnapshot> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let altered = |_| BadSnapshot::Altered { at, what: "its description cannot be read" };
    let Format { format: found } = serde_json::from_slice(content).map_err(altered)?;
    match found > FORMAT {
        true => Err(BadSnapshot::TooNew { found }),
        false => serde_json::from_slice(content).map_err(altered),
    }
}

fn parse_object(rest: &mut &[u8]) -> Option<Object> {
    let created = u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?);
    let revision = u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?);
    let mut part = || {
        let length = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?) as usize;
        rest.split_off(..length).map(<[u8]>::to_vec)
    };
    let mut text = || String::from_utf8(part()?).ok();
    let (collection, namespace, name) = (text()?, text()?, text()?);
    Some(Object { collection, namespace, name, created, revision, value: part()? })
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
