//! `subPath`: one file or directory of a volume. A container that writes to the volume could
//! put a symbolic link there that leads out of it, so the path is resolved by the kernel
//! within the volume, and what was found is bound to a place that nobody else can change.

use std::fs;
use std::io;
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
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
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

/// Opens `sub` within `root`, where links are followed but cannot lead out.
fn resolve(root: &Path, sub: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let dir = open(root, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(&dir, sub, how) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(io::Error::from),
    }
    let mut at = dir;
    for part in Path::new(sub).components().filter(|part| matches!(part, Component::Normal(_))) {
        let name: &Path = part.as_ref();
        match nix::sys::stat::mkdirat(&at, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = openat2(&at, name, how)?;
    }
    Ok(at)
}
