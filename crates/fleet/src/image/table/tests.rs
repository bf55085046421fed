use std::io::Cursor;

use super::*;

const MIB: u64 = 1024 * 1024;

/// A disk image of `mib` with a GPT and partitions of these places and lengths in MiB.
fn gpt(mib: u64, partitions: &[(u64, u64)]) -> Cursor<Vec<u8>> {
    let mut table = Table::empty([7; 16]);
    for (start, length) in partitions {
        table.add(start * MIB, length * MIB, [*start as u8; 16]).expect("room");
    }
    let mut disk = Cursor::new(vec![0; (mib * MIB) as usize]);
    table.write(&mut disk, mib * MIB).expect("written");
    disk
}

fn mbr(partitions: &[(u64, u64)]) -> Cursor<Vec<u8>> {
    let mut sector = vec![0; 512];
    sector[..4].copy_from_slice(b"boot");
    sector[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    for ((start, length), entry) in partitions.iter().zip(sector[446..510].chunks_mut(16)) {
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&((start * MIB / 512) as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&((length * MIB / 512) as u32).to_le_bytes());
    }
    Cursor::new(sector)
}

fn shown(table: &Table) -> Vec<String> {
    let parts = table.partitions().into_iter();
    parts
        .map(|p| format!("{}: {} +{} {}", p.number, p.start / MIB, p.length / MIB, p.uuid))
        .collect()
}

#[test]
fn an_mbr_grows_its_last_partition_and_takes_another() {
    let mut disk = mbr(&[(4, 256), (260, 1000)]);
    let mut table = Table::read(&mut disk).expect("read");
    assert_eq!(shown(&table), ["1: 4 +256 1234abcd-01", "2: 260 +1000 1234abcd-02"]);
    assert!(!table.grow(1, 300 * MIB), "another partition lies behind it");
    assert!(!table.grow(2, 900 * MIB), "nothing shrinks");
    assert!(table.grow(2, 2000 * MIB));
    let added = table.add(2000 * MIB, 16 * MIB, [0; 16]).expect("room");
    assert_eq!((added.number, added.uuid.as_str()), (3, "1234abcd-03"));
    table.write(&mut disk, 0).expect("written");
    let again = Table::read(&mut disk).expect("read");
    assert_eq!(
        shown(&again),
        ["1: 4 +256 1234abcd-01", "2: 260 +1740 1234abcd-02", "3: 2000 +16 1234abcd-03"]
    );
    assert_eq!(disk.get_ref()[..4], *b"boot", "what boots is left alone");
    assert_eq!(table.limit(u64::MAX), u64::from(u32::MAX) * 512, "two TiB");
}

#[test]
fn a_gpt_follows_its_disk_and_both_copies_are_whole() {
    // Debian's cloud images have their root as number 1, behind 14 and 15.
    let mut disk = gpt(64, &[(1, 2), (4, 10)]);
    disk.get_mut().resize(100 * MIB as usize, 0);
    let mut table = Table::read(&mut disk).expect("read");
    let end = table.limit(100 * MIB);
    assert_eq!(100 * MIB - end, 33 * 512, "entries and header at the end");
    assert!(table.grow(2, end));
    table.write(&mut disk, 100 * MIB).expect("written");
    assert_eq!(Table::read(&mut disk).expect("read").partition(2).expect("there").end(), end);
    // The second copy, read as the first one would be.
    let bytes = disk.get_ref();
    let last = bytes.len() - 512;
    assert_eq!(&bytes[last..last + 8], b"EFI PART");
    assert_eq!(u64_at(bytes, last + 24) as usize, last / 512, "its own place");
    assert_eq!(u64_at(bytes, last + 32), 1, "the first copy's place");
    let entries = u64_at(bytes, last + 72) as usize * 512;
    assert_eq!(bytes[entries..entries + 128 * 128], bytes[1024..1024 + 128 * 128]);
    assert_eq!(u32_at(bytes, 458) as usize, last / 512, "the protective entry covers the disk");
}

#[test]
fn identifiers_are_printed_as_udev_has_them() {
    let disk = &mut gpt(8, &[(1, 2)]);
    let table = Table::read(disk).expect("read");
    assert_eq!(table.partitions()[0].uuid, "01010101-0101-4101-8101-010101010101");
    disk.get_mut()[1024 + 16..1024 + 32].copy_from_slice(&[
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
        0xe4,
    ]);
    let said = base::chain(&Table::read(disk).expect_err("changed behind its back"));
    assert_eq!(said, "reading the partition table: the checksum of the GPT's entries is wrong");
}

#[test]
fn what_is_no_disk_image_is_refused() {
    let mut fat = vec![0; 512];
    fat[446..462].copy_from_slice(b"Non-system disk ");
    fat[510..].copy_from_slice(&[0x55, 0xaa]);
    for bytes in [vec![0; 512], fat] {
        let refused = Table::read(&mut Cursor::new(bytes)).expect_err("refused");
        assert_eq!(refused.to_string(), "there is no partition table");
        assert!(refused.hint().is_some());
    }
    assert!(Table::read(&mut Cursor::new(vec![0; 100])).is_err());
}
