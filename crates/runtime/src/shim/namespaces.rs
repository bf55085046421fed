//! What a sandbox shares: its network, IPC, UTS and perhaps PID namespace.
//!
//! The shim itself lives in them, so every helper it forks, and every container they make, is
//! in the right ones without being told.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::protocol::{NETNS_FILE, PIDNS_FILE, SHM_FOLDER, ShimConfig};

/// Makes the namespaces that `config` asks for. Gives the first process of a shared PID
/// namespace, if there is one.
pub fn make(folder: &Path, config: &ShimConfig) -> Result<Option<libc::pid_t>, String> {
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, !config.host_network);
    flags.set(CloneFlags::CLONE_NEWIPC, !config.host_ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, !config.hostname.is_empty());
    unshare(flags).map_err(|e| format!("making namespaces ({flags:?}): {e}"))?;
    if !config.host_network {
        raise_loopback().map_err(|e| format!("raising the loopback interface: {e}"))?;
        let path = folder.join(NETNS_FILE);
        fs::write(&path, "").map_err(|e| format!("{}: {e}", path.display()))?;
        bind("/proc/self/ns/net", &path)?;
    }
    if !config.hostname.is_empty() {
        nix::unistd::sethostname(&config.hostname)
            .map_err(|e| format!("setting the host name {:?}: {e}", config.hostname))?;
    }
    if config.shm_bytes > 0 {
        let path = folder.join(SHM_FOLDER);
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let options = format!("mode=1777,size={}", config.shm_bytes);
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("shm"), &path, Some("tmpfs"), safe, Some(options.as_str()))
            .map_err(|e| format!("mounting {}: {e}", path.display()))?;
    }
    for (name, value) in &config.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|e| format!("setting sysctl {name}={value}: {e}"))?;
    }
    if !config.shared_pid {
        return Ok(None);
    }
    let pid = pid_namespace()?;
    let path = folder.join(PIDNS_FILE);
    fs::write(&path, "").map_err(|e| format!("{}: {e}", path.display()))?;
    bind(&format!("/proc/{pid}/ns/pid"), &path)?;
    Ok(Some(pid))
}

fn bind(from: &str, to: &Path) -> Result<(), String> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| format!("binding {from} to {}: {e}", to.display()))
}

fn raise_loopback() -> io::Result<()> {
    // SAFETY: the request is zeroed, then holds a short name and flags, as SIOCSIFFLAGS wants.
    unsafe {
        let raw = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(raw);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Forks the first process of a new PID namespace: it reaps what its namespace orphans, and is
/// all that other runtimes keep a pause image for.
fn pid_namespace() -> Result<libc::pid_t, String> {
    // SAFETY: like fork in a process with one thread; the child only waits.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, libc::CLONE_NEWPID | libc::SIGCHLD, 0, 0, 0, 0)
            as libc::pid_t
    };
    match pid {
        -1 => Err(format!("making a PID namespace: {}", io::Error::last_os_error())),
        0 => reap_forever(),
        pid => Ok(pid),
    }
}

fn reap_forever() -> ! {
    let name = CString::from(c"coracle-pod");
    // SAFETY: plain system calls; this process shares nothing but copied memory with the shim.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        loop {
            let mut signal = 0;
            libc::sigwait(&set, &mut signal);
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
}
