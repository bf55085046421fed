//! A registry that misbehaves on demand: cuts connections, wants tokens, sends other bytes than it
//! promised, holds images for other machines.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use runtime::{Error, RegistryAuth, Runtime};
use serde_json::json;

use crate::rig::{Rig, busybox_layer, sha256};

crate::tests!(
    broken_connections_are_continued,
    bearer_tokens,
    other_bytes_than_promised,
    images_for_other_machines,
    registry_words,
);

/// What the registry does wrong.
#[derive(Clone, Copy, Default)]
struct Manners {
    /// Close the connection after so many bytes of a blob, each time.
    cut_after: Option<usize>,
    /// Want a token from `/token`, given for user and password.
    bearer: bool,
    /// Change a byte of every layer.
    corrupt: bool,
    /// Answer everything with this status and body.
    refuse: Option<(u16, &'static str)>,
}

struct Fake {
    port: u16,
    ranges: Arc<Mutex<Vec<String>>>,
    requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

type Blobs = HashMap<String, Vec<u8>>;

impl Fake {
    fn start(blobs: Blobs, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake =
            Self { port, ranges: Arc::default(), requests: Arc::default(), stop: Arc::default() };
        let (blobs, ranges) = (Arc::new(blobs), fake.ranges.clone());
        let (requests, stop) = (fake.requests.clone(), fake.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                requests.fetch_add(1, Ordering::Relaxed);
                let (blobs, ranges) = (blobs.clone(), ranges.clone());
                std::thread::spawn(move || serve(stream, port, &blobs, manners, &ranges));
            }
        });
        fake
    }

    fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(mut stream: &TcpStream, status: &str, headers: &str, body: &[u8], send: usize) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..body.len().min(send)]);
}

/// One request on one connection.
fn serve(
    stream: TcpStream,
    port: u16,
    blobs: &Blobs,
    manners: Manners,
    ranges: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers: HashMap<String, String> = lines
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned())))
        .collect();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let authorization = headers.get("authorization").map_or("", |v| v.as_str());
    if let Some((status, body)) = manners.refuse {
        return answer(&stream, &format!("{status} x"), "", body.as_bytes(), usize::MAX);
    }
    if path.starts_with("/token") {
        // user:secret
        let known = authorization == "Basic dXNlcjpzZWNyZXQ=";
        let body =
            if known { r#"{"token":"let-me-in"}"# } else { r#"{"details":"wrong password"}"# };
        let status = if known { "200 OK" } else { "401 Unauthorized" };
        return answer(&stream, status, "", body.as_bytes(), usize::MAX);
    }
    if manners.bearer && authorization != "Bearer let-me-in" {
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"fake\"\r\n"
        );
        return answer(&stream, "401 Unauthorized", &challenge, b"{}", usize::MAX);
    }
    if path == "/v2/" {
        return answer(&stream, "200 OK", "", b"{}", usize::MAX);
    }
    let key = path.rsplit('/').next().unwrap_or_default();
    let Some(blob) = blobs.get(key) else {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such thing"}]}"#;
        return answer(&stream, "404 Not Found", "", body, usize::MAX);
    };
    let mut body = blob.clone();
    let large = body.len() > 100_000;
    if large && manners.corrupt {
        body[50_000] ^= 1;
    }
    let send = if large { manners.cut_after.unwrap_or(usize::MAX) } else { usize::MAX };
    match headers.get("range") {
        Some(range) if large => {
            ranges.lock().unwrap().push(range.clone());
            let from: usize =
                range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
            answer(&stream, "206 Partial Content", "", &body[from..], send);
        }
        _ => answer(&stream, "200 OK", "", &body, send),
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// Blobs of one image with one layer, its manifest under its digest and `1`.
fn image() -> (Blobs, String) {
    let layer = busybox_layer();
    let packed = zstd::encode_all(layer.as_slice(), 1).unwrap();
    let config = json!({
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
                    "digest": digest(&packed), "size": packed.len()}],
    })
    .to_string()
    .into_bytes();
    let id = digest(&config);
    let blobs = [
        (digest(&packed), packed),
        (id.clone(), config),
        (digest(&manifest), manifest.clone()),
        ("1".to_owned(), manifest),
    ];
    (blobs.into(), id)
}

async fn pull(rig: &Rig, name: &str) -> runtime::Result<runtime::ImageId> {
    rig.native.pull_image(name, RegistryAuth::Anonymous, None).await
}

