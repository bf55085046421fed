//! Archives: OCI image layouts and what `docker save` writes, plain, gzip or zstd.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;

use super::config::{Descriptor, ImageConfig, Manifest, chain_ids, choose, digest, this_machine};
use super::reference::Reference;
use super::store::{NewImage, Store};
use super::unpack;
use crate::{Error, Result};

/// Largest manifest or configuration read.
const METADATA_LIMIT_BYTES: u64 = 8 << 20;
/// An index may hold indices; deeper than this is nonsense.
const INDEX_DEPTH_LIMIT: u32 = 4;

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const OCI_NAME: &str = "org.opencontainers.image.ref.name";

/// An entry of `docker save`'s `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Store {
    /// Takes every image out of an archive that is for this machine. Blocks. Gives references,
    /// or ids of images without one.
    ///
    /// # Errors
    /// An unreadable archive, or one without images; images before the damage stay.
    pub fn import(&self, path: &Path) -> Result<Vec<String>> {
        let archive = Archive::open(path, &self.temporary())?;
        if let Some(bytes) = archive.small("manifest.json")? {
            let saved: Vec<Saved> = archive.json("manifest.json", &bytes)?;
            return saved.iter().try_fold(Vec::new(), |mut all, image| {
                all.extend(self.import_saved(&archive, image)?);
                Ok(all)
            });
        }
        let Some(bytes) = archive.small("index.json")? else {
            return Err(archive.bad("neither an OCI layout nor made by docker save"));
        };
        let index: Manifest = archive.json("index.json", &bytes)?;
        index.manifests.iter().map(|entry| self.import_entry(&archive, entry)).collect()
    }

    fn import_saved(&self, archive: &Archive, image: &Saved) -> Result<Vec<String>> {
        let config = archive.required(&image.config)?;
        let layers: Vec<(String, Option<String>)> =
            image.layers.iter().map(|l| (l.clone(), None)).collect();
        let tags = image.repo_tags.clone().unwrap_or_default();
        let references = tags.iter().map(|t| Reference::parse(t)).collect::<Result<Vec<_>>>()?;
        let named = references.into_iter().map(Some).collect::<Vec<_>>();
        let named = if named.is_empty() { vec![None] } else { named };
        named
            .into_iter()
            .map(|reference| {
                let name = reference.as_ref().map(Reference::to_string);
                let new = NewImage {
                    config: config.clone(),
                    manifest: None,
                    size: 0,
                    reference,
                    target: None,
                };
                let id = self.import_image(archive, new, &layers)?;
                Ok(name.unwrap_or(id))
            })
            .collect()
    }

    fn import_entry(&self, archive: &Archive, entry: &Descriptor) -> Result<String> {
        let name = [CONTAINERD_NAME, OCI_NAME]
            .iter()
            .filter_map(|key| entry.annotations.get(*key))
            // A layout may name only a tag, which says nothing about the repository.
            .find(|name| name.contains(['/', ':']));
        let reference = name.map(|n| Reference::parse(n)).transpose()?;
        let (manifest, bytes) = archive.manifest(entry, 0)?;
        let config = manifest.config.ok_or_else(|| archive.bad("a manifest without config"))?;
        let layers: Vec<_> = manifest
            .layers
            .iter()
            .map(|l| (blob_name(&l.digest), Some(l.digest.clone())))
            .collect();
        let name = reference.as_ref().map(Reference::to_string);
        let new = NewImage {
            config: archive.verified(&config)?,
            manifest: Some(bytes),
            size: manifest.layers.iter().map(|l| l.size).sum(),
            reference,
            target: Some(entry.digest.clone()),
        };
        let id = self.import_image(archive, new, &layers)?;
        Ok(name.unwrap_or(id))
    }

    fn import_image(
        &self,
        archive: &Archive,
        mut new: NewImage,
        layers: &[(String, Option<String>)],
    ) -> Result<String> {
        let config: ImageConfig = archive.json("config", &new.config)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(archive.bad("the configuration names another number of layers"));
        }
        let _reserved = self.reserve(diff_ids);
        let chain = chain_ids(diff_ids);
        for (n, (name, expected)) in layers.iter().enumerate() {
            let section = archive.section(name)?;
            if new.manifest.is_none() {
                new.size += section.end - section.at;
            }
            self.add_layer(&chain[n], &diff_ids[n], expected.as_deref(), section)?;
        }
        Ok(self.add_image(new)?.0)
    }
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// A tar archive whose entries can be read in any order.
struct Archive {
    name: String,
    file: File,
    entries: HashMap<String, (u64, u64)>,
}

