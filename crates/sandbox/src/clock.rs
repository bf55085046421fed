//! Moving a board's wall clock. The kernel has one for the whole machine, and programs read it
//! from a page that the kernel maps into each of them (the vDSO), without asking. So the page's
//! functions are replaced, in the processes of one board, by ones that ask the kernel and add an
//! offset. This works for static programs and for Go's as well, which a preloaded library does
//! not, and it moves TLS and etcd as a wrong clock would.
//!
//! What it does not move: the kernel's own stamps on files, the monotonic clock (as no jump does),
//! and processes that start later, but for the board's command, which is moved as it starts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::error::{Doing, Error, Hinted, Result};

/// How long a process may take to be caught outside of the functions that are replaced.
const PATIENCE: Duration = Duration::from_secs(5);
/// The page's size today is 8 KiB; more than this is no vDSO.
const MAX_IMAGE_BYTES: u64 = 1 << 20;

// Each ends in eight bytes that hold the offset in seconds. They run in place of the vDSO's
// functions, so they keep to the C calling convention and use no stack.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata",
    ".globl coracle_clock_gettime, coracle_gettimeofday, coracle_time, coracle_clock_end",
    "coracle_clock_gettime:",
    "mov eax, 228",
    "syscall",
    "test eax, eax",
    "jne 3f",
    "test edi, edi",
    "je 2f",
    "cmp edi, 5",
    "jne 3f",
    "2: mov rcx, [rip + 4f]",
    "add [rsi], rcx",
    "3: ret",
    "4: .quad 0",
    "coracle_gettimeofday:",
    "mov eax, 96",
    "syscall",
    "test eax, eax",
    "jne 3f",
    "test rdi, rdi",
    "je 3f",
    "mov rcx, [rip + 4f]",
    "add [rdi], rcx",
    "3: ret",
    "4: .quad 0",
    "coracle_time:",
    "mov eax, 201",
    "syscall",
    "add rax, [rip + 4f]",
    "test rdi, rdi",
    "je 3f",
    "mov [rdi], rax",
    "3: ret",
    "4: .quad 0",
    "coracle_clock_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata",
    ".balign 8",
    ".globl coracle_clock_gettime, coracle_gettimeofday, coracle_time, coracle_clock_end",
    "coracle_clock_gettime:",
    "mov w9, w0",
    "mov x8, #113",
    "svc #0",
    "cbnz w0, 3f",
    "cbz w9, 2f",
    "cmp w9, #5",
    "b.ne 3f",
    "2: ldr x10, 4f",
    "ldr x11, [x1]",
    "add x11, x11, x10",
    "str x11, [x1]",
    "3: ret",
    "4: .quad 0",
    "coracle_gettimeofday:",
    "mov x9, x0",
    "mov x8, #169",
    "svc #0",
    "cbnz w0, 3f",
    "cbz x9, 3f",
    "ldr x10, 4f",
    "ldr x11, [x9]",
    "add x11, x11, x10",
    "str x11, [x9]",
    "3: ret",
    "4: .quad 0",
    "coracle_time:",
    "coracle_clock_end:",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
const NAMES: [&str; 3] = ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time"];
#[cfg(target_arch = "aarch64")]
const NAMES: [&str; 2] = ["__kernel_clock_gettime", "__kernel_gettimeofday"];

unsafe extern "C" {
    static coracle_clock_gettime: u8;
    static coracle_gettimeofday: u8;
    static coracle_time: u8;
    static coracle_clock_end: u8;
}

/// The replacements with the offset filled in, each with the name of what it replaces.
fn replacements(seconds: i64) -> Vec<(&'static str, Vec<u8>)> {
    let starts = [
        &raw const coracle_clock_gettime,
        &raw const coracle_gettimeofday,
        &raw const coracle_time,
        &raw const coracle_clock_end,
    ];
    let pairs = NAMES.iter().zip(starts.windows(2));
    pairs
        .map(|(name, ends)| {
            let length = ends[1].addr() - ends[0].addr();
            // SAFETY: the assembler lays the functions out one behind the other in read-only
            // data, so everything between two labels is initialised and never changes.
            let mut code = unsafe { std::slice::from_raw_parts(ends[0], length) }.to_vec();
            let end = code.len() - 8;
            code[end..].copy_from_slice(&seconds.to_ne_bytes());
            (*name, code)
        })
        .collect()
}

