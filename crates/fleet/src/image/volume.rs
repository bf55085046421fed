use std::fs::File;
use std::os::unix::fs::FileExt;

use super::error::{Doing, ImageError};
use super::table::Partition;

/// Enough of a partition to tell its file system by: ext4's superblock stands behind the first KiB.
const HEAD_BYTES: usize = 4096;

/// What a partition is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// FAT: what firmware reads.
    Fat,
    /// ext2, ext3 or ext4.
    Ext,
    /// Something that is not written to.
    Other(&'static str),
}

/// A partition and what it is formatted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where it lies.
    pub partition: Partition,
    /// Its file system.
    pub kind: Kind,
    /// The file system's label.
    pub label: String,
    /// The file system's identifier, as `UUID=` in fstab names it.
    pub uuid: String,
    /// What is left in it, in bytes; of ext file systems only.
    pub free: u64,
}

impl Volume {
    /// Looks at a partition of an image.
    pub fn probe(image: &File, partition: Partition) -> Result<Self, ImageError> {
        let mut head = vec![0; HEAD_BYTES.min(partition.length as usize)];
        image
            .read_exact_at(&mut head, partition.start)
            .doing(|| format!("reading partition {}", partition.number))?;
        head.resize(HEAD_BYTES, 0);
        Ok(Volume::known(&head, partition))
    }

    fn known(head: &[u8], partition: Partition) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let text = |range: std::ops::Range<usize>| {
            let bytes = head[range].split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(bytes).trim_end().to_owned()
        };
        let volume = |kind, label, uuid, free| Volume { partition, kind, label, uuid, free };
        if u16_at(1024 + 0x38) == 0xef53 {
            let block = 1024_u64 << u32_at(1024 + 0x18).min(6);
            let free = u64::from(u32_at(1024 + 0x0c)) * block;
            let hex: Vec<String> = head[1128..1144].iter().map(|b| format!("{b:02x}")).collect();
            let groups = [&hex[..4], &hex[4..6], &hex[6..8], &hex[8..10], &hex[10..]];
            let uuid = groups.map(|group| group.concat()).join("-");
            return volume(Kind::Ext, text(1144..1160), uuid, free);
        }
        // FAT32 has its label and number 28 bytes further on than its elders.
        let fat = [(82, 71, 67), (54, 43, 39)].into_iter();
        let fat = fat.zip([&b"FAT32"[..], &b"FAT1"[..]]);
        for ((name, label, number), magic) in fat {
            if head[name..].starts_with(magic) && head[510..512] == [0x55, 0xaa] {
                let number = u32_at(number);
                let uuid = format!("{:04X}-{:04X}", number >> 16, number & 0xffff);
                return volume(Kind::Fat, text(label..label + 11), uuid, 0);
            }
        }
        let other = match () {
            () if head.starts_with(b"XFSB") => "XFS",
            () if head[1024..].starts_with(&[0x10, 0x20, 0xf5, 0xf2]) => "F2FS",
            () if head.starts_with(b"LUKS\xba\xbe") => "an encrypted file system",
            () if head[512..].starts_with(b"LABELONE") => "LVM",
            () if head[..512].iter().any(|byte| *byte != 0) => "something unknown",
            () => "nothing at its beginning",
        };
        volume(Kind::Other(other), String::new(), String::new(), 0)
    }

    /// Whether a first field of fstab, such as `LABEL=boot`, means this volume.
    pub fn is_named(&self, source: &str) -> bool {
        let Some((by, name)) = source.split_once('=') else { return false };
        let name = name.trim_matches('"');
        match by {
            "LABEL" => !name.is_empty() && self.label == name,
            "UUID" => self.uuid.eq_ignore_ascii_case(name),
            "PARTUUID" => self.partition.uuid.eq_ignore_ascii_case(name),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pieces: &[(usize, &[u8])]) -> Volume {
        let mut head = vec![0; HEAD_BYTES];
        for (at, bytes) in pieces {
            head[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        let uuid = "1234abcd-02".to_owned();
        Volume::known(&head, Partition { number: 2, start: 0, length: 1 << 20, uuid })
    }

    #[test]
    fn file_systems_are_told_by_what_they_begin_with() {
        let uuid: Vec<u8> = (0..16).collect();
        let ext = known(&[
            (1024 + 0x38, &[0x53, 0xef]),
            (1024 + 0x18, &[2]),
            (1024 + 0x0c, &[10]),
            (1128, &uuid),
            (1144, b"rootfs\0"),
        ]);
        assert_eq!((ext.kind, ext.label.as_str(), ext.free), (Kind::Ext, "rootfs", 40960));
        for source in ["LABEL=rootfs", "UUID=00010203-0405-0607-0809-0a0b0c0d0e0f"] {
            assert!(ext.is_named(source), "{source}");
        }
        assert!(ext.is_named("PARTUUID=1234ABCD-02"));
        assert!(!ext.is_named("/dev/sda2") && !ext.is_named("LABEL=root"));
        let fat = known(&[
            (82, b"FAT32   "),
            (71, b"bootfs     "),
            (67, &[0x78, 0x56, 0x34, 0x12]),
            (510, &[0x55, 0xaa]),
        ]);
        assert_eq!((fat.kind, fat.label.as_str()), (Kind::Fat, "bootfs"));
        assert_eq!(fat.uuid, "1234-5678");
        assert_eq!(known(&[(0, b"XFSB")]).kind, Kind::Other("XFS"));
    }
}
