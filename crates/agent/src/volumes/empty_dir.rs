//! `emptyDir`, and mounting and unmounting in general.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::ownership;
use crate::quantity;

/// The mode of a volume that any of a pod's users may write to.
const EVERYBODY: u32 = 0o777;

/// Makes the directory, on a tmpfs if the medium is memory.
pub fn set_up(
    path: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("making {}: {error}", path.display());
    if path.join(".").exists()
        && (source.medium.as_deref() != Some("Memory") || is_mount_point(path))
    {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(failed)?;
    if source.medium.as_deref() == Some("Memory") {
        let limit = source.size_limit.as_ref().map(quantity::units).filter(|bytes| *bytes > 0);
        let options = limit.map(|bytes| format!("size={bytes}")).unwrap_or_default();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|e| failed(e.into()))?;
    }
    // A tmpfs is open to everybody and sticky already, and stays so.
    let permissions = fs::metadata(path).map_err(failed)?.permissions();
    if permissions.mode() & EVERYBODY != EVERYBODY {
        fs::set_permissions(path, fs::Permissions::from_mode(EVERYBODY)).map_err(failed)?;
    }
    match group {
        Some(group) => ownership::give(path, group).map_err(failed),
        None => Ok(()),
    }
}

/// Makes sure that `path` is a tmpfs: mounts one if it is not.
pub fn ensure_tmpfs(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if is_mount_point(path) {
        return Ok(());
    }
    // `noswap` keeps Secrets off the swap device where the kernel (6.4) knows it.
    let try_with = |options: &str| {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))
    };
    try_with("mode=0755,noswap").or_else(|_| try_with("mode=0755")).map_err(io::Error::from)
}

/// The mount points at and below `dir`, deepest last, by the kernel's own list.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    Ok(points.map(PathBuf::from).filter(|point| point.starts_with(&dir)).collect())
}

/// Space, tab, newline and backslash stand as octal numbers in the kernel's list.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// True if something is mounted exactly at `path`.
pub fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    mounts_below(&path).is_ok_and(|points| points.contains(&path))
}

/// Unmounts everything at and below `dir`, deepest first.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    for point in mounts_below(dir)?.iter().rev() {
        umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}
