//! The store's folders and its index.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{files, kept};
use serde::{Deserialize, Serialize};

use super::config::{ImageConfig, chain_ids, digest};
use super::reference::Reference;
use super::unpack;
use crate::{Error, FsUsage, ImageId, ImageInfo, Result};

/// Characters of a chain id that name a layer's folder: short, because overlayfs's options are
/// limited to a page, and still 96 bits.
const LAYER_NAME_CHARS: usize = 24;
/// Shorter starts of an id are not looked for: they look like names.
const SHORT_ID_CHARS: usize = 12;
const INDEX_FILE: &str = "index.json";
/// Anybody may know what images are made of.
const BLOB_MODE: u32 = 0o644;
const TEMPORARY: &str = ".new-";

/// The image store. Cheap to clone. Several processes may have one open at a time.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    root: PathBuf,
    index: Mutex<Cached>,
    /// Locked by whoever reads or changes the index, in any process.
    index_lock: File,
    /// Locked shared by every process that has the store open, and alone to clean up.
    users: File,
    /// Layers that a pull or import needs and no image names yet, with how many need them.
    pending: Mutex<HashMap<String, usize>>,
}

/// `index.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Index {
    images: BTreeMap<String, Record>,
    layers: BTreeMap<String, LayerSize>,
}

/// The index as last read, and which file that was.
#[derive(Default)]
struct Cached {
    index: Index,
    file: (u64, u64, i64),
}

/// The index while no other thread or process has it.
struct Held<'a> {
    cached: MutexGuard<'a, Cached>,
    lock: &'a File,
}

impl Deref for Held<'_> {
    type Target = Index;

    fn deref(&self) -> &Index {
        &self.cached.index
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Index {
        &mut self.cached.index
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Cannot fail on a descriptor that holds the lock.
        let _ = self.lock.unlock();
    }
}

/// An image of the index.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    tags: BTreeSet<String>,
    digests: BTreeSet<String>,
    /// Folder names, lowest first.
    layers: Vec<String>,
    size: u64,
    pinned: bool,
    /// Digest of the manifest, if it came with one.
    manifest: String,
}

/// What an unpacked layer takes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct LayerSize {
    bytes: u64,
    inodes: u64,
}

/// An image that can be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// How to run it.
    pub config: ImageConfig,
    /// Layer folders relative to [`Store::layers`], uppermost first.
    pub lower: Vec<String>,
    /// Its references by digest.
    pub digests: Vec<String>,
}

/// A finished image on its way into the index.
pub(super) struct NewImage {
    pub config: Vec<u8>,
    pub manifest: Option<Vec<u8>>,
    /// Compressed bytes of the layers.
    pub size: u64,
    pub reference: Option<Reference>,
    /// Digest the reference stands for.
    pub target: Option<String>,
}

