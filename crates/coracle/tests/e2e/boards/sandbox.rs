//! `coracle sandbox`: what it makes, what it breaks, what it leaves.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::harness::{Boards, Stack, eventually, eventually_some, pids_with};

/// The API of the first server, from the laptop.
fn reach(stack: &Stack, patience: Duration) -> Option<Duration> {
    let address = format!("{}:6443", stack.address(1)).parse().expect("an address");
    stack.laptop.run(|| {
        let begun = Instant::now();
        TcpStream::connect_timeout(&address, patience).ok().map(|_| begun.elapsed())
    })
}

const PATIENCE: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_board_is_used_hurt_and_healed() {
    let stack = Stack::up("--servers 1 --agents 0 --disk 1024");
    let kubectl = stack.kubectl();
    kubectl.apply(&crate::rollouts::sleeper("s", 1));
    kubectl.ok("rollout status deployment/s --timeout=60s");
    assert_eq!(stack.ok("exec server-1 -- hostname"), "server-1\n");
    assert!(stack.ok("status").contains("Ready"), "{}", stack.ok("status"));

    let slowness = Duration::from_millis(200);
    eventually("quick", || reach(&stack, PATIENCE).is_some_and(|quick| quick < slowness));
    stack.ok("slow server-1 200ms");
    let slow = reach(&stack, PATIENCE).expect("reached");
    assert!(slow >= slowness, "{slow:?}");
    stack.ok("lose server-1 100%");
    assert!(stack.ok("status").contains("slow by 200 ms, loses 100 %"));
    assert_eq!(reach(&stack, SHORT), None);
    for (cut, heal) in [
        ("cut server-1", "heal server-1"),
        ("cut server-1 --one-way", "heal"),
        ("cut server-1:machine", "heal server-1"),
        ("cut machine:server-1 --one-way", "heal"),
    ] {
        stack.ok("heal");
        eventually("healed", || reach(&stack, PATIENCE).is_some());
        stack.ok(cut);
        assert_eq!(reach(&stack, SHORT), None, "{cut}");
        stack.ok(heal);
        eventually(heal, || reach(&stack, PATIENCE).is_some());
    }

    let full = stack.ok("fill server-1");
    assert!(full.contains("the disk is full"), "{full}");
    let said = stack.fails("exec server-1 -- dd if=/dev/zero of=/var/x bs=4096 count=1");
    assert!(said.contains("No space left on device"), "{said}");
    stack.ok("heal server-1");
}

#[test]
fn a_wrong_clock_is_seen_in_what_the_server_writes() {
    let stack = Stack::up("--servers 1 --agents 0");
    let kubectl = stack.kubectl();
    let off = |name: &str| {
        kubectl.ok(&format!("create configmap {name}"));
        let made = kubectl.field(&format!("configmap/{name}"), ".metadata.creationTimestamp");
        let made: Timestamp = made.parse().expect("a time");
        made.duration_since(Timestamp::now()).as_secs() / 60
    };
    assert_eq!(off("now"), 0);
    stack.ok("clock server-1 +72h");
    let wrong = 72 * 60;
    assert!((wrong - 1..=wrong).contains(&off("then")));
    // A restart keeps the wrong time; a board that is set right keeps the right one.
    stack.ok("restart-process server-1");
    eventually("the server answers", || kubectl.run("get --raw /readyz").success);
    assert!((wrong - 1..=wrong).contains(&off("still")));
    stack.ok("clock server-1 0s");
    assert_eq!(off("right"), 0);
}