async fn broken_connections_are_continued() {
    let rig = Rig::empty().await;
    let (blobs, id) = image();
    let size = blobs.values().map(Vec::len).max().unwrap();
    // Two breaks, then the rest.
    let manners = Manners { cut_after: Some(size * 2 / 5), ..Manners::default() };
    let fake = Fake::start(blobs, manners);
    assert_eq!(pull(&rig, &fake.name("a/b:1")).await.unwrap().0, id);
    let ranges = fake.ranges.lock().unwrap().clone();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    assert!(ranges.iter().all(|r| r.starts_with("bytes=") && r.ends_with('-')), "{ranges:?}");
    // What is here is not fetched again.
    let before = fake.requests.load(Ordering::Relaxed);
    pull(&rig, &fake.name("a/b:1")).await.unwrap();
    let more = fake.requests.load(Ordering::Relaxed) - before;
    assert!(more <= 4, "{more} requests");
}

async fn bearer_tokens() {
    let rig = Rig::empty().await;
    let (blobs, id) = image();
    let fake = Fake::start(blobs, Manners { bearer: true, ..Manners::default() });
    let name = fake.name("a/b:1");
    assert!(pull(&rig, &name).await.is_err());
    let auth = RegistryAuth::Basic { username: "user".into(), password: "secret".into() };
    assert_eq!(rig.native.pull_image(&name, auth, None).await.unwrap().0, id);
}

async fn other_bytes_than_promised() {
    let rig = Rig::empty().await;
    let (blobs, _) = image();
    let fake = Fake::start(blobs.clone(), Manners { corrupt: true, ..Manners::default() });
    let error = pull(&rig, &fake.name("a/b:1")).await.unwrap_err();
    assert!(matches!(error, Error::Pull { .. }), "{error:?}");
    let mut blobs = blobs;
    let manifest = blobs["1"].clone();
    blobs.insert(digest(b"something else"), manifest);
    let fake = Fake::start(blobs, Manners::default());
    let name = fake.name(&format!("a/b@{}", digest(b"something else")));
    assert!(pull(&rig, &name).await.is_err());
    assert!(rig.native.list_images().await.unwrap().is_empty());
    let left = std::fs::read_dir(rig.config.root.join("images/layers")).unwrap().count();
    assert_eq!(left, 0, "half a layer was left");
}

async fn images_for_other_machines() {
    let rig = Rig::empty().await;
    let (mut blobs, id) = image();
    let ours = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let manifest = digest(&blobs["1"]);
    let index = |entries: &[(&str, &str)]| {
        let all: Vec<_> = entries
            .iter()
            .map(|(digest, architecture)| {
                json!({"digest": digest, "size": 1,
                       "platform": {"os": "linux", "architecture": architecture}})
            })
            .collect();
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
               "manifests": all})
        .to_string()
        .into_bytes()
    };
    let absent = digest(b"absent");
    let both = index(&[(&absent, "s390x"), (&manifest, ours)]);
    let target = digest(&both);
    blobs.insert("both".into(), both);
    blobs.insert("other".into(), index(&[(&absent, "s390x")]));
    let fake = Fake::start(blobs, Manners::default());
    assert_eq!(pull(&rig, &fake.name("a/b:both")).await.unwrap().0, id);
    let info = rig.native.image_status(&fake.name("a/b:both")).await.unwrap().unwrap();
    assert!(info.digests[0].ends_with(&target), "the index's digest names it: {info:?}");
    let error = pull(&rig, &fake.name("a/b:other")).await.unwrap_err();
    assert!(error.to_string().contains("no match for platform in manifest"), "{error}");
}

async fn registry_words() {
    let rig = Rig::empty().await;
    let (blobs, _) = image();
    let fake = Fake::start(blobs, Manners::default());
    let error = pull(&rig, &fake.name("a/b:2")).await.unwrap_err().to_string();
    assert!(error.contains("manifest unknown: no such thing"), "{error}");
    let limit =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your limit"}]}"#;
    for (status, body, want) in [
        (429, limit, "You have reached your limit"),
        (503, "out for lunch", "out for lunch"),
        (403, r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#, "not for you"),
    ] {
        let fake = Fake::start(
            Blobs::new(),
            Manners { refuse: Some((status, body)), ..Manners::default() },
        );
        let error = pull(&rig, &fake.name("a/b:1")).await.unwrap_err();
        assert!(error.to_string().contains(want), "{status}: {error}");
    }
}
