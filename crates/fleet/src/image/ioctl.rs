//! Requests to the kernel about disks, by the numbers in its `linux/fs.h` and `linux/blkpg.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::table::Partition;

/// `BLKPG_RESIZE_PARTITION`.
const RESIZE: libc::c_int = 3;

mod request {
    nix::ioctl_none!(read_table_again, 0x12, 95);
    nix::ioctl_none!(forget_buffers, 0x12, 97);
    nix::ioctl_read_bad!(sector_bytes, 0x1268, libc::c_int);
    nix::ioctl_write_ptr_bad!(change_partition, 0x1269, super::Change);
    nix::ioctl_write_ptr!(resize_mounted, b'f', 16, u64);
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Change {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut Place,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct Place {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// Has the kernel look at a disk's partitions anew.
pub fn read_table_again(disk: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { request::read_table_again(disk.as_raw_fd()) }?;
    Ok(())
}

/// Has the kernel forget what it remembers of a disk's content, which was synced before.
pub fn forget_buffers(disk: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { request::forget_buffers(disk.as_raw_fd()) }?;
    Ok(())
}

/// The length of a disk's sectors.
pub fn sector_bytes(disk: &File) -> io::Result<u64> {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int to the pointer, which is to one.
    unsafe { request::sector_bytes(disk.as_raw_fd(), &mut bytes) }?;
    Ok(bytes as u64)
}

/// Tells the kernel of a partition's new length, also while it is mounted.
pub fn resize_partition(disk: &File, partition: &Partition) -> io::Result<()> {
    let mut place = Place {
        start: partition.start as libc::c_longlong,
        length: partition.length as libc::c_longlong,
        number: partition.number as libc::c_int,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let datalen = size_of::<Place>() as libc::c_int;
    let change = Change { op: RESIZE, flags: 0, datalen, data: &raw mut place };
    // SAFETY: both structures are as the kernel declares them and live until the call is over.
    unsafe { request::change_partition(disk.as_raw_fd(), &change) }?;
    Ok(())
}

/// Lets the ext4 file system that a folder is in have this many blocks, while it is mounted.
pub fn resize_mounted(folder: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one 64-bit number from the pointer, which is to one.
    unsafe { request::resize_mounted(folder.as_raw_fd(), &blocks) }?;
    Ok(())
}