#[test]
fn a_power_cut_keeps_the_disk_and_nothing_else() {
    let stack = Stack::up("--servers 1 --agents 0");
    let kubectl = stack.kubectl();
    kubectl.apply(&crate::rollouts::sleeper("s", 1));
    kubectl.ok("rollout status deployment/s --timeout=60s");
    stack.ok("exec server-1 -- touch /run/mark /var/mark /etc/mark");
    stack.ok("kill server-1");
    assert!(stack.ok("status").contains("off"));
    let said = stack.fails("exec server-1 -- true");
    assert!(said.contains("server-1 is off") && said.contains("hint:"), "{said}");
    stack.ok("restore server-1");
    stack.until_ready(&["server-1"]);
    stack.ok("exec server-1 -- ls /var/mark /etc/mark");
    stack.fails("exec server-1 -- ls /run/mark");
    eventually_some("the pod runs again", || {
        let line = "get pods -o 'jsonpath={.items[*].status.containerStatuses[*].ready}'";
        let run = kubectl.run(line);
        if run.stdout == "true" { Ok(()) } else { Err(run) }
    });
    stack.ok("stop server-1");
    assert!(stack.ok("status").contains("off"));
}

/// What a sandbox of this test run has on the machine.
fn left(stack: &Stack) -> Vec<String> {
    let folder = stack.boards();
    let pids = pids_with(folder.as_os_str().as_encoded_bytes());
    let processes = pids.iter().map(|pid| format!("process {pid}"));
    let folders = folder.exists().then(|| format!("{}", folder.display()));
    let known = "/proc/thread-self/net/dev_snmp6";
    let links = stack.laptop.run(|| fs::read_dir(known).map_or(0, Iterator::count));
    let links = (links > 1).then(|| format!("{links} links"));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = format!("{}/", folder.display());
    let mounts = mounts.lines().filter(|line| line.contains(&inside)).map(str::to_owned);
    processes.chain(folders).chain(links).chain(mounts).collect()
}

#[test]
fn nothing_is_left_also_when_the_command_is_killed() {
    let stack = Stack::unstarted();
    // At a moment each of the kernel's choosing, from the first folder to the waiting at the end.
    for words in [0usize, 1, 2, 4, 8, 16] {
        let mut up = stack.command("up --servers 1 --agents 1");
        let mut child = up.stdout(std::process::Stdio::null()).spawn().expect("coracle");
        let begun = |stack: &Stack| {
            let boards = stack.boards().join("lab");
            fs::read_dir(boards.join("boards/server-1")).map_or(0, Iterator::count) * 4
                + fs::read_dir(boards).map_or(0, Iterator::count)
        };
        eventually("it has begun", || {
            begun(&stack) >= words || child.try_wait().expect("wait").is_some()
        });
        let _ = child.kill();
        child.wait().expect("wait");
        stack.ok("down lab");
        let left = left(&stack);
        assert!(left.is_empty(), "after {words} steps: {left:?}");
    }
    assert!(stack.ok("down lab").contains("there is no sandbox lab"));
}

#[test]
fn bad_input_is_refused_with_the_next_step() {
    let stack = Stack::unstarted();
    for (line, wanted) in [
        ("up --servers 0 --agents 1", "a cluster needs a server"),
        ("up --servers 30 --agents 30", "too many"),
        ("up --servers 3 --datastore sqlite", "cannot share a file"),
        ("up UPPER", "cannot be a sandbox's name"),
        ("up ../x", "cannot be a sandbox's name"),
        ("status", "there is no sandbox"),
        ("cut x --name y", "there is no sandbox y"),
    ] {
        let said = stack.fails(line);
        assert!(said.contains(wanted) && said.contains("hint: "), "{line}: {said}");
    }
    let stack = Stack::up("--servers 1 --agents 0");
    for (line, wanted) in [
        ("up --servers 1 --agents 1", "of another shape"),
        ("cut server-9", "no board \"server-9\""),
        ("cut server-1:nobody", "no board \"nobody\""),
        ("slow server-1 2h", "no delay"),
        ("lose server-1 300%", "no share"),
        ("clock server-1 soon", "no time"),
        ("fill server-1", "shares this machine's disk"),
    ] {
        let said = stack.fails(line);
        assert!(said.contains(wanted) && said.contains("hint: "), "{line}: {said}");
    }
    // The same again finds everything there, and a refused fault has changed nothing.
    assert!(stack.ok("up --servers 1 --agents 0").contains("was up"));
    assert!(!stack.ok("status").contains("cut"), "{}", stack.ok("status"));
}
