//! Files that are either whole or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes a file so that after a crash it holds the old content or the new one: into a
/// neighbour, synced, renamed over, and the folder synced. `mode` is its permissions from the
/// first byte on.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // One left by a crash may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder_of(path))?.sync_all()
}

/// The folder that a file is in; a bare name is in the one that the process works in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder and its parents; the folder is open to its owner only where `private`.
pub fn make_folder(path: &Path, private: bool) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(if private { 0o700 } else { 0o755 }).create(path)
}

/// Writes a file unless it holds this very content already: a start that changes nothing must
/// not wear out a card.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match fs::read(path).is_ok_and(|present| present == content) {
        true => Ok(()),
        false => write_atomically(path, content, mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_folder_that_the_process_works_in() {
        for (path, folder) in [("kubeconfig", "."), ("a/kubeconfig", "a"), ("/kubeconfig", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
        let name = format!("kubeconfig.{}", std::process::id());
        let written = write_atomically(Path::new(&name), b"text", 0o600);
        let found = fs::read(&name);
        let _ = fs::remove_file(&name);
        written.expect("written");
        assert_eq!(found.expect("read"), b"text");
    }
}
