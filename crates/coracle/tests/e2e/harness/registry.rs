//! Debian's docker-registry on the board's own loopback, and pushing to it.

use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::board::{Board, tools};
use super::http::{get, request};
use super::image::{Image, digest};
use super::wait::eventually;

/// Where it listens, inside the board's namespace.
const ADDRESS: &str = "127.0.0.1:5000";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Larger layers are pushed as they are: compressing them would be most of the test.
const MAX_COMPRESSED_BYTES: usize = 4 << 20;

/// A running registry; ended with the value.
pub struct Registry<'a> {
    board: &'a Board,
    child: Child,
}

impl<'a> Registry<'a> {
    pub fn start(board: &'a Board) -> Self {
        let root = board.folder.join("registry");
        fs::create_dir_all(&root).expect("folder");
        let path = board.folder.join("registry.yml");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{ADDRESS}'}}\n",
            root.display()
        );
        fs::write(&path, config).expect("configuration");
        let child = board
            .netns
            .command(tools().join("registry/usr/bin/docker-registry"))
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (./test.sh tools brings it)");
        board.netns.run(|| {
            eventually("the registry answers", || {
                get(ADDRESS, "/v2/").is_ok_and(|r| r.status == 200)
            });
        });
        Self { board, child }
    }

    /// Pushes and gives the name to pull by.
    pub fn push(&self, image: &Image, repository: &str, tag: &str) -> String {
        self.board.netns.run(|| {
            let layers: Vec<Value> = image
                .layers
                .iter()
                .map(|layer| match layer.len() {
                    0..MAX_COMPRESSED_BYTES => {
                        push_blob(repository, &format!("{LAYER}.gzip"), &gzip(layer))
                    }
                    _ => push_blob(repository, LAYER, layer),
                })
                .collect();
            let config = push_blob(repository, CONFIG, &image.config());
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
            });
            let path = format!("/v2/{repository}/manifests/{tag}");
            let body = manifest.to_string();
            let headers = [("Content-Type", MANIFEST)];
            let answer = request(ADDRESS, "PUT", &path, &headers, body.as_bytes()).expect("push");
            assert_eq!(answer.status, 201, "{answer:?}");
        });
        format!("{ADDRESS}/{repository}:{tag}")
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One blob in one piece; gives its descriptor.
fn push_blob(repository: &str, media: &str, bytes: &[u8]) -> Value {
    let digest = digest(bytes);
    let path = format!("/v2/{repository}/blobs/uploads/");
    let begun = request(ADDRESS, "POST", &path, &[], &[]).expect("begin an upload");
    let location = begun.header("location").unwrap_or_else(|| panic!("{begun:?}"));
    let path = location.strip_prefix(&format!("http://{ADDRESS}")).unwrap_or(location);
    let join = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{join}digest={digest}");
    let headers = [("Content-Type", "application/octet-stream")];
    let done = request(ADDRESS, "PUT", &path, &headers, bytes).expect("upload");
    assert_eq!(done.status, 201, "{done:?}");
    json!({"mediaType": media, "digest": digest, "size": bytes.len()})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
