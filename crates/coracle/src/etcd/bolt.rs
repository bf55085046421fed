//! What of the member's database this side looks up in the file itself: which entry of the log was
//! applied to it last. Only the pages on the way there are read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a page's content begins, behind its number, kind and counts.
const PAGE_HEAD_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const MAGIC: u32 = 0xed0c_daed;
/// Bytes of what describes the file, up to its checksum.
const META_BYTES: usize = 56;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// A tree deeper than this is none.
const DEPTH_MAX: usize = 32;
/// A page with what overflows it is not larger.
const PAGE_MAX_BYTES: u64 = 64 << 20;

/// The number of the last entry that was applied, 0 where the database does not say; none where
/// the file is no database.
pub fn applied(path: &Path) -> Option<u64> {
    let file = File::open(path).ok()?;
    let (page_bytes, root) = newest(&file)?;
    Some(Bolt { file, page_bytes }.consistent_index(root).unwrap_or_default())
}

/// Page size and root of the newer one of two descriptions that is whole.
fn newest(file: &File) -> Option<(u64, u64)> {
    let first = meta(file, 0);
    // Where the first is torn, the second is where the usual page sizes put it.
    let sizes = first.map_or_else(|| vec![4096, 16384, 65536], |(_, size, _)| vec![size]);
    let second = sizes.into_iter().find_map(|size| meta(file, size));
    let (_, size, root) = first.into_iter().chain(second).max_by_key(|(change, ..)| *change)?;
    Some((size, root))
}

/// Number of the change, page size and root.
fn meta(file: &File, at: u64) -> Option<(u64, u64, u64)> {
    let mut bytes = [0; META_BYTES + 8];
    file.read_exact_at(&mut bytes, at + PAGE_HEAD_BYTES as u64).ok()?;
    let sum = bytes[..META_BYTES].iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let whole = u32_at(&bytes, 0)? == MAGIC && u64_at(&bytes, META_BYTES)? == sum;
    let size = u64::from(u32_at(&bytes, 8)?);
    whole.then_some((u64_at(&bytes, 48)?, size, u64_at(&bytes, 16)?))
}

struct Bolt {
    file: File,
    page_bytes: u64,
}

impl Bolt {
    fn page(&self, number: u64) -> Option<Vec<u8>> {
        let at = number.checked_mul(self.page_bytes)?;
        let mut head = [0; PAGE_HEAD_BYTES];
        self.file.read_exact_at(&mut head, at).ok()?;
        let pages = u64::from(u32_at(&head, 12)?) + 1;
        let bytes = pages.checked_mul(self.page_bytes).filter(|bytes| *bytes <= PAGE_MAX_BYTES)?;
        let mut page = vec![0; usize::try_from(bytes).ok()?];
        self.file.read_exact_at(&mut page, at).ok()?;
        (u64_at(&page, 0)? == number).then_some(page)
    }

    fn consistent_index(&self, root: u64) -> Option<u64> {
        let bucket = self.find(root, b"meta")?;
        let value = match u64_at(&bucket, 0)? {
            // A small bucket is a page within the page.
            0 => leaf_value(bucket.get(PAGE_HEAD_BYTES..)?, b"consistent_index")?.to_vec(),
            root => self.find(root, b"consistent_index")?,
        };
        Some(u64::from_be_bytes(value.try_into().ok()?))
    }

    /// The value of a key in the tree below a page.
    fn find(&self, mut number: u64, key: &[u8]) -> Option<Vec<u8>> {
        for _ in 0..DEPTH_MAX {
            let page = self.page(number)?;
            match u16_at(&page, 8)? {
                LEAF => return leaf_value(&page, key).map(<[u8]>::to_vec),
                BRANCH => number = child(&page, key)?,
                _ => return None,
            }
        }
        None
    }
}

fn count(page: &[u8]) -> Option<usize> {
    u16_at(page, 10).map(usize::from)
}

