//! Changes put into an image, and read back.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::change::{Change, Content};
use super::error::{Doing, ImageError};
use super::ext::Ext;
use super::files::{Files, Node, fat};
use super::volume::Kind;

/// Makes the changes in an image, and reads all of them back.
pub fn apply(image: &Path, changes: &[Change]) -> Result<(), ImageError> {
    let files = Files::open(image)?;
    for mount in files.mounts() {
        let here = changes.iter().filter_map(|change| {
            let (place, inside) = files.place(change.path());
            (place.at == mount.at).then(|| (change.clone(), inside.to_owned()))
        });
        let here: Vec<(Change, String)> = here.collect();
        if here.is_empty() {
            continue;
        }
        match mount.volume.kind {
            Kind::Ext => Ext::new(image, mount).apply(&files, &here)?,
            _ => apply_fat(image, &mount.volume.partition, &here)?,
        }
    }
    drop(files);
    verify(image, changes)
}

fn apply_fat(
    image: &Path,
    partition: &super::table::Partition,
    changes: &[(Change, String)],
) -> Result<(), ImageError> {
    let doing = || format!("writing to {}", image.display());
    let file = OpenOptions::new().read(true).write(true).open(image).doing(doing)?;
    let fat = fat(file, partition)?;
    let root = fat.root_dir();
    for (change, inside) in changes {
        let inside = inside.trim_start_matches('/');
        let doing = || format!("writing {} to {}", change.path(), image.display());
        let parents =
            inside.char_indices().filter(|(_, c)| *c == '/').map(|(end, _)| &inside[..end]);
        for parent in parents.chain(matches!(change, Change::Folder { .. }).then_some(inside)) {
            root.create_dir(parent).doing(doing)?;
        }
        match change {
            Change::File { content, .. } => {
                let bytes = match content {
                    Content::Bytes(bytes) => bytes.clone(),
                    Content::Copy(from, _) => fs::read(from).doing(doing)?,
                };
                let mut file = root.create_file(inside).doing(doing)?;
                file.truncate().and_then(|()| file.write_all(&bytes)).doing(doing)?;
                file.flush().doing(doing)?;
            }
            Change::Remove { .. } => root.remove(inside).doing(doing)?,
            Change::Folder { .. } => {}
            Change::Link { path, .. } => {
                return Err(ImageError::refused(
                    format!("{path} is in a FAT file system, which has no links"),
                    "this image is laid out in a way that is not known here",
                ));
            }
        }
    }
    drop(root);
    fat.unmount().doing(doing)
}

/// Reads everything back, by another hand than that which wrote it, and has the file systems checked.
pub fn verify(image: &Path, changes: &[Change]) -> Result<(), ImageError> {
    let files = Files::open(image)?;
    // What is said last of a path holds.
    for (number, change) in changes.iter().enumerate() {
        let path = change.path();
        if changes[number + 1..].iter().any(|later| later.path() == path) {
            continue;
        }
        let in_fat = files.place(path).0.volume.kind == Kind::Fat;
        if !holds(change, files.look(path)?, in_fat)? {
            return Err(ImageError::Tool {
                doing: format!("reading back what was written to {}", image.display()),
                said: format!("{path} is not as it should be"),
            });
        }
    }
    for mount in files.mounts().iter().filter(|mount| mount.volume.kind == Kind::Ext) {
        Ext::new(image, mount).check()?;
    }
    Ok(())
}

fn holds(change: &Change, found: Option<Node>, in_fat: bool) -> Result<bool, ImageError> {
    Ok(match (change, found) {
        (
            Change::File { content, mode, owner, .. },
            Some(Node::File { bytes, mode: m, owner: o }),
        ) => {
            let same = match content {
                Content::Bytes(wanted) => *wanted == bytes,
                Content::Copy(from, _) => {
                    fs::read(from).doing(|| format!("reading {}", from.display()))? == bytes
                }
            };
            same && (in_fat || (*mode == m && *owner == o))
        }
        (Change::Folder { mode, owner, .. }, Some(Node::Folder { mode: m, owner: o, .. })) => {
            in_fat || (*mode == m && *owner == o)
        }
        (Change::Link { target, .. }, Some(Node::Link(found))) => *target == found,
        (Change::Remove { .. }, None) => true,
        _ => false,
    })
}