impl Store {
    /// Opens (or makes) the store in a folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["blobs/sha256", "layers", "tmp"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(Error::io(format!("making {}", path.display())))?;
        }
        let open = |name: &str| {
            let path = root.join(name);
            File::create(&path).map_err(Error::io(format!("opening {}", path.display())))
        };
        let inner = Inner {
            root: root.to_owned(),
            index: Mutex::default(),
            index_lock: open("index.lock")?,
            users: open("users.lock")?,
            pending: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        if store.begin_alone() {
            store.drop_incomplete()?;
        }
        store.end_alone()?;
        Ok(store)
    }

    /// Whether no other process has the store open; until [`Self::end_alone`] none can.
    fn begin_alone(&self) -> bool {
        self.inner.users.try_lock().is_ok()
    }

    fn end_alone(&self) -> Result<()> {
        self.inner.users.lock_shared().map_err(Error::io("locking the image store"))
    }

    /// The folder that layer names are relative to.
    pub fn layers(&self) -> PathBuf {
        self.inner.root.join("layers")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.inner.root.join("tmp")
    }

    /// The index as it is on disk now: another process (the command line) may have changed it.
    fn index(&self) -> Result<Held<'_>> {
        let cached = self.inner.index.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = &self.inner.index_lock;
        lock.lock().map_err(Error::io("locking the image index"))?;
        let mut held = Held { cached, lock };
        let file = identity(&self.inner.root);
        // One that is gone may be mended from its copy.
        if file != held.cached.file || file == (0, 0, 0) {
            held.cached.index = read_index(&self.inner.root)?;
            held.cached.file = identity(&self.inner.root);
        }
        Ok(held)
    }

    /// Forgets images with missing layers or a configuration that is not theirs any more, and what
    /// was left by an interrupted pull.
    fn drop_incomplete(&self) -> Result<()> {
        let mut index = self.index()?;
        let layers = self.layers();
        let before = index.images.len();
        index.images.retain(|id, record| {
            let whole = record.layers.iter().all(|l| layers.join(l).is_dir())
                && fs::read(self.blob_path(id)).is_ok_and(|config| digest(&config) == *id);
            if !whole {
                let tags = record.tags.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                tracing::error!(
                    image = %id,
                    "the image {tags} is damaged on disk and was dropped; it has to be pulled or \
                     imported again"
                );
            }
            whole
        });
        if index.images.len() != before {
            self.write_index(&mut index)?;
        }
        drop(index);
        for entry in list_folder(&layers)? {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        for entry in list_folder(&self.temporary())? {
            let _ = fs::remove_file(entry.path());
        }
        Ok(())
    }

    /// Finds an image by id, reference or unambiguous start of an id. Gives the reference if
    /// it was found by that.
    fn find(index: &Index, text: &str) -> Option<(String, Option<Reference>)> {
        if index.images.contains_key(text) {
            return Some((text.to_owned(), None));
        }
        if let Ok(reference) = Reference::parse(text) {
            let by_digest = reference.digest.as_ref().map(|d| format!("{}@{d}", reference.name()));
            let found = index.images.iter().find(|(_, r)| match (&by_digest, reference.tagged()) {
                (Some(digest), _) => r.digests.contains(digest),
                (None, Some(tag)) => r.tags.contains(&tag),
                (None, None) => false,
            });
            if let Some((id, _)) = found {
                return Some((id.clone(), Some(reference)));
            }
        }
        let start = text.strip_prefix("sha256:").unwrap_or(text);
        if start.len() < SHORT_ID_CHARS || !start.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let full = format!("sha256:{start}");
        let mut found = index.images.keys().filter(|id| id.starts_with(&full));
        match (found.next(), found.next()) {
            (Some(id), None) => Some((id.clone(), None)),
            _ => None,
        }
    }

    /// An image to run, by id or reference.
    ///
    /// # Errors
    /// [`Error::NotFound`]; a damaged configuration.
    pub fn image(&self, text: &str) -> Result<Image> {
        let (id, record) = {
            let index = self.index()?;
            let (id, _) = Self::find(&index, text)
                .ok_or_else(|| Error::NotFound { kind: "image", id: text.to_owned() })?;
            let record = index.images[&id].clone();
            (id, record)
        };
        let config = self.config(&id)?;
        let lower = record.layers.iter().rev().cloned().collect();
        Ok(Image { id: ImageId(id), config, lower, digests: record.digests.into_iter().collect() })
    }

    fn config(&self, id: &str) -> Result<ImageConfig> {
        let bytes = fs::read(self.blob_path(id))
            .map_err(Error::io(format!("reading the configuration of image {id}")))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::Image { what: format!("image {id}"), reason: e.to_string() })
    }

    /// What is known of an image; none if it is not here.
    pub fn info(&self, text: &str) -> Result<Option<ImageInfo>> {
        let index = self.index()?;
        let Some((id, _)) = Self::find(&index, text) else { return Ok(None) };
        let record = index.images[&id].clone();
        drop(index);
        self.describe(id, record).map(Some)
    }

    /// All images, by id.
    pub fn list(&self) -> Result<Vec<ImageInfo>> {
        let all = self.index()?.images.clone();
        all.into_iter().map(|(id, record)| self.describe(id, record)).collect()
    }

    fn describe(&self, id: String, record: Record) -> Result<ImageInfo> {
        let config = self.config(&id)?.config;
        let name = config.user.split(':').next().unwrap_or_default();
        Ok(ImageInfo {
            uid: if name.is_empty() { Some(0) } else { name.parse().ok() },
            id: ImageId(id),
            tags: record.tags.into_iter().collect(),
            digests: record.digests.into_iter().collect(),
            size: record.size,
            user: config.user,
            labels: config.labels,
            exposed_ports: config.exposed_ports.into_keys().collect(),
            pinned: record.pinned,
        })
    }

    /// Removes one reference, or with an id the image and all its references; then what nobody
    /// needs. `used` names the images and layer folders of containers.
    ///
    /// # Errors
    /// [`Error::InUse`] if it was the last reference of an image that a container uses.
    pub fn remove(&self, text: &str, used: &Used) -> Result<()> {
        let mut index = self.index()?;
        let Some((id, reference)) = Self::find(&index, text) else { return Ok(()) };
        let Some(record) = index.images.get_mut(&id) else { return Ok(()) };
        let mut left = record.clone();
        match reference {
            Some(reference) => {
                if let Some(tag) = reference.tagged() {
                    left.tags.remove(&tag);
                }
                if let Some(digest) = &reference.digest {
                    left.digests.remove(&format!("{}@{digest}", reference.name()));
                } else if !left.tags.iter().any(|t| same_name(t, &reference)) {
                    left.digests.retain(|d| !d.starts_with(&format!("{}@", reference.name())));
                }
            }
            None => {
                left.tags.clear();
                left.digests.clear();
            }
        }
        if left.tags.is_empty() && left.digests.is_empty() {
            if used.images.contains(&id) {
                return Err(Error::InUse(text.to_owned()));
            }
            index.images.remove(&id);
        } else {
            *record = left;
        }
        self.write_index(&mut index)?;
        drop(index);
        self.collect(used)
    }

    /// Removes layers and blobs that no image, container or running pull needs. While another
    /// process has the store open nothing is removed: what it is about to need is not known here.
    pub fn collect(&self, used: &Used) -> Result<()> {
        let hidden = if self.begin_alone() { self.hide_unneeded(used) } else { Ok(Vec::new()) };
        self.end_alone()?;
        for path in hidden? {
            fs::remove_dir_all(&path)
                .map_err(Error::io(format!("removing layer {}", path.display())))?;
        }
        Ok(())
    }

    /// Renames unneeded layers out of sight (a removal cut short must not leave half a layer) and
    /// removes unneeded blobs.
    fn hide_unneeded(&self, used: &Used) -> Result<Vec<PathBuf>> {
        let mut index = self.index()?;
        let pending = self.pending();
        let needed: HashSet<String> = index
            .images
            .values()
            .flat_map(|r| &r.layers)
            .chain(&used.layers)
            .chain(pending.keys())
            .cloned()
            .collect();
        let mut all = Vec::new();
        for entry in list_folder(&self.layers())? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) || needed.contains(&name) {
                continue;
            }
            let hidden = self.layers().join(format!("{TEMPORARY}{}", crate::native::new_id()));
            fs::rename(entry.path(), &hidden)
                .map_err(Error::io(format!("removing layer {name}")))?;
            index.layers.remove(&name);
            all.push(hidden);
        }
        if pending.is_empty() {
            let manifests: HashSet<&String> = index.images.values().map(|r| &r.manifest).collect();
            for entry in list_folder(&self.inner.root.join("blobs/sha256"))? {
                let id = format!("sha256:{}", entry.file_name().to_string_lossy());
                if !index.images.contains_key(&id) && !manifests.contains(&id) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        if !all.is_empty() {
            self.write_index(&mut index)?;
        }
        Ok(all)
    }

    /// What the store takes of its file system.
    pub fn usage(&self) -> Result<FsUsage> {
        let root = &self.inner.root;
        let stat = nix::sys::statvfs::statvfs(root)
            .map_err(|e| Error::io(format!("statvfs {}", root.display()))(e.into()))?;
        let index = self.index()?;
        let block = stat.fragment_size() as u64;
        Ok(FsUsage {
            path: root.clone(),
            used_bytes: index.layers.values().map(|l| l.bytes).sum(),
            used_inodes: index.layers.values().map(|l| l.inodes).sum(),
            capacity_bytes: stat.blocks() as u64 * block,
            available_bytes: stat.blocks_available() as u64 * block,
            capacity_inodes: stat.files() as u64,
            available_inodes: stat.files_available() as u64,
        })
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        self.inner.root.join("blobs/sha256").join(hex)
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an image's layers from being collected until the guard is dropped.
    pub(super) fn reserve(&self, diff_ids: &[String]) -> Reservation {
        let names: Vec<String> = chain_ids(diff_ids).iter().map(|c| layer_name(c)).collect();
        let mut pending = self.pending();
        for name in &names {
            *pending.entry(name.clone()).or_default() += 1;
        }
        Reservation { store: self.clone(), names }
    }

    /// Whether an unpacked layer is here.
    pub(super) fn has_layer(&self, chain: &str) -> bool {
        self.layers().join(layer_name(chain)).is_dir()
    }

    /// Unpacks a layer unless it is here. Blocks; `expected` is the stream's digest if known.
    pub(super) fn add_layer(
        &self,
        chain: &str,
        diff_id: &str,
        expected: Option<&str>,
        stream: impl Read,
    ) -> Result<()> {
        let name = layer_name(chain);
        let target = self.layers().join(&name);
        if target.is_dir() {
            return Ok(());
        }
        let temporary = self.layers().join(format!("{TEMPORARY}{}", crate::native::new_id()));
        let what = || expected.map_or_else(|| format!("layer {diff_id}"), |d| format!("layer {d}"));
        let result = self.unpack(&temporary, diff_id, expected, stream, &what).and_then(|size| {
            match fs::rename(&temporary, &target) {
                Ok(()) => sync_folder(&self.layers()).map_err(Error::io("flushing the layers"))?,
                // Somebody else was faster with the same layer.
                Err(_) if target.is_dir() => return Ok(()),
                Err(e) => return Err(Error::io(format!("placing {}", what()))(e)),
            }
            let mut index = self.index()?;
            index.layers.insert(name, size);
            self.write_index(&mut index)
        });
        if temporary.exists() {
            let _ = fs::remove_dir_all(&temporary);
        }
        result
    }

    fn unpack(
        &self,
        folder: &Path,
        diff_id: &str,
        expected: Option<&str>,
        stream: impl Read,
        what: &dyn Fn() -> String,
    ) -> Result<LayerSize> {
        fs::create_dir(folder).map_err(Error::io(format!("making {}", folder.display())))?;
        let bad = |reason: String| Error::Image { what: what(), reason };
        let got = unpack::layer(stream, folder).map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull => Error::io(format!("unpacking {}", what()))(e),
            _ => bad(format!("cannot be unpacked: {e}")),
        })?;
        if let Some(expected) = expected.filter(|d| **d != got.digest) {
            return Err(bad(format!("has digest {} instead of {expected}", got.digest)));
        }
        if got.diff_id != diff_id {
            return Err(bad(format!("unpacks to {} instead of {diff_id}", got.diff_id)));
        }
        Ok(LayerSize { bytes: got.content, inodes: got.inodes })
    }

    /// Takes an image whose layers are all here into the index.
    pub(super) fn add_image(&self, new: NewImage) -> Result<ImageId> {
        let id = digest(&new.config);
        let bad = |e: serde_json::Error| Error::Image { what: id.clone(), reason: e.to_string() };
        let config: ImageConfig = serde_json::from_slice(&new.config).map_err(bad)?;
        self.write_blob(&new.config)?;
        let manifest = new.manifest.as_deref().map(|m| self.write_blob(m)).transpose()?;
        let chain = chain_ids(&config.rootfs.diff_ids);
        let mut index = self.index()?;
        if let Some(tag) = new.reference.as_ref().and_then(Reference::tagged) {
            // A tag moves; the image that had it keeps its digests.
            for record in index.images.values_mut() {
                record.tags.remove(&tag);
            }
            index.images.entry(id.clone()).or_default().tags.insert(tag);
        }
        let record = index.images.entry(id.clone()).or_default();
        if let (Some(reference), Some(target)) = (&new.reference, &new.target) {
            record.digests.insert(format!("{}@{target}", reference.name()));
        }
        record.layers = chain.iter().map(|c| layer_name(c)).collect();
        record.size = new.size + new.config.len() as u64;
        record.manifest = manifest.unwrap_or_default();
        self.write_index(&mut index)?;
        Ok(ImageId(id))
    }

    fn write_blob(&self, bytes: &[u8]) -> Result<String> {
        let id = digest(bytes);
        let path = self.blob_path(&id);
        files::write_if_changed(&path, bytes, BLOB_MODE)
            .map_err(Error::io(format!("writing blob {id}")))?;
        Ok(id)
    }

    fn write_index(&self, held: &mut Held<'_>) -> Result<()> {
        let path = self.inner.root.join(INDEX_FILE);
        let text = serde_json::to_vec(&**held).map_err(|e| Error::Invalid(e.to_string()))?;
        let written = kept::write(&path, &text);
        // After a failure this reads the old one back at the next use.
        held.cached.file = if written.is_ok() { identity(&self.inner.root) } else { (0, 0, 0) };
        written.map_err(Error::io(format!("writing {}", path.display())))
    }
}

