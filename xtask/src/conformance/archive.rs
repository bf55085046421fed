//! Image archives as `docker save` writes them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::Digest;

use crate::run::Outcome;

/// A layer in the making.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        Self { tar }
    }

    /// All that is in a folder, with its owners and modes.
    pub fn folder(&mut self, folder: &Path) -> Outcome {
        self.tar.append_dir_all("", folder).map_err(|e| format!("{}: {e}", folder.display()))
    }

    /// A folder of root's.
    pub fn directory(&mut self, path: &str, mode: u32) -> Outcome {
        self.append(path, tar::EntryType::Directory, mode, &[])
    }

    /// A file of root's.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Outcome {
        self.append(path, tar::EntryType::Regular, mode, bytes)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Outcome {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, path, target).map_err(|e| format!("{path}: {e}"))
    }

    fn append(&mut self, path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]) -> Outcome {
        let mut header = header(kind, mode, bytes.len() as u64);
        self.tar.append_data(&mut header, path, bytes).map_err(|e| format!("{path}: {e}"))
    }

    /// The layer as a tar file.
    pub fn finish(self) -> Outcome<Vec<u8>> {
        self.tar.into_inner().map_err(|e| format!("a layer: {e}"))
    }
}

/// Writes an archive of one image with several names; `config` is the `config` member of its
/// configuration (Entrypoint, Cmd, Env, ...).
pub fn save(path: &Path, names: &[String], layers: &[Vec<u8>], config: &Value) -> Outcome {
    let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let files: Vec<String> =
        (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": files}]);
    let write = || -> std::io::Result<()> {
        let mut archive = tar::Builder::new(BufWriter::new(File::create(path)?));
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
            archive.append_data(&mut header, name, bytes)
        };
        for (file, layer) in files.iter().zip(layers) {
            add(file, layer)?;
        }
        add("config.json", config.to_string().as_bytes())?;
        add("manifest.json", manifest.to_string().as_bytes())?;
        archive.into_inner()?.flush()
    };
    write().map_err(|e| format!("writing {}: {e}", path.display()))
}

/// A digest as registries write it.
pub fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}
