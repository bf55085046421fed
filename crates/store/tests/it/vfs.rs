//! A file layer for SQLite that writes down what it is asked to do, and fails on request.
//!
//! It is SQLite's own Unix layer with four functions replaced, registered in its place,
//! so that the production code runs unchanged. Only files under a registered folder are recorded.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, OnceLock};

use rusqlite::ffi;

/// One thing SQLite did to a file.
#[derive(Clone, Debug)]
pub enum Op {
    Write { at: usize, data: Vec<u8> },
    Truncate(usize),
    Sync,
    Delete,
}

/// An operation, the file it was done to, and the high-water file as it was by then.
#[derive(Clone, Debug)]
pub struct Done {
    pub file: String,
    pub op: Op,
    pub high_water: Option<String>,
}

#[derive(Default)]
struct Recorder {
    folders: HashMap<PathBuf, Folder>,
    files: HashMap<usize, File>,
}

#[derive(Default)]
struct Folder {
    log: Vec<Done>,
    failing: Option<c_int>,
}

struct File {
    path: PathBuf,
    original: &'static ffi::sqlite3_io_methods,
}

fn recorder() -> MutexGuard<'static, Recorder> {
    static RECORDER: OnceLock<Mutex<Recorder>> = OnceLock::new();
    RECORDER.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner())
}

struct Vfs(*mut ffi::sqlite3_vfs);
// SAFETY: the Unix layer's description is never freed, and after registration only read.
unsafe impl Send for Vfs {}
// SAFETY: as above.
unsafe impl Sync for Vfs {}
static ORIGINAL: OnceLock<Vfs> = OnceLock::new();

fn original() -> (*mut ffi::sqlite3_vfs, &'static ffi::sqlite3_vfs) {
    let vfs = ORIGINAL.get().expect("registered").0;
    // SAFETY: `sqlite3_vfs_find` gave it, and the Unix layer lives as long as the process.
    (vfs, unsafe { &*vfs })
}

/// Records what happens to SQLite's files in a folder from now on.
pub fn record(folder: &Path) {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the name is a C string, and the layer is checked to be there. The copy keeps
        // the name and comes first, so that it is found in its place. It is leaked, so it
        // outlives every connection.
        unsafe {
            ffi::sqlite3_initialize();
            let found = ffi::sqlite3_vfs_find(c"unix-excl".as_ptr());
            assert!(!found.is_null(), "SQLite has this file layer");
            let _ = ORIGINAL.set(Vfs(found));
            let mut copy = *found;
            copy.pNext = std::ptr::null_mut();
            copy.xOpen = Some(open);
            copy.xDelete = Some(delete);
            assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(copy)), 1), ffi::SQLITE_OK);
        }
    });
    recorder().folders.insert(folder.into(), Folder::default());
}

/// How many operations were recorded.
pub fn count(folder: &Path) -> usize {
    recorder().folders[folder].log.len()
}

/// The operations recorded.
pub fn log(folder: &Path) -> Vec<Done> {
    recorder().folders[folder].log.clone()
}

/// Makes writing in a folder fail with a SQLite code, or work again.
pub fn fail(folder: &Path, code: Option<c_int>) {
    recorder().folders.get_mut(folder).expect("recorded").failing = code;
}

/// Writes an operation down, or says how it must fail.
fn note(path: &Path, op: Op) -> Result<(), c_int> {
    let mut recorder = recorder();
    let Some(folder) = path.parent() else { return Ok(()) };
    let Some(recorded) = recorder.folders.get_mut(folder) else { return Ok(()) };
    if let Some(code) = recorded.failing {
        return Err(code);
    }
    let file = path.file_name().expect("a file").to_string_lossy().into_owned();
    let high_water = std::fs::read_to_string(folder.join("revision")).ok();
    recorded.log.push(Done { file, op, high_water });
    Ok(())
}

fn note_file(
    file: *mut ffi::sqlite3_file,
    op: Op,
) -> Result<&'static ffi::sqlite3_io_methods, c_int> {
    let (path, original) = {
        let recorder = recorder();
        let file = &recorder.files[&file.addr()];
        (file.path.clone(), file.original)
    };
    note(&path, op).map(|()| original)
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let (pointer, vfs) = original();
    // SAFETY: SQLite's own arguments, passed on to the layer they are meant for.
    let code = unsafe { vfs.xOpen.expect("has open")(pointer, name, file, flags, out) };
    if code != ffi::SQLITE_OK || name.is_null() {
        return code;
    }
    // SAFETY: after success `file` is open, its methods are static tables of the Unix layer,
    // and `name` is a C string.
    unsafe {
        let original: &'static ffi::sqlite3_io_methods = &*(*file).pMethods;
        let mut methods = *original;
        methods.xWrite = Some(write);
        methods.xTruncate = Some(truncate);
        methods.xSync = Some(sync);
        methods.xClose = Some(close);
        (*file).pMethods = Box::leak(Box::new(methods));
        let path = PathBuf::from(CStr::from_ptr(name).to_string_lossy().into_owned());
        recorder().files.insert(file.addr(), File { path, original });
    }
    code
}

unsafe extern "C" fn delete(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync: c_int,
) -> c_int {
    // SAFETY: SQLite passes a C string.
    let path = PathBuf::from(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
    if path.exists()
        && let Err(code) = note(&path, Op::Delete)
    {
        return code;
    }
    let (pointer, vfs) = original();
    // SAFETY: SQLite's own arguments, passed on.
    unsafe { vfs.xDelete.expect("has delete")(pointer, name, sync) }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let closed = recorder().files.remove(&file.addr()).expect("it was opened");
    // SAFETY: the methods this file was opened with.
    unsafe { closed.original.xClose.expect("has close")(file) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite passes `amount` readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), amount as usize) };
    match note_file(file, Op::Write { at: at as usize, data: bytes.to_vec() }) {
        // SAFETY: SQLite's own arguments, passed on.
        Ok(original) => unsafe { original.xWrite.expect("has write")(file, data, amount, at) },
        Err(code) => code,
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    match note_file(file, Op::Truncate(size as usize)) {
        // SAFETY: SQLite's own arguments, passed on.
        Ok(original) => unsafe { original.xTruncate.expect("has truncate")(file, size) },
        Err(code) => code,
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    match note_file(file, Op::Sync) {
        // SAFETY: SQLite's own arguments, passed on.
        Ok(original) => unsafe { original.xSync.expect("has sync")(file, flags) },
        Err(code) => code,
    }
}
