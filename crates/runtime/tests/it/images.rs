//! Archives, registries, layers.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use runtime::{Error, RegistryAuth, Runtime};
use tar::EntryType;

use crate::rig::{
    BUSYBOX, Rig, busybox_layer, docker_archive, eventually, header, sha256, shell_config,
};

crate::tests!(
    compressed_archives,
    hello_image,
    layers_are_faithful,
    hostile_layers,
    damaged_archives,
    removal_and_collection,
    beside_another_process,
    pull_from_a_registry,
    pull_with_credentials,
    pull_errors,
);

async fn compressed_archives() {
    let rig = Rig::empty().await;
    let plain = rig.folder.join("plain.tar");
    docker_archive(&plain, BUSYBOX);
    let bytes = fs::read(&plain).unwrap();
    let gz = rig.folder.join("a.tar.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(fs::File::create(&gz).unwrap(), flate2::Compression::fast());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap();
    let zst = rig.folder.join("a.tar.zst");
    fs::write(&zst, zstd::encode_all(bytes.as_slice(), 1).unwrap()).unwrap();
    for path in [&plain, &gz, &zst] {
        assert_eq!(rig.native.import_archive(path).await.unwrap(), [BUSYBOX]);
    }
    let all = rig.native.list_images().await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].tags, [BUSYBOX]);
    assert_eq!(all[0].uid, Some(0));
    assert_eq!(fs::read_dir(rig.config.root.join("images/layers")).unwrap().count(), 1);
}

async fn hello_image() {
    let rig = Rig::empty().await;
    let path = rig.folder.join("hello.tar");
    // Busybox stands in for the program: `busybox hello` is no applet and says so.
    let file = fs::File::create(&path).unwrap();
    runtime::images::hello_archive(&crate::rig::busybox().unwrap(), file).unwrap();
    let names = rig.native.import_archive(&path).await.unwrap();
    assert_eq!(names, [runtime::images::HELLO_REFERENCE]);
    let info = rig.native.image_status("coracle.local/hello").await.unwrap().unwrap();
    assert_eq!(info.user, "65532:65532");
    assert_eq!(info.uid, Some(65532));
    assert_eq!(info.exposed_ports, ["8080/tcp"]);
    assert!(info.digests[0].starts_with("coracle.local/hello@sha256:"));
    let sandbox = rig.sandbox().await;
    let mut config = shell_config("");
    config.image_ref = "coracle.local/hello:latest".into();
    config.process.command = vec!["/coracle".into(), "id".into(), "-u".into()];
    let id = rig.native.create_container(&sandbox, config).await.unwrap();
    rig.native.start_container(&id).await.unwrap();
    let status = rig.ended(&id).await;
    // Busybox under another name looks for an applet called so.
    assert!(status.exit_code.is_some());
    assert_eq!(status.uid, 65532);
    assert!(status.image_digest.starts_with("coracle.local/hello@sha256:"));
}

/// Writes a docker-save archive with the given layers.
fn archive(path: &Path, name: &str, layers: &[Vec<u8>]) {
    let ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", sha256(l))).collect();
    let config = serde_json::json!({
        "config": {"Cmd": ["/bin/sh"]}, "rootfs": {"type": "layers", "diff_ids": ids},
    })
    .to_string();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest =
        serde_json::json!([{"Config": "c.json", "RepoTags": [name], "Layers": names}]).to_string();
    let mut out = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut h = header(EntryType::Regular, bytes.len() as u64, 0o644);
        out.append_data(&mut h, name, bytes).unwrap();
    };
    add("c.json", config.as_bytes());
    add("manifest.json", manifest.as_bytes());
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    out.finish().unwrap();
}

