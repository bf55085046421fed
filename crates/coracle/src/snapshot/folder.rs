//! Snapshots in a folder: written beside, read back, and only then given their name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::age::{self, Decrypter, Encrypter};
use super::format::{About, BadSnapshot, Object, Reader, Totals, Writer};
use super::names::{self, Listed};
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;

/// What a file that is being written ends with.
const UNFINISHED: &str = ".part";
/// A folder lists no more; whoever has more keeps other things there.
const MAX_LISTED: usize = 10_000;

/// A snapshot that was taken and read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Taken {
    /// Its file's name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// What it is of.
    pub about: About,
    /// What it holds.
    pub totals: Totals,
}

/// A folder of snapshots.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// Writes a snapshot, reads it back, and gives it its name. What fails leaves nothing.
    pub fn write<'a>(
        &self,
        name: &str,
        about: &About,
        secrets: &[u8],
        passphrase: Option<&str>,
        objects: impl Iterator<Item = ([&'a str; 3], [u64; 2], &'a [u8])>,
    ) -> Outcome<Taken> {
        let path = self.0.join(name);
        if path.exists() {
            return Err(Failure::new(format!("there is a snapshot {} already", path.display()))
                .hint("choose another name"));
        }
        self.clear_unfinished();
        let unfinished = self.0.join(format!("{name}{UNFINISHED}"));
        let written = self.write_at(&unfinished, about, secrets, passphrase, objects);
        let totals = match written {
            Ok(totals) => totals,
            Err(failure) => {
                // On a full disk half a snapshot is in the way; if it stays, the next one clears it.
                let _ = fs::remove_file(&unfinished);
                return Err(failure);
            }
        };
        let doing = || format!("naming the snapshot {}", path.display());
        fs::rename(&unfinished, &path).doing(doing)?;
        File::open(&self.0).and_then(|folder| folder.sync_all()).doing(doing)?;
        let size = fs::metadata(&path).doing(doing)?.len();
        Ok(Taken { name: name.to_owned(), path, size, about: about.clone(), totals })
    }

    fn write_at<'a>(
        &self,
        path: &Path,
        about: &About,
        secrets: &[u8],
        passphrase: Option<&str>,
        objects: impl Iterator<Item = ([&'a str; 3], [u64; 2], &'a [u8])>,
    ) -> Outcome<Totals> {
        let doing = || format!("writing the snapshot {}", path.display());
        let written = files::make_folder(&self.0, true)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))
            .and_then(|file| {
                let out = BufWriter::new(file);
                let (mut out, totals) = match passphrase {
                    None => write_objects(out, about, secrets, objects)?,
                    Some(passphrase) => {
                        let out = Encrypter::new(out, passphrase)?;
                        let (out, totals) = write_objects(out, about, secrets, objects)?;
                        (out.finish()?, totals)
                    }
                };
                out.flush()?;
                out.get_ref().sync_all()?;
                Ok(totals)
            });
        let totals = match written {
            Err(error) if is_full(&error) => {
                return Err(error).doing(doing).hint(|| {
                    format!(
                        "free some space there (`df {}`), or name another folder with \
                         --snapshot-dir",
                        self.0.display()
                    )
                });
            }
            other => other
                .doing(doing)
                .hint(|| "name a folder that can be written with --snapshot-dir".into())?,
        };
        let read = check(path, passphrase)
            .doing(|| format!("reading the snapshot {} back", path.display()))
            .hint(|| "the disk may be failing; name another with --snapshot-dir".into())?;
        match read == (about.clone(), totals.clone()) {
            true => Ok(totals),
            false => Err(Failure::new(format!(
                "the snapshot {} does not read back as it was written",
                path.display()
            ))
            .hint("the disk or the memory may be failing; name another disk with --snapshot-dir")),
        }
    }

    /// What a power cut has left half written. Only one snapshot is taken at a time.
    fn clear_unfinished(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.strip_suffix(UNFINISHED).is_some_and(names::is_snapshot) {
                // If it cannot be removed, writing will say so.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The snapshots, newest first. A folder that is not there has none.
    pub fn list(&self) -> Outcome<Vec<Listed>> {
        let doing = || format!("listing {}", self.0.display());
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(doing)?,
        };
        let mut listed = Vec::new();
        for entry in entries.take(MAX_LISTED) {
            let entry = entry.doing(doing)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !names::is_snapshot(&name) {
                continue;
            }
            // It may have been removed meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            let modified = || Timestamp::try_from(metadata.modified().ok()?).ok();
            listed.push(Listed {
                location: entry.path().display().to_string(),
                size: metadata.len(),
                created: names::created(&name).or_else(modified).unwrap_or_default(),
                encrypted: names::is_encrypted(&name),
                name,
            });
        }
        listed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
        Ok(listed)
    }

    /// Whether a snapshot of this folder can be restored, as far as can be told without its
    /// passphrase.
    pub fn is_good(&self, name: &str, passphrase: Option<&str>) -> bool {
        match check(&self.0.join(name), passphrase) {
            Ok(_) | Err(BadSnapshot::Encrypted) => true,
            // Another passphrase than today's: nothing speaks against the file.
            Err(BadSnapshot::Age(age::AgeError::WrongPassphrase)) => true,
            Err(_) => false,
        }
    }

    /// The same on a thread that may wait for the disk.
    pub async fn look(&self, name: &str, passphrase: Option<&str>) -> Outcome<bool> {
        let (folder, name) = (self.clone(), name.to_owned());
        let passphrase = passphrase.map(str::to_owned);
        let look = move || folder.is_good(&name, passphrase.as_deref());
        tokio::task::spawn_blocking(look).await.doing(|| "reading a snapshot".into())
    }

    /// A file for what is fetched from elsewhere; a power cut leaves it to be cleared.
    pub fn fetched(&self, name: &str) -> Outcome<(PathBuf, File)> {
        let path = self.0.join(format!("fetched-{name}{UNFINISHED}"));
        let doing = || format!("making {}", path.display());
        files::make_folder(&self.0, true).doing(doing)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        Ok((path.clone(), file.doing(doing)?))
    }

    /// Removes a snapshot.
    pub fn remove(&self, name: &str) -> Outcome {
        let path = self.0.join(name);
        fs::remove_file(&path).doing(|| format!("removing {}", path.display()))
    }
}

