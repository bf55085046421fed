//! Death of the opener, of a shim, of the machine.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use runtime::{
    ContainerId, ContainerState, Event, Native, NativeConfig, Reason, Runtime, SandboxConfig,
    SandboxId, SandboxState,
};

use crate::rig::{Rig, SOON, eventually, shell_config};

crate::tests!(
    reopened_while_running,
    ended_while_away,
    shim_killed,
    shim_killed_while_away,
    shim_stuck_while_away,
    rude_clients,
    after_a_reboot,
    opener_killed,
);

async fn reopened_while_running() {
    let mut rig = Rig::new().await;
    let sandbox = rig.sandbox_with(|c| drop(c.labels.insert("app".into(), "x".into()))).await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let before = rig.status(&id).await;
    rig.reopen().await;
    assert_eq!(rig.status(&id).await, before);
    assert_eq!(rig.exec(&id, "echo still").await.0, "still");
    let status = rig.native.sandbox_status(&sandbox).await.unwrap();
    assert_eq!(status.state, SandboxState::Ready);
    assert_eq!(status.config.labels["app"], "x");
    assert!(status.pid.unwrap() > 1);
    let mut events = rig.native.events();
    rig.native.stop_container(&id, Duration::ZERO).await.unwrap();
    let want = Event::Exited { sandbox: sandbox.clone(), container: id.clone() };
    assert_eq!(events.recv().await.unwrap(), want);
    let more = rig.shell(&sandbox, "exit 3").await;
    assert_eq!(rig.ended(&more).await.exit_code, Some(3));
}

async fn ended_while_away() {
    let mut rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let go = rig.folder.join("go");
    std::fs::create_dir_all(&go).unwrap();
    let id = rig
        .start(&sandbox, "while [ ! -e /go/now ]; do sleep 0.05; done; echo late; exit 11", |c| {
            c.mounts = vec![runtime::Mount {
                host_path: go.clone(),
                container_path: "/go".into(),
                ..runtime::Mount::default()
            }];
        })
        .await;
    // The old runtime is dropped before the container ends.
    let pid = rig.status(&id).await.pid.unwrap();
    let other = Rig::empty().await;
    rig.native = other.native.clone();
    std::fs::write(go.join("now"), "").unwrap();
    let alive = format!("/proc/{pid}");
    eventually("it ends", || !std::path::Path::new(&alive).exists()).await;
    rig.reopen().await;
    let status = rig.ended(&id).await;
    assert_eq!(status.exit_code, Some(11));
    assert_eq!(rig.log("main.log"), ["stdout F late"]);
}