/// Tells one version of the index file from another: it is replaced, never written over.
fn identity(root: &Path) -> (u64, u64, i64) {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(root.join(INDEX_FILE));
    meta.map_or((0, 0, 0), |m| (m.ino(), m.size(), m.mtime() * 1_000_000_000 + m.mtime_nsec()))
}

/// What containers use: image ids and layer folders.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// Image ids.
    pub images: HashSet<String>,
    /// Layer folder names.
    pub layers: HashSet<String>,
}

/// Keeps layers from being collected.
pub(super) struct Reservation {
    store: Store,
    names: Vec<String>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut pending = self.store.pending();
        for name in &self.names {
            if let Some(count) = pending.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    pending.remove(name);
                }
            }
        }
    }
}

fn same_name(tag: &str, reference: &Reference) -> bool {
    tag.strip_prefix(&reference.name()).is_some_and(|rest| rest.starts_with(':'))
}

fn layer_name(chain: &str) -> String {
    let hex = chain.strip_prefix("sha256:").unwrap_or(chain);
    hex.chars().take(LAYER_NAME_CHARS).collect()
}

fn list_folder(path: &Path) -> Result<Vec<fs::DirEntry>> {
    let what = || format!("listing {}", path.display());
    fs::read_dir(path).and_then(Iterator::collect).map_err(|e| Error::io(what())(e))
}

fn read_index(root: &Path) -> Result<Index> {
    let path = root.join(INDEX_FILE);
    let content =
        kept::read(&path).map_err(|e| Error::io(format!("reading {}", path.display()))(e))?;
    let Some(content) = content else { return Ok(Index::default()) };
    serde_json::from_slice(&content).or_else(|e| {
        let aside = root.join("index.json.damaged");
        tracing::error!(error = %e, kept = %aside.display(), "image index is damaged; images have to be pulled again");
        kept::set_aside(&path, &aside).map_err(Error::io(format!("moving {}", path.display())))?;
        Ok(Index::default())
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
