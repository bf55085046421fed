//! `/logs/`: the board's own logs, as files.
//!
//! Pods with a volume at `/var/log` may put links there, so the kernel is told to follow none that
//! leads out (upstream's kubelet follows them).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tokio::io::AsyncReadExt;

use super::{Body, full, text};

/// A file is sent in pieces of so many bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Names that a listing has at most.
const MAX_NAMES: usize = 10_000;

/// What is at `path` below `root`: a file's content, or a folder's names as links.
pub fn answer(root: &Path, path: &str) -> Response<Body> {
    let file = match below(root, path) {
        Ok(file) => file,
        Err(nix::Error::EACCES | nix::Error::EXDEV | nix::Error::ELOOP) => {
            return text(StatusCode::FORBIDDEN, "403 Forbidden");
        }
        Err(_) => return text(StatusCode::NOT_FOUND, "404 page not found"),
    };
    match file.metadata() {
        Ok(kind) if kind.is_dir() && !path.is_empty() && !path.ends_with('/') => moved(path),
        Ok(kind) if kind.is_dir() => listing(&file),
        Ok(kind) if kind.is_file() => content(file),
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn below(root: &Path, path: &str) -> nix::Result<File> {
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    // Without waiting for somebody to write into a pipe.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(root, path, OpenHow::new().flags(flags).resolve(resolve)).map(File::from)
}

/// A folder's address ends with a slash, so that its links lead into it.
fn moved(path: &str) -> Response<Body> {
    let last = path.rsplit('/').next().unwrap_or_default();
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{}/", escaped(last))) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn listing(folder: &File) -> Response<Body> {
    // The folder that was opened, wherever a link of its name leads by now.
    let names = std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    let names = names.into_iter().flatten().flatten().take(MAX_NAMES).map(|entry| {
        let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
        format!("{}{slash}", entry.file_name().to_string_lossy())
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    let links =
        names.iter().map(|name| format!("<a href=\"{}\">{}</a>\n", escaped(name), shown(name)));
    let page = format!("<pre>\n{}</pre>\n", links.collect::<String>());
    with_kind(full(page), "text/html; charset=utf-8")
}

fn content(file: File) -> Response<Body> {
    let pieces = stream::try_unfold(tokio::fs::File::from_std(file), |mut file| async {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (Frame::data(piece.freeze()), file)))
    });
    with_kind(StreamBody::new(pieces).boxed_unsync(), "text/plain; charset=utf-8")
}

fn with_kind(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A name as part of an address.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.bytes().map(one).collect()
}

/// A name as text on a page.
fn shown(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(root: &Path, path: &str) -> (u16, String) {
        let response = answer(root, path);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn files_and_folders_and_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("log");
        std::fs::create_dir_all(root.join("a<b")).unwrap();
        std::fs::write(root.join("a<b/c d"), "text").unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
        std::os::unix::fs::symlink("a<b/c d", root.join("in")).unwrap();
        let list = "<pre>\n<a href=\"a%3Cb/\">a&lt;b/</a>\n<a href=\"in\">in</a>\n\
                    <a href=\"out\">out</a>\n</pre>\n";
        assert_eq!(told(&root, "").await, (200, list.to_owned()));
        assert_eq!(told(&root, "a<b/c d").await, (200, "text".to_owned()));
        assert_eq!(told(&root, "in").await, (200, "text".to_owned()));
        assert_eq!(told(&root, "a<b").await.0, 301);
        assert_eq!(told(&root, "gone").await.0, 404);
        for path in ["out", "../secret", "a<b/../../secret", "/etc/passwd"] {
            assert_eq!(told(&root, path).await.0, 403, "{path}");
        }
    }
}
