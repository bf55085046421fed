//! Files of a log that the runtime has moved aside: `0.log.1` is the newest of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files that were moved aside, oldest first.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number =
            name.to_string_lossy().strip_prefix(&prefix).and_then(|n| n.parse::<u32>().ok());
        out.extend(number.map(|number| (number, entry.path())));
    }
    out.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(out.into_iter().map(|(_, path)| path).collect())
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
    fn the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for name in ["0.log.2", "0.log.10", "0.log.1", "0.log", "0.log.x", "1.log"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names: Vec<_> =
            rotated(&path).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["0.log.10", "0.log.2", "0.log.1"]);
        remove_all(Some(&path));
        assert!(rotated(&path).unwrap().is_empty() && dir.path().join("1.log").exists());
    }
}
