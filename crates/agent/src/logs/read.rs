//! Reading the log of a container: all of it or its tail, and following it. The kernel tells of
//! changes (inotify on the folder); a file that was moved aside is read to its end before the
//! new one is begun.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::line::{Printer, Show};
use super::rotate::rotated;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// A line longer than this is handed on in pieces, in bytes: the shim splits far below.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What is wanted of a log.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which lines, and how.
    pub show: Show,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Go on until the container ends.
    pub follow: bool,
}

/// Sends what `path` has to say into `out`; with `follow` until `ended` is cancelled and all has
/// been read. Ends early when nobody listens any more.
pub async fn read(
    path: &Path,
    request: Request,
    ended: CancellationToken,
    out: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    // The watch comes first, or a line between the last read and the watch would be missed.
    let changes = match request.follow {
        true => Some(Changes::new(path.parent().unwrap_or(Path::new("/")))?),
        false => None,
    };
    let mut printer = Printer::new(request.show.clone());
    let mut files = files(path)?;
    let Some((first, offset)) = start(&files, request.tail)? else {
        return Ok(());
    };
    files.drain(..first);
    let mut reader = Reader::open(&files[0], offset)?;
    for next in &files[1..] {
        if !reader.drain(&mut printer, &out).await? {
            return Ok(());
        }
        reader = Reader::open(next, 0)?;
    }
    loop {
        // Whether it had ended has to be known before the last read, not after.
        let over = ended.is_cancelled();
        if !reader.drain(&mut printer, &out).await? {
            return Ok(());
        }
        if let Some(next) = reader.successor(path)? {
            reader.drain(&mut printer, &out).await?;
            reader = next;
            continue;
        }
        let Some(changes) = changes.as_ref().filter(|_| !over) else { return Ok(()) };
        tokio::select! {
            result = changes.wait() => result?,
            () = ended.cancelled() => {}
            () = out.closed() => return Ok(()),
        }
    }
}

/// The parts of a log, oldest first, the present file last.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = rotated(path)?;
    if path.exists() {
        files.push(path.to_owned());
    }
    Ok(files)
}

/// Where to begin: the file's index and the offset in it; `None` when there is nothing.
fn start(files: &[PathBuf], tail: Option<u64>) -> io::Result<Option<(usize, u64)>> {
    if files.is_empty() {
        return Ok(None);
    }
    let Some(mut wanted) = tail else { return Ok(Some((0, 0))) };
    for (index, path) in files.iter().enumerate().rev() {
        let (offset, found) = last_lines(path, wanted)?;
        wanted -= found;
        if wanted == 0 || index == 0 {
            return Ok(Some((index, offset)));
        }
    }
    Ok(Some((0, 0)))
}

/// The offset at which the last `wanted` lines of a file begin, and how many there are.
fn last_lines(path: &Path, wanted: u64) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if wanted == 0 {
        return Ok((length, 0));
    }
    let mut end = length;
    let mut found = 0;
    let mut buffer = vec![0; CHUNK_BYTES];
    while end > 0 {
        let begin = end.saturating_sub(CHUNK_BYTES as u64);
        let part = &mut buffer[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        for at in (0..part.len()).rev() {
            let position = begin + at as u64;
            if part[at] == b'\n' && position + 1 < length {
                found += 1;
                if found == wanted {
                    return Ok((position + 1, found));
                }
            }
        }
        end = begin;
    }
    // The first line of a file has no newline before it.
    Ok((0, if length > 0 { found + 1 } else { found }))
}

/// An open part of a log.
struct Reader {
    file: File,
    inode: u64,
    rest: Vec<u8>,
}