async fn shim_killed() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let pid = rig.status(&id).await.pid.unwrap();
    let shim = rig.native.sandbox_status(&sandbox).await.unwrap().pid.unwrap();
    let mut events = rig.native.events();
    // SAFETY: plain system call on the shim this test has started.
    unsafe { libc::kill(shim as i32, libc::SIGKILL) };
    let gone = async {
        loop {
            if matches!(events.recv().await.unwrap(), Event::SandboxGone { .. }) {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
    let status = rig.status(&id).await;
    assert_eq!(status.state, ContainerState::Exited);
    assert_eq!(status.reason, Some(Reason::ContainerStatusUnknown));
    assert_eq!(status.exit_code, Some(137));
    let alive = format!("/proc/{pid}");
    eventually("the container is killed", || !std::path::Path::new(&alive).exists()).await;
    assert!(rig.native.create_container(&sandbox, shell_config("true")).await.is_err());
    rig.native.remove_sandbox(&sandbox).await.unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(rig.folder.to_str().unwrap()));
}

async fn shim_killed_while_away() {
    let mut rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let pid = rig.status(&id).await.pid.unwrap();
    let shim = rig.native.sandbox_status(&sandbox).await.unwrap().pid.unwrap();
    let other = Rig::empty().await;
    rig.native = other.native.clone();
    // SAFETY: plain system call on the shim this test has started.
    unsafe { libc::kill(shim as i32, libc::SIGKILL) };
    let alive = format!("/proc/{shim}/ns/net");
    eventually("the shim is dead", || std::fs::read_link(&alive).is_err()).await;
    rig.reopen().await;
    let status = rig.status(&id).await;
    assert_eq!(status.reason, Some(Reason::ContainerStatusUnknown));
    assert_eq!(rig.native.sandbox_status(&sandbox).await.unwrap().state, SandboxState::NotReady);
    let alive = format!("/proc/{pid}");
    eventually("the container is dead", || !std::path::Path::new(&alive).exists()).await;
    rig.native.remove_sandbox(&sandbox).await.unwrap();
}

async fn shim_stuck_while_away() {
    let mut rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let shim = rig.native.sandbox_status(&sandbox).await.unwrap().pid.unwrap();
    // SAFETY: plain system call on the shim this test has started.
    unsafe { libc::kill(shim as i32, libc::SIGSTOP) };
    rig.reopen().await;
    assert_eq!(rig.status(&id).await.reason, Some(Reason::ContainerStatusUnknown));
    let alive = format!("/proc/{shim}/ns/net");
    eventually("the shim is dead", || std::fs::read_link(&alive).is_err()).await;
    rig.native.remove_sandbox(&sandbox).await.unwrap();
}

/// Clients that subscribe and never read, or leave without a word, hurt nobody else.
async fn rude_clients() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, send, socket};
    use std::os::fd::AsRawFd;
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let path = rig.config.state.join("sandboxes").join(&sandbox.0).join("shim.sock");
    let deaf =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(deaf.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    let request = br#"{"Subscribe":{}}"#;
    send(deaf.as_raw_fd(), request, nix::sys::socket::MsgFlags::empty()).unwrap();
    drop(std::os::unix::net::UnixStream::connect(&path));
    for code in 0..6 {
        let id = rig.shell(&sandbox, &format!("exit {code}")).await;
        assert_eq!(rig.ended(&id).await.exit_code, Some(code));
        rig.native.remove_container(&id).await.unwrap();
    }
    drop(deaf);
    let id = rig.shell(&sandbox, "exit 9").await;
    assert_eq!(rig.ended(&id).await.exit_code, Some(9));
}

async fn after_a_reboot() {
    let mut rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    rig.shell(&sandbox, "sleep 60").await;
    rig.native.stop_sandbox(&sandbox).await.unwrap();
    // A reboot unmounts; then nothing but the folders is left.
    for mount in ["netns", "shm"] {
        let path = rig.config.state.join("sandboxes").join(&sandbox.0).join(mount);
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    std::fs::write(rig.config.state.join("boot_id"), "another\n").unwrap();
    rig.reopen().await;
    assert!(rig.native.list_sandboxes(Default::default()).await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(rig.config.root.join("containers")).unwrap().count(), 0);
    assert_eq!(rig.native.list_images().await.unwrap().len(), 1, "images stay");
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "exit 1").await;
    assert_eq!(rig.ended(&id).await.exit_code, Some(1));
}

/// The first argument that makes the test binary a process that opens a runtime, starts a
/// container, says their ids, and waits to be killed.
pub const OPENER: &str = "opener";

/// See [`OPENER`]; the arguments are the rig's root, state and cgroup prefix.
pub fn opener(args: impl Iterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.collect();
    let executor = tokio::runtime::Runtime::new().expect("an executor");
    executor.block_on(async {
        let mut config = NativeConfig::new(&args[0], &args[1]);
        config.cgroup_prefix = args[2].clone();
        let native = Native::open(config).await.expect("open");
        let sandbox = native.run_sandbox(SandboxConfig::default()).await.expect("sandbox");
        let mut config = shell_config("while :; do sleep 0.05; done");
        config.log_path = "".into();
        let id = native.create_container(&sandbox, config).await.expect("create");
        native.start_container(&id).await.expect("start");
        println!("{sandbox} {id}");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

async fn opener_killed() {
    let mut rig = Rig::new().await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg(OPENER)
        .args([&rig.config.root, &rig.config.state])
        .arg(&rig.config.cgroup_prefix)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (sandbox, id) = line.trim().split_once(' ').expect("ids");
    let (sandbox, id) = (SandboxId(sandbox.into()), ContainerId(id.into()));
    rig.reopen().await;
    assert_eq!(rig.status(&id).await.state, ContainerState::Running);
    assert_eq!(rig.exec(&id, "echo alive").await.0, "alive");
    // The shim has left the opener's session.
    let shim = rig.native.sandbox_status(&sandbox).await.unwrap().pid.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[3], shim.to_string(), "session");
    rig.native.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(rig.status(&id).await.exit_code, Some(137));
    rig.native.remove_sandbox(&sandbox).await.unwrap();
}
