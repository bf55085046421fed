//! Images made in the test: folders of unpacked Debian packages, and files on top.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// An image in the making: layers as plain tar, and its configuration.
#[derive(Clone, Default)]
pub struct Image {
    pub layers: Vec<Vec<u8>>,
    config: Value,
}

impl Image {
    /// Nothing yet; `config` is the `config` member of an image's configuration (Cmd, Env, ...).
    pub fn new(config: Value) -> Self {
        Self { layers: Vec::new(), config }
    }

    /// A layer from a folder of unpacked packages, without what only people read.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        let mut layer = tar::Builder::new(Vec::new());
        layer.follow_symlinks(false);
        append(&mut layer, folder, Path::new(""));
        self.layers.push(layer.into_inner().expect("a layer"));
        self
    }

    /// A layer of files; a path that ends in `/` is a folder.
    #[must_use]
    pub fn files(mut self, files: &[(&str, &str)]) -> Self {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let kind = match path.ends_with('/') {
                true => tar::EntryType::Directory,
                false => tar::EntryType::Regular,
            };
            let mut h = header(kind, text.len() as u64);
            layer.append_data(&mut h, path, text.as_bytes()).expect("a file");
        }
        self.layers.push(layer.into_inner().expect("a layer"));
        self
    }

    /// The configuration blob.
    pub fn config(&self) -> Vec<u8> {
        let ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        json!({
            "architecture": "amd64", "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": ids},
        })
        .to_string()
        .into_bytes()
    }

    /// Writes an archive as `docker save` does.
    pub fn archive(&self, path: &Path, name: &str) {
        let mut archive = tar::Builder::new(fs::File::create(path).expect("archive"));
        let mut add = |name: &str, bytes: &[u8]| {
            let mut h = header(tar::EntryType::Regular, bytes.len() as u64);
            archive.append_data(&mut h, name, bytes).expect("an entry");
        };
        let mut names = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            names.push(format!("{index}/layer.tar"));
            add(&names[index], layer);
        }
        add("config.json", &self.config());
        let list = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
        add("manifest.json", list.to_string().as_bytes());
        archive.finish().expect("archive");
    }
}

/// Folders of packages that no program in an image needs, by the end of their path.
const LEFT_OUT: [&str; 6] =
    ["share/doc", "share/man", "share/locale", "share/lintian", "gconv", "i18n"];

fn append(layer: &mut tar::Builder<Vec<u8>>, root: &Path, below: &Path) {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e} (./test.sh tools brings it)", folder.display()));
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let inside = below.join(entry.file_name());
        if LEFT_OUT.iter().any(|end| inside.ends_with(end)) || inside.ends_with(".complete") {
            continue;
        }
        layer.append_path_with_name(entry.path(), &inside).expect("a file");
        if entry.file_type().expect("a type").is_dir() {
            append(layer, root, &inside);
        }
    }
}

/// A shell image: the machine's static busybox with a link for every applet.
pub fn busybox() -> Image {
    let program = ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from);
    let program = program.into_iter().find(|p| p.exists()).expect("busybox-static is installed");
    let applets = std::process::Command::new(&program).arg("--list").output().expect("busybox");
    let bytes = fs::read(&program).expect("busybox");
    let mut layer = tar::Builder::new(Vec::new());
    for (folder, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("root/", 0o700)] {
        let mut h = header(tar::EntryType::Directory, 0);
        h.set_mode(mode);
        layer.append_data(&mut h, folder, std::io::empty()).expect("folder");
    }
    let mut h = header(tar::EntryType::Regular, bytes.len() as u64);
    layer.append_data(&mut h, "bin/busybox", bytes.as_slice()).expect("busybox");
    for name in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox") {
        let mut h = header(tar::EntryType::Symlink, 0);
        layer.append_link(&mut h, format!("bin/{name}"), "busybox").expect("link");
    }
    for (path, text) in
        [("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("etc/group", "root:x:0:\n")]
    {
        let mut h = header(tar::EntryType::Regular, text.len() as u64);
        layer.append_data(&mut h, path, text.as_bytes()).expect("a file");
    }
    let layers = vec![layer.into_inner().expect("a layer")];
    Image { layers, config: json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]}) }
}

/// A digest as registries write it.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind == tar::EntryType::Regular { 0o755 } else { 0o777 });
    if kind == tar::EntryType::Directory {
        header.set_mode(0o755);
    }
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header
}
