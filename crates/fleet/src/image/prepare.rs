//! An image file for a board: a copy of the stock image with the board's changes in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::apply::apply;
use super::change::Change;
use super::changes::{Given, Plan, further_paths};
use super::copy::{Packing, unpack};
use super::error::{Doing, ImageError};
use super::ext::Ext;
use super::files::Files;
use super::layout::Layout;
use super::table::{ALIGNMENT_BYTES, SECTOR_BYTES, Table};
use super::volume::Kind;

/// What the system's partition is given where the data have one of their own behind it.
pub const SYSTEM_BYTES: u64 = 8 << 30;
/// What that partition has in the image; the board's first start lets it fill the card.
const DATA_BYTES: u64 = 16 << 20;
/// What stays free in the root beyond what is written: the first start needs room before it has grown.
const SPARE_BYTES: u64 = 64 << 20;

/// A stock image, unpacked.
pub struct Source {
    path: PathBuf,
    /// Removes the unpacked copy in the end.
    _unpacked: Option<TempPath>,
}

impl Source {
    /// Unpacks the image into the folder where it is packed.
    pub fn open(image: &Path, folder: &Path) -> Result<Self, ImageError> {
        if Packing::of(image)? == Packing::Plain {
            return Ok(Source { path: image.to_owned(), _unpacked: None });
        }
        let doing = || format!("unpacking {} into {}", image.display(), folder.display());
        let mut unpacked = tempfile::NamedTempFile::new_in(folder).doing(doing)?;
        unpack(image, unpacked.as_file_mut())?;
        let unpacked = unpacked.into_temp_path();
        Ok(Source { path: unpacked.to_path_buf(), _unpacked: Some(unpacked) })
    }

    /// What there is in the image.
    pub fn layout(&self, given: &Given) -> Result<Layout, ImageError> {
        Layout::gather(&Files::open(&self.path)?, &further_paths(given))
    }

    /// Makes a board's image. `data` says that its data get a partition of their own behind the
    /// system's. Until everything was read back it has another name.
    pub fn prepare(&self, target: &Path, plan: &Plan, data: bool) -> Result<(), ImageError> {
        let unfinished = target.with_extension("img.part");
        let outcome = self.make(&unfinished, plan, data);
        if outcome.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        outcome?;
        fs::rename(&unfinished, target).doing(|| format!("naming {}", target.display()))
    }

    fn make(&self, image: &Path, plan: &Plan, data: bool) -> Result<(), ImageError> {
        let doing = || format!("writing {}", image.display());
        // It holds tokens and passphrases.
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = file.open(image).doing(doing)?;
        unpack(&self.path, &mut file)?;
        let files = Files::open(image)?;
        for mount in files.mounts().iter().filter(|mount| mount.volume.kind == Kind::Ext) {
            Ext::new(image, mount).settle()?;
        }
        make_room(image, &mut file, &plan.changes, data)?;
        apply(image, &plan.changes)?;
        file.sync_all().doing(doing)
    }
}

/// Lets the root take what is to be written, and puts a partition for the data behind it.
fn make_room(
    image: &Path,
    file: &mut File,
    changes: &[Change],
    data: bool,
) -> Result<(), ImageError> {
    let files = Files::open(image)?;
    let root = files.root().clone();
    let needed: u64 = changes.iter().map(size).sum::<u64>() + SPARE_BYTES;
    let missing = needed.saturating_sub(root.free);
    let mut table = Table::read(file)?;
    let mut end = aligned(root.partition.end() + missing);
    if data {
        end = end.max(SYSTEM_BYTES);
    } else if missing == 0 {
        return Ok(());
    }
    if !table.is_last(root.partition.number) {
        return Err(ImageError::refused(
            format!(
                "the image's system has {:.0} MB left, {:.0} MB are needed, and another partition \
                 lies behind it",
                root.free as f64 / 1e6,
                needed as f64 / 1e6
            ),
            "take another image of the distribution, with its system in the last partition",
        ));
    }
    table.grow(root.partition.number, end);
    let mut last = end;
    if data {
        let mut random = [0; 16];
        fastrand::fill(&mut random);
        table.add(end, DATA_BYTES, random).ok_or_else(|| {
            ImageError::refused(
                "the image's partition table is full",
                "name another disk for the data, such as data: {device: /dev/sda}",
            )
        })?;
        last += DATA_BYTES;
    }
    // Behind the last partition is room for the second copy of a GPT.
    let length = last + ALIGNMENT_BYTES;
    let doing = || format!("growing {}", image.display());
    file.set_len(length.max(file.metadata().doing(doing)?.len())).doing(doing)?;
    table.write(file, file.metadata().doing(doing)?.len())?;
    let mount = files.mounts().last().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    Ext::new(image, mount.doing(doing)?).grow(end - root.partition.start)
}

fn size(change: &Change) -> u64 {
    match change {
        // Each has an inode and at least a block, and so may its folder.
        Change::File { content, .. } => content.length() + 16 * SECTOR_BYTES,
        _ => 16 * SECTOR_BYTES,
    }
}

fn aligned(bytes: u64) -> u64 {
    bytes.div_ceil(ALIGNMENT_BYTES) * ALIGNMENT_BYTES
}
