//! Giving back what only a start or a burst of requests needed.
//!
//! Most of a server's memory at rest would be pages of its own program file: the start alone runs
//! through some 30 MB of code once. They are the file's, not ours, and the kernel may drop them;
//! but while they are mapped it takes them for used, drops other things first, and counts them as
//! ours. Given back they stay in the page cache as long as nobody needs the memory, and what is
//! still in use is mapped again, 64 KiB at a time, without reading anything.

/// Unmaps the pages of the program file from this process.
pub fn give_back() {
    // SAFETY: the callback has the signature that is asked for and ignores its data.
    unsafe { libc::dl_iterate_phdr(Some(give_back_segments), std::ptr::null_mut()) };
}

/// Called for each program file in memory; ours is static, so there is one (and the kernel's vDSO).
unsafe extern "C" fn give_back_segments(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library calls with a valid description whose headers are `dlpi_phnum` many.
    let (base, headers) = unsafe {
        let info = &*info;
        let headers = match info.dlpi_phdr.is_null() {
            true => &[][..],
            false => std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()),
        };
        (info.dlpi_addr as usize, headers)
    };
    let page = page_bytes();
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (base + header.p_vaddr as usize).next_multiple_of(page);
        let end = (base + header.p_vaddr as usize + header.p_filesz as usize) / page * page;
        if start < end {
            // SAFETY: these are whole pages of a segment of this program that is never written to,
            // so each comes back from the file as it was when it is touched again. A refusal
            // (locked pages, the vDSO) changes nothing.
            unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
        }
    }
    0
}

/// How many bytes of files this process has mapped and touched: above all of its program. 0 where
/// the kernel does not say.
pub fn mapped_bytes() -> usize {
    // proc(5): size, resident, shared, ..., in pages.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(2).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * page_bytes()
}

fn page_bytes() -> usize {
    // SAFETY: a plain question without pointers.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_gone_and_comes_back() {
        let before = mapped_bytes();
        give_back();
        let after = mapped_bytes();
        assert!(after < before, "{after} of {before} bytes are left");
        assert_eq!(format!("{:?}", Some(1.5)), "Some(1.5)", "code and constants are as they were");
    }
}
