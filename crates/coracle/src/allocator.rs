//! Two allocators in one binary: mimalloc for the server, which is fast under threads, and the C
//! library's for shims and other small processes, which have one thread and a few kilobytes of its own. mimalloc takes 4 MB
//! of private memory before it gives out the first byte; a shim runs for every pod, and the
//! promise is 1 MiB a pod. (docs/decisions.md has the figures.)

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};

use mimalloc::MiMalloc;

/// The allocator of this process: chosen once, at the first allocation, by what the process is.
pub struct ByProcess;

const UNDECIDED: u8 = 0;
const FAST: u8 = 1;
const SMALL: u8 = 2;

static CHOICE: AtomicU8 = AtomicU8::new(UNDECIDED);

unsafe extern "C" {
    /// mimalloc's own: with `true` it hands all free pages of the process back to the kernel.
    fn mi_collect(force: bool);
}

/// Hands back what the heap has free. The C library's does so by itself.
pub fn give_back() {
    if !small() {
        // SAFETY: takes no pointers and may be called from any thread at any time.
        unsafe { mi_collect(true) };
    }
}

fn small() -> bool {
    match CHOICE.load(Ordering::Relaxed) {
        SMALL => true,
        FAST => false,
        _ => decide(),
    }
}

#[cold]
fn decide() -> bool {
    // Two threads that come here at once decide alike; before the first allocation there is one.
    let shim = is_shim();
    // Where the kernel gives huge pages to everybody (Debian's default), a server of 7 MiB would
    // take 25 and a small process 6, for the parts of them that nobody uses. Containers get the
    // machine's setting back before their program runs (`runtime::shim`).
    // SAFETY: a plain system call without pointers; a kernel that refuses it costs memory only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    CHOICE.store(if shim { SMALL } else { FAST }, Ordering::Relaxed);
    shim
}

/// Whether the first argument makes this process a shim, found out without allocating.
fn is_shim() -> bool {
    let mut line = [0u8; 256];
    // SAFETY: the path ends in NUL; `read` gets a buffer of the length that it is told; the
    // descriptor is ours and closed once.
    let read = unsafe {
        let file = libc::open(c"/proc/self/cmdline".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let read = libc::read(file, line.as_mut_ptr().cast(), line.len());
        libc::close(file);
        read
    };
    let line = &line[..usize::try_from(read).unwrap_or(0)];
    let small = [
        runtime::shim::ARGUMENT,
        sandbox::INIT_ARGUMENT,
        sandbox::WIRE_ARGUMENT,
        crate::vip::holder::ARGUMENT,
        crate::dns::holder::ARGUMENT,
    ];
    line.split(|byte| *byte == 0)
        .nth(1)
        .is_some_and(|first| small.iter().any(|name| name.as_bytes() == first))
}

// SAFETY: each call goes on as it is to one of two correct allocators, and always to the same one
// in a process, since the choice never changes once it is made.
unsafe impl GlobalAlloc for ByProcess {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same below.
        unsafe { if small() { System.alloc(layout) } else { MiMalloc.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { if small() { System.alloc_zeroed(layout) } else { MiMalloc.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as for `alloc`; the block came from the same allocator.
        unsafe {
            if small() { System.dealloc(block, layout) } else { MiMalloc.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`.
        unsafe {
            if small() {
                System.realloc(block, layout, size)
            } else {
                MiMalloc.realloc(block, layout, size)
            }
        }
    }
}
