//! `subPath`: one file or directory of a volume. A container that writes to the volume could
//! put a symbolic link there that leads out of it, so the path is resolved by the kernel
//! within the volume, and what was found is bound to a place that nobody else can change.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

use super::is_mount_point;

/// Binds `sub` of the directory `root` to `target`; makes directories that are missing.
pub fn bind(root: &Path, sub: &str, target: &Path) -> io::Result<()> {
    if Path::new(sub)
        .components()
        .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("subPath {sub:?} leaves the volume"),
        ));
    }
    if is_mount_point(target) {
        return Ok(());
    }
    let found = resolve(root, sub)?;
    let source = by_descriptor(&found);
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        target.parent().map(fs::create_dir_all).transpose()?;
        fs::File::create(target)?;
    }
    mount(
        Some(source.as_str()),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(io::Error::from)
}

/// Reads a file of the directory `root` that has no more than `max` bytes of text.
pub fn read(root: &Path, sub: &str, max: u64) -> io::Result<String> {
    let dir = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY, Mode::empty())?;
    // A pipe that nobody writes to must not keep us.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = fs::File::from(openat2(&dir, sub, beneath(flags))?);
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if !file.metadata()?.is_file() {
        return refused("it is no regular file".to_owned());
    }
    let mut text = String::new();
    if file.take(max + 1).read_to_string(&mut text)? as u64 > max {
        return refused(format!("it has more than {max} bytes"));
    }
    Ok(text)
}

/// How to open what links cannot lead out of.
fn beneath(flags: OFlag) -> OpenHow {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    OpenHow::new().flags(flags).resolve(resolve)
}

/// The path of what is open, wherever it is by now.
fn by_descriptor(open: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", open.as_raw_fd())
}

/// Opens `sub` within `root`, where links are followed but cannot lead out.
fn resolve(root: &Path, sub: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let dir = open(root, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let how = beneath(flags);
    match openat2(&dir, sub, how) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(io::Error::from),
    }
    // What is made is as open as the volume, whoever the container runs as.
    let open_to = fs::metadata(by_descriptor(&dir))?.permissions();
    let mut at = dir;
    for part in Path::new(sub).components().filter(|part| matches!(part, Component::Normal(_))) {
        let name: &Path = part.as_ref();
        let made = match nix::sys::stat::mkdirat(&at, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(error.into()),
        };
        at = openat2(&at, name, how)?;
        if made {
            fs::set_permissions(by_descriptor(&at), open_to.clone())?;
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_short_files_within_the_volume_are_read() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let volume = tempfile::tempdir().unwrap();
        let at = |name: &str| volume.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", at("near")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), at("far")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        let read = |name: &str, max| read(volume.path(), name, max).map_err(|error| error.kind());
        assert_eq!(read("near", 5).as_deref(), Ok("12345"));
        assert_eq!(read("file", 4), Err(io::ErrorKind::InvalidData));
        assert_eq!(read("none", 5), Err(io::ErrorKind::NotFound));
        for name in ["far", "../secret", "pipe", "."] {
            assert!(read(name, 5).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_made_is_as_open_as_the_volume() {
        let volume = tempfile::tempdir().unwrap();
        let mode = |path: &str| {
            let kind = fs::metadata(volume.path().join(path)).unwrap();
            kind.permissions().mode() & 0o7777
        };
        fs::create_dir(volume.path().join("there")).unwrap();
        let there = mode("there");
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        resolve(volume.path(), "new/below").unwrap();
        resolve(volume.path(), "there/new").unwrap();
        assert_eq!(["new", "new/below", "there/new"].map(mode), [0o1777; 3]);
        assert_eq!(mode("there"), there);
    }
}