fn write_objects<'a, W: Write>(
    out: W,
    about: &About,
    secrets: &[u8],
    objects: impl Iterator<Item = ([&'a str; 3], [u64; 2], &'a [u8])>,
) -> io::Result<(W, Totals)> {
    let mut writer = Writer::new(out, about, secrets)?;
    for (key, revisions, value) in objects {
        writer.object(key, revisions, value)?;
    }
    writer.finish()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A snapshot file that is read, encrypted or not.
pub fn open(
    path: &Path,
    passphrase: Option<&str>,
) -> Result<Reader<Box<dyn Read + Send>>, BadSnapshot> {
    let mut file = BufReader::new(File::open(path)?);
    let encrypted = io::BufRead::fill_buf(&mut file)?.starts_with(age::INTRODUCTION.as_bytes());
    match (encrypted, passphrase) {
        (false, _) => Reader::new(Box::new(file) as Box<dyn Read + Send>),
        (true, None) => Err(BadSnapshot::Encrypted),
        (true, Some(passphrase)) => Reader::new(Box::new(Decrypter::new(file, passphrase)?)),
    }
}

/// Reads all of a snapshot file, for its checksums alone.
pub fn check(path: &Path, passphrase: Option<&str>) -> Result<(About, Totals), BadSnapshot> {
    open(path, passphrase)?.check()
}

/// Every object of a snapshot file, after all of it was checked.
pub fn read(
    path: &Path,
    passphrase: Option<&str>,
) -> Result<(About, Vec<u8>, Vec<Object>), BadSnapshot> {
    let mut reader = open(path, passphrase)?;
    let mut objects = Vec::new();
    while let Some(object) = reader.next_object()? {
        objects.push(object);
    }
    Ok((reader.about().clone(), reader.secrets().to_vec(), objects))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