impl Reader {
    fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let inode = file.metadata()?.ino();
        Ok(Reader { file, inode, rest: Vec::new() })
    }

    /// Reads to the present end; false when nobody wants more.
    async fn drain(
        &mut self,
        printer: &mut Printer,
        out: &mpsc::Sender<Bytes>,
    ) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let n = self.file.read(&mut buffer)?;
            if n == 0 {
                return Ok(true);
            }
            self.rest.extend_from_slice(&buffer[..n]);
            let mut text = Vec::new();
            let mut begin = 0;
            while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
                printer.print(&self.rest[begin..begin + length], &mut text);
                begin += length + 1;
            }
            self.rest.drain(..begin);
            if self.rest.len() > MAX_LINE_BYTES {
                printer.print(&std::mem::take(&mut self.rest), &mut text);
            }
            if !text.is_empty() && out.send(text.into()).await.is_err() {
                return Ok(false);
            }
            if printer.full() {
                return Ok(false);
            }
        }
    }

    /// The file that has taken this one's place.
    fn successor(&self, path: &Path) -> io::Result<Option<Reader>> {
        match fs::metadata(path) {
            Ok(meta) if meta.ino() != self.inode => Reader::open(path, 0).map(Some),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The kernel's word on changes in a folder.
struct Changes {
    inotify: Inotify,
    /// The same descriptor once more: tokio waits on it.
    ready: AsyncFd<OwnedFd>,
}

impl Changes {
    fn new(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(dir, flags)?;
        let twin = inotify.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open until it is dropped and always names the same descriptor;
        // the `AsyncFd` owns it. There is no safe constructor any more.
        let ready = unsafe { AsyncFd::register_with_interest(twin, Interest::READABLE) }?;
        Ok(Changes { inotify, ready })
    }

    async fn wait(&self) -> io::Result<()> {
        loop {
            let mut guard = self.ready.readable().await?;
            match guard.try_io(|_| self.inotify.read_events().map_err(io::Error::from)) {
                Ok(result) => return result.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn line(text: &str) -> String {
        format!("2026-01-01T00:00:00Z stdout F {text}\n")
    }

    async fn collect(mut from: mpsc::Receiver<Bytes>) -> String {
        let mut out = String::new();
        while let Some(bytes) = from.recv().await {
            out.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        out
    }

    async fn read_all(path: &Path, tail: Option<u64>) -> String {
        let (sender, receiver) = mpsc::channel(16);
        let request = Request { tail, ..Request::default() };
        read(path, request, CancellationToken::new(), sender).await.unwrap();
        collect(receiver).await
    }

    #[tokio::test]
    async fn tails_reach_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(dir.path().join("0.log.1"), line("a") + &line("b")).unwrap();
        fs::write(&path, line("c") + &line("d")).unwrap();
        for (tail, want) in [
            (None, "a\nb\nc\nd\n"),
            (Some(0), ""),
            (Some(1), "d\n"),
            (Some(2), "c\nd\n"),
            (Some(3), "b\nc\nd\n"),
            (Some(9), "a\nb\nc\nd\n"),
        ] {
            assert_eq!(read_all(&path, tail).await, want, "{tail:?}");
        }
    }

    #[tokio::test]
    async fn following_goes_through_a_rotation_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(line("a").as_bytes()).unwrap();
        let (sender, mut receiver) = mpsc::channel(16);
        let ended = CancellationToken::new();
        let request = Request { follow: true, ..Request::default() };
        let (read_path, token) = (path.clone(), ended.clone());
        let task = tokio::spawn(async move { read(&read_path, request, token, sender).await });
        let mut next = async || {
            let next = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await;
            next.expect("a line in time").map(|b| String::from_utf8(b.to_vec()).unwrap())
        };
        assert_eq!(next().await.as_deref(), Some("a\n"));
        file.write_all(line("b").as_bytes()).unwrap();
        assert_eq!(next().await.as_deref(), Some("b\n"));
        fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        file.write_all(line("c").as_bytes()).unwrap();
        fs::write(&path, line("d")).unwrap();
        assert_eq!(next().await.as_deref(), Some("c\n"));
        assert_eq!(next().await.as_deref(), Some("d\n"));
        ended.cancel();
        assert_eq!(next().await, None);
        task.await.unwrap().unwrap();
    }
}
