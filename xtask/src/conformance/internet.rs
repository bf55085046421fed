//! What upstream's tests find of the internet, within the run's own namespace: `http://google.com`
//! answers, as some network tests ask before they begin, and a registry has the image that one test
//! pulls. Both are files that one busybox serves.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};

use super::archive::digest;
use super::cache::{Cache, fresh_folder, make_folder, write};
use super::packages::Apt;
use crate::run::Outcome;

/// The name that tests ask for.
const ASKED_FOR: &str = "google.com";
/// The machine's address among the boards of the first sandbox in a namespace.
const MACHINE: &str = "10.87.0.254";
/// The image that a test pulls, and what it was made from.
const PULLED: &str = "agnhost.tar";
const PULLED_STAMP: &str = "image-agnhost";
/// The registry that has it.
const REGISTRY: &str = "k8s.gcr.io";
/// The boards' configuration of registries, in the run's folder.
pub const REGISTRIES: &str = "registries.yaml";
/// Runs a program that finds another `/etc/hosts` than the machine's.
const WITH_HOSTS: &str = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";

/// It is gone when the value is.
pub struct Internet {
    served: Child,
}

impl Internet {
    /// Serves what is to be found; `line` begins a command in the namespace, `folder` is the run's.
    pub fn start(mut line: Command, cache: &Cache, folder: &Path) -> Outcome<Self> {
        let files = files(cache)?;
        let busybox = Apt::new(cache)?.unpacked("busybox-static", &["busybox-static"], false)?;
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        write(&folder.join("hosts"), format!("127.0.0.1 {ASKED_FOR}\n{hosts}"))?;
        let mirror = json!({"mirrors": {REGISTRY: {"endpoint": [format!("http://{MACHINE}")]}}});
        write(&folder.join(REGISTRIES), mirror.to_string())?;
        // A run that is killed takes it along.
        line.args(["--pdeathsig", "KILL"]).arg(busybox.join("bin/busybox"));
        line.args(["httpd", "-f", "-p", "80", "-h"]).arg(&files);
        let served = line.spawn().map_err(|e| format!("serving {}: {e}", files.display()))?;
        Ok(Self { served })
    }

    /// Has a command find the names that are answered for; `line` begins one in the namespace.
    pub fn reached(mut line: Command, folder: &Path) -> Command {
        line.args(["--mount", "sh", "-c", WITH_HOSTS]).arg(folder.join("hosts"));
        line
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = self.served.kill();
        let _ = self.served.wait();
    }
}

/// All that is served.
fn files(cache: &Cache) -> Outcome<PathBuf> {
    let (files, image) = (cache.path("internet"), cache.path("images").join(PULLED));
    let recipe = std::fs::read_to_string(cache.path("stamps").join(PULLED_STAMP));
    cache.once("internet", &recipe.unwrap_or_default(), || {
        fresh_folder(&files)?;
        make_folder(&files.join("v2"))?;
        write(&files.join("index.html"), "here\n")?;
        write(&files.join("v2/index.html"), "{}\n")?;
        publish(&image, &files)
    })?;
    Ok(files)
}

/// Lays out an archive as `docker save` writes it as the files of a registry.
fn publish(archive: &Path, files: &Path) -> Outcome {
    let what = |e: std::io::Error| format!("{}: {e}", archive.display());
    let mut tar = tar::Archive::new(File::open(archive).map_err(what)?);
    let mut parts = std::collections::BTreeMap::new();
    for entry in tar.entries().map_err(what)? {
        let mut entry = entry.map_err(what)?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(what)?;
        let name = entry.path().map_err(what)?.to_string_lossy().into_owned();
        parts.insert(name, bytes);
    }
    let part = |name: &str| {
        parts.get(name).ok_or_else(|| format!("{}: it has no {name}", archive.display()))
    };
    let index: Value = serde_json::from_slice(part("manifest.json")?).map_err(|e| e.to_string())?;
    let texts = |member: &str| {
        let members = index[0][member].as_array().into_iter().flatten();
        members.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    for reference in texts("RepoTags") {
        let short = reference.strip_prefix(REGISTRY).and_then(|rest| rest.strip_prefix('/'));
        let Some((name, tag)) = short.and_then(|short| short.split_once(':')) else { continue };
        let repository = files.join("v2").join(name);
        let (blobs, manifests) = (repository.join("blobs"), repository.join("manifests"));
        make_folder(&blobs)?;
        make_folder(&manifests)?;
        let blob = |part_name: &str, kind: &str| -> Outcome<Value> {
            let bytes = part(part_name)?;
            let (digest, kind) = (digest(bytes), format!("application/vnd.oci.image.{kind}"));
            write(&blobs.join(&digest), bytes)?;
            Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
        };
        let layers = texts("Layers");
        let layers = layers.iter().map(|layer| blob(layer, "layer.v1.tar"));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("config.json", "config.v1+json")?,
            "layers": layers.collect::<Outcome<Vec<_>>>()?,
        });
        write(&manifests.join(tag), manifest.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::archive::save;
    use super::*;

    #[test]
    fn an_archive_becomes_the_files_of_a_registry() {
        let folder = std::env::temp_dir().join(format!("coracle-xtask-{}", std::process::id()));
        make_folder(&folder).unwrap();
        let names = ["k8s.gcr.io/e2e/agnhost:2.21", "docker.io/library/other:1"];
        let layers = [b"lower".to_vec(), b"upper".to_vec()];
        let archive = folder.join("agnhost.tar");
        save(&archive, &names.map(str::to_owned), &layers, &json!({"Cmd": ["pause"]})).unwrap();
        publish(&archive, &folder).unwrap();
        let repository = folder.join("v2/e2e/agnhost");
        let manifest = std::fs::read(repository.join("manifests/2.21")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        for (part, bytes) in [("/layers/0", b"lower"), ("/layers/1", b"upper")] {
            let part = manifest.pointer(part).unwrap();
            let blob = repository.join("blobs").join(part["digest"].as_str().unwrap());
            assert_eq!(std::fs::read(blob).unwrap(), bytes, "{part}");
            assert_eq!(part["size"], 5);
        }
        assert!(!folder.join("v2/library").exists(), "another registry's");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