async fn layers_are_faithful() {
    let rig = Rig::empty().await;
    let mut upper = tar::Builder::new(Vec::new());
    let mut file = |name: &str, kind, mode, uid, body: &str| {
        let mut h = header(kind, body.len() as u64, mode);
        h.set_uid(uid);
        upper.append_data(&mut h, name, body.as_bytes()).unwrap();
    };
    file("bin/.wh.ls", EntryType::Regular, 0o644, 0, "");
    file("tmp/.wh..wh..opq", EntryType::Regular, 0o644, 0, "");
    file("srv/own", EntryType::Regular, 0o4750, 33, "body");
    let mut h = header(EntryType::Link, 0, 0o644);
    upper.append_link(&mut h, "srv/hard", "srv/own").unwrap();
    let mut h = header(EntryType::Symlink, 0, 0o777);
    upper.append_link(&mut h, "lib", "/srv").unwrap();
    // Through an absolute link, which must stay inside.
    let mut h = header(EntryType::Regular, 2, 0o644);
    upper.append_data(&mut h, "lib/through", b"ok".as_slice()).unwrap();
    let path = rig.folder.join("x.tar");
    archive(&path, "x.test/y:1", &[busybox_layer(), upper.into_inner().unwrap()]);
    rig.native.import_archive(&path).await.unwrap();
    let layers: Vec<PathBuf> = fs::read_dir(rig.config.root.join("images/layers"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    let top = layers.iter().find(|l| l.join("srv").exists()).unwrap();
    let hidden = fs::symlink_metadata(top.join("bin/ls")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    let own = fs::metadata(top.join("srv/own")).unwrap();
    assert_eq!((own.uid(), own.permissions().mode() & 0o7777, own.nlink()), (33, 0o4750, 2));
    assert_eq!(own.mtime(), 1_700_000_000);
    let sandbox = rig.sandbox().await;
    let id = rig
        .start(
            &sandbox,
            "[ -e /bin/ls ] || echo gone; cat /srv/through; stat -c %u:%a /srv/hard",
            |c| {
                c.image_ref = "x.test/y:1".into();
            },
        )
        .await;
    rig.ended(&id).await;
    assert_eq!(rig.log("main.log"), ["stdout F gone", "stdout F ok33:4750"]);
}

async fn hostile_layers() {
    let rig = Rig::empty().await;
    let outside = rig.folder.join("outside");
    let mut layer = tar::Builder::new(Vec::new());
    let mut h = header(EntryType::Symlink, 0, 0o777);
    layer.append_link(&mut h, "way", rig.folder.to_str().unwrap()).unwrap();
    let mut h = header(EntryType::Regular, 4, 0o644);
    layer.append_data(&mut h, "way/outside", b"evil".as_slice()).unwrap();
    let path = rig.folder.join("x.tar");
    archive(&path, "x.test/y:1", &[layer.into_inner().unwrap()]);
    let _ = rig.native.import_archive(&path).await;
    assert!(!outside.exists());
    let mut layer = tar::Builder::new(Vec::new());
    let mut h = header(EntryType::Regular, 4, 0o644);
    h.as_old_mut().name[..13].copy_from_slice(b"../../outside");
    h.set_cksum();
    layer.append(&h, b"evil".as_slice()).unwrap();
    archive(&path, "x.test/z:1", &[layer.into_inner().unwrap()]);
    let error = rig.native.import_archive(&path).await.unwrap_err();
    assert!(error.to_string().contains(".."), "{error}");
    assert!(!outside.exists());
}

async fn damaged_archives() {
    let rig = Rig::empty().await;
    let path = rig.folder.join("x.tar");
    fs::write(&path, "no archive at all").unwrap();
    assert!(matches!(rig.native.import_archive(&path).await, Err(Error::Image { .. })));
    docker_archive(&path, BUSYBOX);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = rig.native.import_archive(&path).await.unwrap_err();
    assert!(error.to_string().contains("instead of"), "{error}");
    assert!(rig.native.list_images().await.unwrap().is_empty());
    assert_eq!(fs::read_dir(rig.config.root.join("images/layers")).unwrap().count(), 0);
}

async fn removal_and_collection() {
    let rig = Rig::new().await;
    let layers = || fs::read_dir(rig.config.root.join("images/layers")).unwrap().count();
    let path = rig.folder.join("x.tar");
    let small = tar::Builder::new(Vec::new()).into_inner().unwrap();
    archive(&path, "x.test/y:1", &[busybox_layer(), small]);
    rig.native.import_archive(&path).await.unwrap();
    assert_eq!(layers(), 2, "the lower one is shared");
    rig.native.remove_image(BUSYBOX).await.unwrap();
    assert_eq!(layers(), 2);
    let sandbox = rig.sandbox().await;
    let id = rig.start(&sandbox, "sleep 60", |c| c.image_ref = "x.test/y:1".into()).await;
    let error = rig.native.remove_image("x.test/y:1").await.unwrap_err();
    assert!(matches!(error, Error::InUse(_)), "{error:?}");
    rig.native.remove_container(&id).await.unwrap();
    rig.native.remove_image("x.test/y:1").await.unwrap();
    rig.native.remove_image("x.test/y:1").await.unwrap();
    assert_eq!(layers(), 0);
    assert_eq!(fs::read_dir(rig.config.root.join("images/blobs/sha256")).unwrap().count(), 0);
    assert!(rig.native.image_status("x.test/y:1").await.unwrap().is_none());
}

/// The command line imports and removes while the agent runs.
async fn beside_another_process() {
    let rig = Rig::new().await;
    let layers = || fs::read_dir(rig.config.root.join("images/layers")).unwrap().count();
    let path = rig.folder.join("x.tar");
    let mut other = tar::Builder::new(Vec::new());
    let mut h = header(EntryType::Regular, 1, 0o644);
    other.append_data(&mut h, "one", b"1".as_slice()).unwrap();
    archive(&path, "x.test/y:1", &[other.into_inner().unwrap()]);
    let store = rig.config.image_store().unwrap();
    store.import(&path).unwrap();
    assert!(rig.native.image_status("x.test/y:1").await.unwrap().is_some());
    // The agent cannot know what the other one is about to need.
    rig.native.remove_image("x.test/y:1").await.unwrap();
    assert_eq!(layers(), 2);
    assert!(store.info("x.test/y:1").unwrap().is_none());
    let sandbox = rig.sandbox().await;
    rig.shell(&sandbox, "sleep 60").await;
    assert!(matches!(store.remove(BUSYBOX, &rig.config.used()), Err(Error::InUse(_))));
    drop(store);
    rig.native.remove_image("nothing:here").await.unwrap();
    rig.native.images().collect(&rig.config.used()).unwrap();
    assert_eq!(layers(), 1);
}

/// Debian's docker-registry on a free loopback port, killed with the test.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    async fn start(folder: &Path, auth: bool) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = folder.join("registry");
        fs::create_dir_all(&store).unwrap();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            store.display()
        );
        if auth {
            // The password is "secret".
            let hash = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
            let file = folder.join("htpasswd");
            fs::write(&file, format!("user:{hash}\n")).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let path = folder.join("registry.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let registry = Self { child, port };
        eventually("the registry listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Some(registry)
    }

    fn push(&self, archive: &Path, name: &str, more: &[&str]) -> bool {
        Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
            .args(more)
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://127.0.0.1:{}/{name}", self.port))
            .status()
            .is_ok_and(|s| s.success())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn pull_from_a_registry() {
    let rig = Rig::empty().await;
    let Some(registry) = Registry::start(&rig.folder, false).await else {
        println!("  skipped: no docker-registry");
        return;
    };
    let path = rig.folder.join("b.tar");
    docker_archive(&path, BUSYBOX);
    assert!(registry.push(&path, "team/busybox:v1", &[]));
    let name = format!("127.0.0.1:{}/team/busybox:v1", registry.port);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let seen = seen.clone();
        Arc::new(move |p| seen.lock().unwrap().push(p))
    };
    let id = rig.native.pull_image(&name, RegistryAuth::Anonymous, Some(sink)).await.unwrap();
    let last = *seen.lock().unwrap().last().unwrap();
    assert!(last.total > 0 && last.done == last.total && last.layers_done == 1, "{last:?}");
    let info = rig.native.image_status(&name).await.unwrap().unwrap();
    assert_eq!(info.id, id);
    assert_eq!(info.tags, std::slice::from_ref(&name));
    let by_digest = info.digests[0].clone();
    assert_eq!(rig.native.image_status(&by_digest).await.unwrap().unwrap().id, id);
    assert_eq!(rig.native.pull_image(&by_digest, RegistryAuth::Anonymous, None).await.unwrap(), id);
    let sandbox = rig.sandbox().await;
    let mut config = shell_config("exit 21");
    config.image = id;
    config.image_ref = name;
    let container = rig.native.create_container(&sandbox, config).await.unwrap();
    rig.native.start_container(&container).await.unwrap();
    let status = rig.ended(&container).await;
    assert_eq!(status.exit_code, Some(21));
    assert_eq!(status.image_digest, by_digest);
}

async fn pull_with_credentials() {
    let mut rig = Rig::empty().await;
    let Some(registry) = Registry::start(&rig.folder, true).await else {
        println!("  skipped: no docker-registry");
        return;
    };
    let path = rig.folder.join("b.tar");
    docker_archive(&path, BUSYBOX);
    assert!(registry.push(&path, "p:1", &["--dest-creds", "user:secret"]));
    let name = format!("127.0.0.1:{}/p:1", registry.port);
    let error = rig.native.pull_image(&name, RegistryAuth::Anonymous, None).await.unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("auth") || error.to_string().contains("401"),
        "{error}"
    );
    let auth = RegistryAuth::Basic { username: "user".into(), password: "wrong".into() };
    assert!(rig.native.pull_image(&name, auth, None).await.is_err());
    let auth = RegistryAuth::Basic { username: "user".into(), password: "secret".into() };
    rig.native.pull_image(&name, auth, None).await.unwrap();
    rig.native.remove_image(&name).await.unwrap();
    // By the file: a mirror of another name, with its credentials.
    let file = rig.folder.join("registries.yaml");
    let host = format!("127.0.0.1:{}", registry.port);
    fs::write(
        &file,
        format!(
            "mirrors:\n  reg.example:\n    endpoint: ['http://{host}']\n\
             configs:\n  '{host}':\n    auth: {{username: user, password: secret}}\n"
        ),
    )
    .unwrap();
    rig.config.registries = Some(file);
    rig.reopen().await;
    rig.native.pull_image("reg.example/p:1", RegistryAuth::Anonymous, None).await.unwrap();
    let info = rig.native.image_status("reg.example/p:1").await.unwrap().unwrap();
    assert_eq!(info.tags, ["reg.example/p:1"]);
}

async fn pull_errors() {
    let rig = Rig::empty().await;
    let Some(registry) = Registry::start(&rig.folder, false).await else {
        println!("  skipped: no docker-registry");
        return;
    };
    let port = registry.port;
    let pull = |name: String| rig.native.pull_image_owned(name);
    let error = pull(format!("127.0.0.1:{port}/none:1")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("manifest unknown") || text.contains("name unknown"), "{text}");
    assert!(matches!(error, Error::Pull { unreachable: false, .. }));
    drop(registry);
    let error = pull(format!("127.0.0.1:{port}/none:1")).await.unwrap_err();
    assert!(matches!(error, Error::Pull { unreachable: true, .. }), "{error:?}");
    let error = pull("UPPER/case".into()).await.unwrap_err();
    assert!(matches!(error, Error::Reference { .. }), "{error:?}");
}

/// Shorthand for pulls without credentials.
trait PullOwned {
    async fn pull_image_owned(&self, name: String) -> runtime::Result<runtime::ImageId>;
}

impl PullOwned for runtime::Native {
    async fn pull_image_owned(&self, name: String) -> runtime::Result<runtime::ImageId> {
        self.pull_image(&name, RegistryAuth::Anonymous, None).await
    }
}
