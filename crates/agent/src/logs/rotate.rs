//! Keeping log files small: a file that has grown too long is moved aside and opened anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::{ContainerFilter, ContainerState};

use crate::context::Context;

/// Rotates the logs of all running containers that need it.
pub async fn rotate_all(ctx: &Context) {
    let filter = ContainerFilter { state: Some(ContainerState::Running), ..ContainerFilter::default() };
    for info in ctx.runtime.list_containers(filter).await.unwrap_or_default() {
        let Ok(status) = ctx.runtime.container_status(&info.id).await else { continue };
        let Some(path) = status.log_path else { continue };
        let long = fs::metadata(&path).is_ok_and(|meta| meta.len() > ctx.config.log_max_bytes);
        if !long {
            continue;
        }
        let moved = move_aside(&path, ctx.config.log_max_files as usize);
        let opened = match moved {
            Ok(()) => ctx.runtime.reopen_log(&info.id).await.map_err(|e| base::chain(&e).to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = opened {
            tracing::warn!(path = %path.display(), error, "log not rotated");
        }
    }
}

/// Renames `path` with the time, and removes the oldest of more than `keep` files.
fn move_aside(path: &Path, keep: usize) -> io::Result<()> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{stamp}"));
    fs::rename(path, PathBuf::from(name))?;
    let rotated = rotated(path)?;
    let excess = (rotated.len() + 1).saturating_sub(keep.max(1));
    rotated.iter().take(excess).try_for_each(fs::remove_file)
}

/// Files that were moved aside, oldest first.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

/// Removes a log with all that was moved aside.
pub fn remove_all(path: Option<&Path>) {
    let Some(path) = path else { return };
    let all = rotated(path).unwrap_or_default().into_iter().chain([path.to_owned()]);
    for file in all {
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(path = %file.display(), %error, "log not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for name in ["0.log.20260101-000000", "0.log.20260102-000000", "0.log", "1.log"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        move_aside(&path, 3).unwrap();
        let left = rotated(&path).unwrap();
        assert_eq!(left.len(), 2);
        assert!(left[0].ends_with("0.log.20260102-000000") && dir.path().join("1.log").exists());
        remove_all(Some(&path));
        assert!(rotated(&path).unwrap().is_empty());
    }
}
