//! Small files that a board cannot do without (keys, passwords, what it knows of its cluster):
//! each is kept twice, and what a power cut or a bad card has made of one is mended from the other.
//!
//! The copy begins with the digest of what follows; the file itself stays what people and other
//! programs expect. The copy is written first, so where both are whole but differ, it is the newer
//! one. A digest inside the file was turned down: it would say that the file is torn, and no more.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::files;

/// What the copy is called: the file's name, followed by this.
const COPY: &str = ".copy";
/// Bytes of the digest that the copy begins with.
const SUM_BYTES: usize = 32;
/// Most of them are secret.
const MODE: u32 = 0o600;

/// Writes a file and its copy, each so that after a crash it is the old one or the new one.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut copy = Sha256::digest(content).to_vec();
    copy.extend_from_slice(content);
    files::write_if_changed(&copy_of(path), &copy, MODE)?;
    files::write_if_changed(path, content, MODE)
}

/// Reads a file; none where there is none. A file that is not what was written is mended, which is
/// said in the log.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let found = unless_absent(fs::read(path))?;
    let copy = copy_of(path);
    let kept = unless_absent(fs::read(&copy))?;
    let content = match (kept.as_deref().map(verified), found) {
        (Some(Some(content)), Some(found)) if content == found => return Ok(Some(found)),
        (Some(Some(content)), found) => {
            let found =
                found.map_or_else(|| "is gone".into(), |f| format!("has {} bytes", f.len()));
            tracing::error!(
                "{} is not what was written (it {found}); it is mended from its verified copy {}",
                path.display(),
                copy.display()
            );
            content.to_vec()
        }
        (Some(None), Some(found)) => {
            tracing::error!(
                "the copy {} is damaged; it is made anew from {}",
                copy.display(),
                path.display()
            );
            found
        }
        (None, Some(found)) => found,
        (_, None) => return Ok(None),
    };
    // What is known is of use also where the disk is full.
    if let Err(error) = write(path, &content) {
        tracing::error!(%error, "{} was not mended", path.display());
    }
    Ok(Some(content))
}

/// Removes a file and its copy.
pub fn remove(path: &Path) -> io::Result<()> {
    for path in [copy_of(path), path.to_owned()] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Moves a file that nobody can read out of the way, and removes its copy.
pub fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    fs::rename(path, aside)?;
    remove(path)
}

/// The verified copy of a file.
pub fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(COPY);
    name.into()
}

/// What the copy holds, if that is what was written.
fn verified(copy: &[u8]) -> Option<&[u8]> {
    let (sum, content) = copy.split_at_checked(SUM_BYTES)?;
    (Sha256::digest(content)[..] == *sum).then_some(content)
}

fn unless_absent(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_of_the_two_may_be_torn_in_any_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        assert_eq!(read(&path).expect("nothing there"), None);
        write(&path, b"secret").expect("written");
        let copy = fs::read(copy_of(&path)).expect("a copy");
        let mut altered = copy.clone();
        altered[SUM_BYTES] ^= 1;
        type Content<'a> = Option<&'a [u8]>;
        let states: [(&str, Content<'_>, Content<'_>); 9] = [
            ("whole", Some(b"secret"), Some(&copy)),
            ("emptied", Some(b""), Some(&copy)),
            ("cut", Some(b"sec"), Some(&copy)),
            ("altered", Some(b"secreT"), Some(&copy)),
            ("removed", None, Some(&copy)),
            ("the copy emptied", Some(b"secret"), Some(b"")),
            ("the copy cut", Some(b"secret"), Some(&copy[..20])),
            ("the copy altered", Some(b"secret"), Some(&altered)),
            ("the copy removed", Some(b"secret"), None),
        ];
        for (state, content, of_copy) in states {
            for (path, content) in [(path.clone(), content), (copy_of(&path), of_copy)] {
                match content {
                    Some(content) => fs::write(path, content).expect("written"),
                    None => fs::remove_file(path).expect("removed"),
                }
            }
            let content = read(&path).expect("read");
            assert_eq!(content.as_deref(), Some(&b"secret"[..]), "{state}");
            assert_eq!(fs::read(&path).expect("mended"), b"secret", "{state}");
            assert_eq!(fs::read(copy_of(&path)).expect("mended"), copy, "{state}");
        }
    }
}
