//! Layers: from a tar stream to a folder that overlayfs can use.
//!
//! Every entry is placed by descriptors resolved inside the layer's folder (`openat2` with
//! `RESOLVE_IN_ROOT`), so that no link in a hostile archive leads outside. A whiteout becomes a
//! 0:0 character device, an opaque folder gets overlayfs's extended attribute.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

/// Most entries in one layer: a bound for hostile archives.
const ENTRY_LIMIT: usize = 2_000_000;
/// Longest zstd window accepted, as a power of two (128 MiB, zstd's own default limit).
const ZSTD_WINDOW_LOG_LIMIT: u32 = 27;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Hashes what is read through it.
pub struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R> Hashing<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// `sha256:...` of what was read.
    pub fn digest(self) -> String {
        digest_text(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// `sha256:` and lower-case hexadecimal digits.
pub fn digest_text(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Opens a stream that may be gzip, zstd or plain, told by its first bytes: media types lie.
///
/// # Errors
/// The stream's own, or a broken header.
pub fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let head = io::BufRead::fill_buf(&mut stream)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_LIMIT)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(stream))
}

/// What a layer's stream turned out to be.
pub struct Unpacked {
    /// Digest of the stream as it came.
    pub digest: String,
    /// Digest of the plain tar archive.
    pub diff_id: String,
    /// Bytes of its files.
    pub content: u64,
    /// Its files and folders.
    pub inodes: u64,
}

/// Unpacks a layer into an existing empty folder and flushes the file system.
///
/// # Errors
/// The stream's or the file system's; the folder is then to be thrown away.
pub fn layer(stream: impl Read, folder: &Path) -> io::Result<Unpacked> {
    let mut raw = Hashing::new(stream);
    let mut plain = Hashing::new(decompress(&mut raw)?);
    let root = Root::open(folder)?;
    let (mut content, mut inodes) = (0, 0);
    {
        let mut archive = Archive::new(&mut plain);
        for (count, entry) in archive.entries()?.enumerate() {
            if count == ENTRY_LIMIT {
                return Err(invalid("the layer has too many entries"));
            }
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            content += entry.size();
            inodes += 1;
            root.place(&mut entry, &path)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        }
    }
    // What follows the archive's end still counts for the digests.
    io::copy(&mut plain, &mut io::sink())?;
    let diff_id = plain.digest();
    io::copy(&mut raw, &mut io::sink())?;
    // SAFETY: plain system call on a descriptor that lives.
    if unsafe { libc::syncfs(root.fd.as_raw_fd()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Unpacked { digest: raw.digest(), diff_id, content, inodes })
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A folder that nothing named relative to it can leave.
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { fd: File::open(folder)?.into() })
    }

    fn place<R: Read>(&self, entry: &mut tar::Entry<'_, R>, path: &Path) -> io::Result<()> {
        let Some((parent, name)) = split(path)? else {
            // The root itself: only its owner and mode are of interest.
            return self.finish(entry, self.fd.as_raw_fd(), c".", false);
        };
        let parent = self.folder(&parent)?;
        let at = parent.as_raw_fd();
        if name.as_bytes() == OPAQUE {
            return set_xattr(at, c"trusted.overlay.opaque", b"y");
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            let hidden = CString::new(hidden)?;
            remove(at, &hidden)?;
            // SAFETY: plain system call with a path that lives.
            return check(unsafe { libc::mknodat(at, hidden.as_ptr(), libc::S_IFCHR, 0) });
        }
        let name = CString::new(name.as_bytes())?;
        self.make(entry, at, &name)
    }

    fn make<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        at: RawFd,
        name: &CString,
    ) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let device = || -> io::Result<libc::dev_t> {
            let header = entry.header();
            let major = header.device_major()?.unwrap_or(0);
            let minor = header.device_minor()?.unwrap_or(0);
            Ok(libc::makedev(major, minor))
        };
        let node = |kind: libc::mode_t, device: libc::dev_t| {
            // SAFETY: plain system call with a path that lives.
            check(unsafe { libc::mknodat(at, name.as_ptr(), kind | 0o600, device) })
        };
        if kind != EntryType::Directory {
            remove(at, name)?;
        }
        match kind {
            EntryType::Directory => make_folder(at, name)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = libc::O_CREAT
                    | libc::O_EXCL
                    | libc::O_WRONLY
                    | libc::O_NOFOLLOW
                    | libc::O_CLOEXEC;
                // SAFETY: plain system call; the new descriptor is ours.
                let mut file = unsafe {
                    let fd = libc::openat(at, name.as_ptr(), flags, 0o600);
                    check(fd)?;
                    File::from_raw_fd(fd)
                };
                io::copy(entry, &mut file)?;
                file.flush()?;
            }
            EntryType::Symlink => {
                let target = link_target(entry)?;
                // SAFETY: plain system call with strings that live.
                check(unsafe { libc::symlinkat(target.as_ptr(), at, name.as_ptr()) })?;
            }
            EntryType::Link => return self.link(entry, at, name),
            EntryType::Char => node(libc::S_IFCHR, device()?)?,
            EntryType::Block => node(libc::S_IFBLK, device()?)?,
            EntryType::Fifo => node(libc::S_IFIFO, 0)?,
            // Headers for the whole archive and vendors' own types carry no file.
            _ => return Ok(()),
        }
        self.finish(entry, at, name, kind == EntryType::Symlink)
    }

    fn link<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        at: RawFd,
        name: &CString,
    ) -> io::Result<()> {
        let target = entry.link_name()?.ok_or_else(|| invalid("a hard link without a target"))?;
        let (parent, file) = split(&target)?.ok_or_else(|| invalid("a hard link to the root"))?;
        let parent = self.folder(&parent)?;
        let file = CString::new(file.as_bytes())?;
        // SAFETY: plain system call with strings that live; links are not followed.
        check(unsafe { libc::linkat(parent.as_raw_fd(), file.as_ptr(), at, name.as_ptr(), 0) })
    }

    /// Owner, mode, extended attributes and time, in the order that keeps set-uid bits and
    /// capabilities.
    fn finish<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        at: RawFd,
        name: &std::ffi::CStr,
        symlink: bool,
    ) -> io::Result<()> {
        let header = entry.header();
        let (uid, gid) = (header.uid()? as libc::uid_t, header.gid()? as libc::gid_t);
        let (mode, mtime) = (header.mode()? & 0o7777, header.mtime().unwrap_or(0));
        // SAFETY: plain system calls with strings and structures that live.
        unsafe {
            check(libc::fchownat(at, name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW))?;
            if !symlink {
                check(libc::fchmodat(at, name.as_ptr(), mode as libc::mode_t, 0))?;
            }
            let time = libc::timespec { tv_sec: mtime as _, tv_nsec: 0 };
            let times = [time, time];
            check(libc::utimensat(at, name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW))?;
        }
        if symlink {
            return Ok(());
        }
        let mut attributes = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(key) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.".as_slice()) {
                    attributes.push((CString::new(key)?, extension.value_bytes().to_vec()));
                }
            }
        }
        for (key, value) in attributes {
            // overlayfs's own attributes must not come from an image.
            if !key.as_bytes().starts_with(b"trusted.") {
                let path = Path::new("/proc/self/fd")
                    .join(at.to_string())
                    .join(OsStr::from_bytes(name.to_bytes()));
                set_path_xattr(&path, &key, &value)?;
            }
        }
        Ok(())
    }

    /// Opens a folder inside, making what is missing on the way.
    pub fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.resolve(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut made = PathBuf::new();
        for part in path.components() {
            let parent = self.resolve(&made)?;
            made.push(part);
            let name = CString::new(part.as_os_str().as_bytes())?;
            if self.resolve(&made).is_err() {
                make_folder(parent.as_raw_fd(), &name)?;
            }
        }
        self.resolve(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let c = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the structure is zeroed and then filled as openat2 wants; the path lives; the
        // new descriptor is ours.
        unsafe {
            let mut how: libc::open_how = std::mem::zeroed();
            how.flags = (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
            how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
            let fd = libc::syscall(
                libc::SYS_openat2,
                self.fd.as_raw_fd(),
                c.as_ptr(),
                &how,
                std::mem::size_of::<libc::open_how>(),
            );
            check(fd as i32)?;
            Ok(OwnedFd::from_raw_fd(fd as RawFd))
        }
    }
}

/// Parent and name of an entry's path, cleaned of `.` and leading slashes; none for the root.
fn split(path: &Path) -> io::Result<Option<(PathBuf, std::ffi::OsString)>> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(invalid("a path with ..")),
        }
    }
    let Some(name) = parts.file_name().map(OsStr::to_owned) else { return Ok(None) };
    parts.pop();
    Ok(Some((parts, name)))
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<CString> {
    let bytes = entry.link_name_bytes().ok_or_else(|| invalid("a link without a target"))?;
    Ok(CString::new(bytes.into_owned())?)
}