/// Moves the wall clock of all processes in the control groups of a board.
pub(crate) fn shift(sandbox: &str, board: &str, seconds: i64) -> Result<usize> {
    let group = format!("/coracle-sandbox/{sandbox}/{board}");
    let mut moved = 0;
    for entry in fs::read_dir("/proc").doing(|| "listing processes".into())?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if !is_in(pid, &group) {
            continue;
        }
        match shift_running(Pid::from_raw(pid), seconds) {
            Ok(()) => moved += 1,
            // One that has ended meanwhile needs no clock.
            Err(_) if !is_in(pid, &group) => {}
            Err(error) => {
                return Err(error).doing(|| format!("moving the clock of process {pid}"));
            }
        }
    }
    Ok(moved)
}

fn is_in(pid: i32, group: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.lines().any(|line| {
        let rest = line.splitn(3, ':').nth(2).and_then(|path| path.split_once(group));
        rest.is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Lets the parent stop this process at its exec. To be called between fork and exec.
pub(crate) fn ask_to_be_traced() -> io::Result<()> {
    // SAFETY: a plain system call without pointers.
    match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the clock of a child that has asked to be traced, between its exec and its first
/// instruction.
pub(crate) fn shift_at_exec(pid: Pid, seconds: i64) -> Result {
    let doing = || format!("moving the clock of process {pid}");
    let mut status = 0;
    // SAFETY: a status to write to, and a child of this process.
    let waited = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::__WALL) };
    if waited < 0 {
        return Err(io::Error::last_os_error()).doing(doing);
    }
    let patched = patch(pid, seconds);
    // SAFETY: the child is stopped and traced by this process; detaching lets it run.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, pid.as_raw(), 0, 0) };
    patched.map(drop).doing(doing)
}

/// Stops the process while its functions are replaced; a thread within one of them would run
/// into the middle of the new code.
fn shift_running(pid: Pid, seconds: i64) -> Result {
    use nix::sys::signal::{Signal, kill};
    let deadline = Instant::now() + PATIENCE;
    loop {
        kill(pid, Signal::SIGSTOP).doing(|| "stopping it".into())?;
        let outcome = match wait_until_stopped(pid, deadline) {
            Ok(counters) => patch_unless_within(pid, seconds, &counters),
            Err(error) => Err(error),
        };
        let _ = kill(pid, Signal::SIGCONT);
        match outcome {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < deadline => std::thread::yield_now(),
            Ok(false) => return Err(Error::new("it never leaves the clock's functions")),
            Err(error) => return Err(error),
        }
    }
}

/// The threads' program counters, when none of them runs any more.
fn wait_until_stopped(pid: Pid, deadline: Instant) -> Result<Vec<u64>> {
    loop {
        let counters = counters(pid).doing(|| "looking at its threads".into())?;
        match counters.into_iter().collect::<Option<Vec<u64>>>() {
            Some(counters) => return Ok(counters),
            None if Instant::now() < deadline => std::thread::yield_now(),
            None => return Err(Error::new("it does not stop")),
        }
    }
}

/// The last field of /proc/PID/task/TID/syscall; `None` for a thread that runs.
fn counters(pid: Pid) -> io::Result<Vec<Option<u64>>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = match fs::read_to_string(thread?.path().join("syscall")) {
            Ok(text) => text,
            // A thread that has ended since, or one of the kernel's own without a counter.
            Err(_) => continue,
        };
        let last = text.split_ascii_whitespace().last().unwrap_or_default();
        let counter = last.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        found.push(counter);
    }
    Ok(found)
}

fn patch_unless_within(pid: Pid, seconds: i64, counters: &[u64]) -> Result<bool> {
    let (memory, plan) = plan_patch(pid, seconds)?;
    let within = |counter: &u64| {
        plan.iter().any(|(at, code)| (*at..*at + code.len() as u64).contains(counter))
    };
    if counters.iter().any(within) {
        return Ok(false);
    }
    write(&memory, &plan).map(|()| true)
}

fn patch(pid: Pid, seconds: i64) -> Result {
    let (memory, plan) = plan_patch(pid, seconds)?;
    write(&memory, &plan)
}

fn write(memory: &File, plan: &[Patch]) -> Result {
    for (at, code) in plan {
        memory.write_all_at(code, *at).doing(|| "writing to its memory".into()).hinted(
            "the kernel forbids it: it was built or started with proc_mem.force_override=never",
        )?;
    }
    Ok(())
}

/// What is to be written where.
type Patch = (u64, Vec<u8>);