fn leaf_value<'a>(page: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    (0..count(page)?).find_map(|index| {
        let at = PAGE_HEAD_BYTES + index * ELEMENT_BYTES;
        let number = |offset: usize| u32_at(page, at + offset).map(|number| number as usize);
        let (begin, of_key, of_value) = (at + number(4)?, number(8)?, number(12)?);
        let found = page.get(begin..begin + of_key)? == key;
        found.then(|| page.get(begin + of_key..begin + of_key + of_value)).flatten()
    })
}

/// The page below a branch where a key is: the last one that begins with it or before it.
fn child(page: &[u8], key: &[u8]) -> Option<u64> {
    let mut child = None;
    for index in 0..count(page)? {
        let at = PAGE_HEAD_BYTES + index * ELEMENT_BYTES;
        let (begin, length) = (at + u32_at(page, at)? as usize, u32_at(page, at + 4)? as usize);
        if child.is_some() && page.get(begin..begin + length)? > key {
            break;
        }
        child = u64_at(page, at + 8);
    }
    child
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn element(numbers: [u32; 4]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// A page of a kind with one element, whose key and value follow it.
    fn page(number: u64, kind: u16, element: Vec<u8>, content: &[u8]) -> Vec<u8> {
        let mut page = number.to_le_bytes().to_vec();
        page.extend([kind.to_le_bytes(), 1_u16.to_le_bytes()].concat());
        page.extend(0_u32.to_le_bytes());
        page.extend(element);
        page.extend(content);
        page.resize(PAGE, 0);
        page
    }

    fn leaf(number: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        let numbers = [0, ELEMENT_BYTES as u32, key.len() as u32, value.len() as u32];
        page(number, LEAF, element(numbers), &[key, value].concat())
    }

    fn branch(number: u64, key: &[u8], below: u64) -> Vec<u8> {
        let numbers = [ELEMENT_BYTES as u32, key.len() as u32, below as u32, 0];
        page(number, BRANCH, element(numbers), key)
    }

    fn description(number: u64, change: u64, root: u64) -> Vec<u8> {
        let mut meta = [MAGIC, 2, PAGE as u32, 0].map(u32::to_le_bytes).concat();
        meta.extend([root, 0, 0, 9, change].map(u64::to_le_bytes).concat());
        let sum = meta.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        meta.extend(sum.to_le_bytes());
        let mut page = vec![0; PAGE_HEAD_BYTES];
        page[..8].copy_from_slice(&number.to_le_bytes());
        page.extend(meta);
        page.resize(PAGE, 0);
        page
    }

    /// What is found in a file of these pages.
    fn found(pages: &[Vec<u8>]) -> Option<u64> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("db");
        std::fs::write(&path, pages.concat()).expect("written");
        applied(&path)
    }

    #[test]
    fn the_newer_of_two_states_is_read() {
        let bucket = |root: u64| [root, 0].map(u64::to_le_bytes).concat();
        let value = |index: u64| leaf(5, b"consistent_index", &index.to_be_bytes());
        let pages = vec![
            description(0, 7, 3),
            description(1, 8, 2),
            branch(2, b"meta", 3),
            leaf(3, b"meta", &bucket(4)),
            branch(4, b"consistent_index", 5),
            value(4711),
        ];
        assert_eq!(found(&pages), Some(4711));
        let mut torn = pages.clone();
        torn[1].fill(0);
        assert_eq!(found(&torn), Some(4711), "by the older description");
        torn[0].fill(0);
        assert_eq!(found(&torn), None, "no database");
        let mut odd = pages.clone();
        odd[4].fill(0x55);
        assert_eq!(found(&odd), Some(0), "a database that does not say");
        let within = [bucket(0), leaf(0, b"consistent_index", &9_u64.to_be_bytes())].concat();
        let small =
            vec![description(0, 1, 2), description(1, 0, 2), leaf(2, b"meta", &within[..120])];
        assert_eq!(found(&small), Some(9), "a bucket within its page");
    }
}