fn make_folder(at: RawFd, name: &CString) -> io::Result<()> {
    // SAFETY: plain system calls with a path and a structure that live.
    unsafe {
        if libc::mkdirat(at, name.as_ptr(), 0o755) == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstatat(at, name.as_ptr(), &mut stat, libc::AT_SYMLINK_NOFOLLOW))?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return Ok(());
        }
        check(libc::unlinkat(at, name.as_ptr(), 0))?;
        check(libc::mkdirat(at, name.as_ptr(), 0o755))
    }
}

/// Removes what an entry replaces. A folder goes with all that is in it.
fn remove(at: RawFd, name: &CString) -> io::Result<()> {
    // SAFETY: plain system call with a path that lives.
    if unsafe { libc::unlinkat(at, name.as_ptr(), 0) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(()),
        Some(libc::EISDIR) => {
            let parent = format!("/proc/self/fd/{at}");
            std::fs::remove_dir_all(Path::new(&parent).join(OsStr::from_bytes(name.to_bytes())))
        }
        _ => Err(error),
    }
}

fn set_xattr(fd: RawFd, key: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: plain system call with buffers that live.
    check(unsafe { libc::fsetxattr(fd, key.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

fn set_path_xattr(path: &Path, key: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: plain system call with buffers that live.
    let result = check(unsafe {
        libc::lsetxattr(path.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    });
    match result {
        // A file system without them (or a key it does not know) still gives a usable file.
        Err(e) if e.raw_os_error() == Some(libc::ENOTSUP) => Ok(()),
        other => other,
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