impl Archive {
    fn open(path: &Path, temporary: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let reading = || format!("reading archive {name}");
        let mut file = File::open(path).map_err(|e| Error::io(reading())(e))?;
        let mut head = [0u8; 4];
        let got = file.read(&mut head).map_err(|e| Error::io(reading())(e))?;
        file.seek(SeekFrom::Start(0)).map_err(|e| Error::io(reading())(e))?;
        let head = &head[..got];
        if head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut plain = tempfile::tempfile_in(temporary)
                .map_err(Error::io(format!("a temporary file in {}", temporary.display())))?;
            let copied = unpack::decompress(file).and_then(|mut r| io::copy(&mut r, &mut plain));
            copied
                .and_then(|_| plain.seek(SeekFrom::Start(0)))
                .map_err(|e| Error::io(reading())(e))?;
            file = plain;
        }
        let entries = scan(&mut file).map_err(|e| Error::Image {
            what: name.clone(),
            reason: format!("not a tar archive: {e}"),
        })?;
        Ok(Self { name, file, entries })
    }

    fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Image { what: format!("archive {}", self.name), reason: reason.into() }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|e| self.bad(format!("{what}: {e}")))
    }

    fn section(&self, name: &str) -> Result<Section<'_>> {
        let (at, size) =
            *self.entries.get(name).ok_or_else(|| self.bad(format!("lacks {name}")))?;
        Ok(Section { file: &self.file, at, end: at + size })
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if self.entries.contains_key(name) { self.required(name).map(Some) } else { Ok(None) }
    }

    fn required(&self, name: &str) -> Result<Vec<u8>> {
        let mut section = self.section(name)?;
        if section.end - section.at > METADATA_LIMIT_BYTES {
            return Err(self.bad(format!("{name} is larger than 8 MiB")));
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(Error::io(format!("reading {}", self.name)))?;
        Ok(bytes)
    }

    fn verified(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.required(&blob_name(&descriptor.digest))?;
        let got = digest(&bytes);
        if got != descriptor.digest {
            return Err(self.bad(format!("blob {} has digest {got}", descriptor.digest)));
        }
        Ok(bytes)
    }

    /// The image manifest behind a descriptor, through indices.
    fn manifest(&self, entry: &Descriptor, depth: u32) -> Result<(Manifest, Vec<u8>)> {
        let bytes = self.verified(entry)?;
        let manifest: Manifest = self.json("manifest", &bytes)?;
        if manifest.config.is_some() {
            return Ok((manifest, bytes));
        }
        // Entries for other machines may be named without being in the archive.
        let here: Vec<Descriptor> = manifest
            .manifests
            .into_iter()
            .filter(|m| self.entries.contains_key(&blob_name(&m.digest)))
            .collect();
        let machine = this_machine();
        let chosen = choose(&here, &machine)
            .filter(|_| depth < INDEX_DEPTH_LIMIT)
            .ok_or_else(|| self.bad(format!("no image for linux/{}", machine.architecture)))?;
        self.manifest(chosen, depth + 1)
    }
}

/// Where each entry's content lies. Links (older `docker save` shares layers by them) lead to
/// their target's content.
fn scan(file: &mut File) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut entries = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(&mut *file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = clean(&entry.path()?);
        match entry.link_name()? {
            Some(target) => {
                let base = Path::new(&name).parent().unwrap_or(Path::new("")).to_owned();
                let symbolic = entry.header().entry_type().is_symlink();
                let target = if symbolic { clean(&base.join(target)) } else { clean(&target) };
                links.push((name, target));
            }
            None => {
                entries.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
    }
    for (name, target) in links {
        if let Some(place) = entries.get(&target).copied() {
            entries.insert(name, place);
        }
    }
    Ok(entries)
}

fn clean(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(p) => parts.push(p.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.join("/")
}

/// A part of a file.
struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let got = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}
