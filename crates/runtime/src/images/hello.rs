//! An image made of a static program, so that a first workload needs no registry.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::json;

use super::config::{digest, this_machine};
use super::unpack::Hashing;

/// The name of the image that [`hello_archive`] makes.
pub const HELLO_REFERENCE: &str = "coracle.local/hello:latest";

/// The usual number of a user without rights.
const NONROOT: u32 = 65_532;

/// Writes an OCI-layout archive that holds a static program as `/coracle` and runs it as
/// `/coracle hello` on port 8080 without rights.
///
/// # Errors
/// When the program cannot be read or the archive not be written.
pub fn hello_archive(program: &Path, out: impl Write) -> io::Result<()> {
    let mut layer = tempfile::tempfile()?;
    write_layer(program, &layer)?;
    layer.seek(SeekFrom::Start(0))?;
    let mut hashed = Hashing::new(&layer);
    let size = io::copy(&mut hashed, &mut io::sink())?;
    let layer_digest = hashed.digest();
    let machine = this_machine();
    let config = json!({
        "architecture": machine.architecture,
        "os": machine.os,
        "config": {
            "User": format!("{NONROOT}:{NONROOT}"),
            "Env": ["PATH=/"],
            "Entrypoint": ["/coracle", "hello"],
            "WorkingDir": "/",
            "ExposedPorts": {"8080/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    });
    let config = serde_json::to_vec(&config)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer_digest,
            "size": size,
        }],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({"io.containerd.image.name": HELLO_REFERENCE});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;

    let mut archive = tar::Builder::new(out);
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice(), None)?;
    append(&mut archive, "index.json", index.as_slice(), None)?;
    append(&mut archive, &blob(&digest(&manifest)), manifest.as_slice(), None)?;
    append(&mut archive, &blob(&digest(&config)), config.as_slice(), None)?;
    layer.seek(SeekFrom::Start(0))?;
    append(&mut archive, &blob(&layer_digest), &layer, Some(size))?;
    archive.into_inner()?.flush()
}

fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn append<W: Write, R: AsContent>(
    archive: &mut tar::Builder<W>,
    name: &str,
    content: R,
    size: Option<u64>,
) -> io::Result<()> {
    let size = size.unwrap_or_else(|| content.length());
    archive.append_data(&mut header(size, 0o644), name, content)
}

/// Bytes or a file: both are read, only bytes know their length.
trait AsContent: Read {
    fn length(&self) -> u64;
}

impl AsContent for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }
}

impl AsContent for &File {
    fn length(&self) -> u64 {
        self.metadata().map_or(0, |m| m.len())
    }
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

fn write_layer(program: &Path, out: &File) -> io::Result<()> {
    let program = File::open(program)?;
    let size = program.metadata()?.len();
    let mut archive = tar::Builder::new(out);
    let mut folder = |name: &str, mode: u32| -> io::Result<()> {
        let mut header = header(0, mode);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, name, io::empty())
    };
    folder("etc/", 0o755)?;
    folder("tmp/", 0o1777)?;
    let passwd = format!(
        "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/:/sbin/nologin\n"
    );
    append(&mut archive, "etc/passwd", passwd.as_bytes(), None)?;
    archive.append_data(&mut header(size, 0o755), "coracle", &program)?;
    archive.finish()
}