/// Finds what to write into the memory of a process.
fn plan_patch(pid: Pid, seconds: i64) -> Result<(File, Vec<Patch>)> {
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"));
    let memory = memory.doing(|| "opening its memory".into())?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    let maps = maps.doing(|| "reading its map".into())?;
    let Some((start, end)) = vdso(&maps) else {
        return Err(Error::new("it has no vDSO"));
    };
    let mut image = vec![0; usize::try_from(end - start).unwrap_or(0)];
    memory.read_exact_at(&mut image, start).doing(|| "reading its vDSO".into())?;
    let mut plan = Vec::new();
    for (name, code) in replacements(seconds) {
        let Some((value, size)) = symbol(&image, name) else {
            return Err(Error::new(format!("its vDSO has no {name}")));
        };
        if size < code.len() as u64 {
            return Err(Error::new(format!("its vDSO's {name} is shorter than what replaces it")));
        }
        plan.push((start + value, code));
    }
    Ok((memory, plan))
}

fn vdso(maps: &str) -> Option<(u64, u64)> {
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, rest) = line.split_once('-')?;
    let end = rest.split(' ').next()?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    (start < end && end - start <= MAX_IMAGE_BYTES).then_some((start, end))
}

/// Value and size of a symbol of a 64-bit ELF image, by its section headers.
fn symbol(image: &[u8], name: &str) -> Option<(u64, u64)> {
    const SHT_DYNSYM: u64 = 11;
    const SYMBOL_BYTES: usize = 24;
    let number = |start: usize, offset: usize, bytes: usize| {
        let at = start.checked_add(offset)?;
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(image.get(at..at.checked_add(bytes)?)?);
        Some(u64::from_le_bytes(value))
    };
    let place = |value: u64| usize::try_from(value).ok();
    let (headers, size, count) =
        (place(number(0, 0x28, 8)?)?, number(0, 0x3a, 2)?, number(0, 0x3c, 2)?);
    let header = |index: u64| place(index * size).and_then(|at| headers.checked_add(at));
    let symbols = (0..count).find_map(|index| {
        let at = header(index)?;
        (number(at, 4, 4)? == SHT_DYNSYM).then_some(at)
    })?;
    let strings = place(number(header(number(symbols, 0x28, 4)?)?, 0x18, 8)?)?;
    let (first, length) = (place(number(symbols, 0x18, 8)?)?, place(number(symbols, 0x20, 8)?)?);
    (first..first.checked_add(length)?).step_by(SYMBOL_BYTES).find_map(|at| {
        let text = image.get(strings.checked_add(place(number(at, 0, 4)?)?)?..)?;
        let found = text.split(|byte| *byte == 0).next()? == name.as_bytes();
        found.then_some((number(at, 8, 8)?, number(at, 16, 8)?))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    const HOUR: i64 = 3600;

    fn now() -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        i64::try_from(now.as_secs()).expect("not that late")
    }

    #[test]
    fn a_program_is_started_with_another_time() {
        let mut date = Command::new("date");
        date.arg("+%s").stdout(std::process::Stdio::piped());
        // SAFETY: a plain system call between fork and exec.
        unsafe {
            date.pre_exec(ask_to_be_traced);
        }
        let child = date.spawn().expect("date");
        shift_at_exec(Pid::from_raw(child.id().cast_signed()), -HOUR).expect("shifted");
        let told = child.wait_with_output().expect("date").stdout;
        let told: i64 = String::from_utf8_lossy(&told).trim().parse().expect("a number");
        assert!((now() - HOUR - told).abs() < 30, "{told}");
    }

    #[test]
    fn a_running_program_is_moved_and_moved_back() {
        use std::io::{BufRead, BufReader, Write};
        let mut shell = Command::new("bash");
        shell.args(["-c", "while read line; do printf '%(%s)T\\n' -1; done"]);
        shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = shell.spawn().expect("bash");
        let (mut ask, told) = (child.stdin.take().expect("stdin"), child.stdout.take());
        let mut told = BufReader::new(told.expect("stdout"));
        let mut time = || {
            ask.write_all(b"\n").expect("asked");
            let mut line = String::new();
            told.read_line(&mut line).expect("told");
            line.trim().parse::<i64>().expect("a number")
        };
        assert!((now() - time()).abs() < 30);
        for offset in [HOUR, -HOUR, 0] {
            shift_running(Pid::from_raw(child.id().cast_signed()), offset).expect("shifted");
            assert!((now() + offset - time()).abs() < 30, "{offset}");
        }
        drop(ask);
        child.wait().expect("bash");
    }

    #[test]
    fn rubbish_is_no_vdso() {
        assert_eq!(vdso("7ffe-7fff r-xp 0 00:00 0 [vdso]\n"), Some((0x7ffe, 0x7fff)));
        assert_eq!(vdso("9-1 r-xp 0 00:00 0 [vdso]\n"), None);
        assert_eq!(symbol(b"", "x"), None);
        assert_eq!(symbol(&[0xff; 512], "x"), None);
    }
}
