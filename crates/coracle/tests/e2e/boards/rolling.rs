//! A new release on a stack of boards, one board after the other, and back. As in `upgrade`, one
//! binary plays all releases; here a script in its place says which, board by board.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Boards, RECOVERY, Stack, eventually_some, within};
use crate::rollouts::sleeper;
use crate::survive::containers;

/// Tells the binary which release it plays, as the board's own file says.
const SCRIPT: &str = "#!/bin/sh
CORACLE_VERSION_OVERRIDE=$(cat /etc/coracle-release 2>/dev/null) || CORACLE_VERSION_OVERRIDE=0.1.0
export CORACLE_VERSION_OVERRIDE
exec /coracle/coracle.real \"$@\"
";

/// Puts the script in the place of the binary, on all boards.
fn wrap(stack: &Stack) {
    let programs = stack.boards().join("lab/bin");
    let (binary, real) = (programs.join("coracle"), programs.join("coracle.real"));
    fs::rename(&binary, real).expect("the binary is moved");
    fs::write(&binary, SCRIPT).expect("written");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("made a program");
}

/// Installs a release on a board and restarts what runs there.
fn install(stack: &Stack, board: &str, release: &str) {
    let etc = stack.boards().join("lab/boards").join(board).join("disk/etc");
    fs::write(etc.join("coracle-release"), release).expect("written");
    stack.ok(&format!("restart-process {board}"));
}

/// Waits until a board's node is ready and of this release.
fn until_runs(stack: &Stack, board: &str, release: &str) {
    let fields = "{.status.nodeInfo.kubeletVersion} \
                  {.status.conditions[?(@.type==\"Ready\")].status}";
    let line = format!("get node {board} --request-timeout=3s -o 'jsonpath={fields}'");
    let kubectl = stack.kubectl();
    within(RECOVERY, &format!("{board} runs {release}"), || {
        let run = kubectl.run(&line);
        let runs = run.stdout.ends_with(&format!("+coracle{release} True"));
        if run.success && runs { Ok(()) } else { Err(run) }
    });
}

/// Waits until a board's log says something after its first `from` bytes.
fn until_says(stack: &Stack, board: &str, from: usize, wanted: &str) {
    eventually_some(wanted, || {
        let log = stack.log(board);
        let new = log.get(from..).unwrap_or_default();
        if new.contains(wanted) { Ok(()) } else { Err(new.to_owned()) }
    });
}

#[test]
fn a_release_goes_over_the_boards_one_by_one_and_pods_stay() {
    let stack = Stack::up("--servers 3 --agents 1 --vip auto");
    wrap(&stack);
    let kubectl = stack.kubectl();
    kubectl.apply(&sleeper("s", 8));
    kubectl.ok("rollout status deployment/s --timeout=120s");
    let before = containers(&kubectl);

    // Neither an agent before the servers, nor a server by two releases.
    for (board, release, refusal) in [
        ("agent-1", "0.2.0", "an agent must not be newer"),
        ("server-3", "0.3.0", "this server is of release 0.3.0, and the server server-"),
    ] {
        let from = stack.log(board).len();
        install(&stack, board, release);
        until_says(&stack, board, from, refusal);
        install(&stack, board, "0.1.0");
        until_runs(&stack, board, "0.1.0");
    }
    assert_eq!(containers(&kubectl), before, "a refusal costs nothing");

    for board in ["server-1", "server-2", "server-3", "agent-1"] {
        install(&stack, board, "0.2.0");
        until_runs(&stack, board, "0.2.0");
    }
    assert_eq!(containers(&kubectl), before, "pods have not noticed");
    kubectl.ok("create configmap written-by-the-new");
    let way_back = stack.run("exec server-1 -- ls /var/lib/coracle/server/snapshots").1;
    assert!(way_back.contains("pre-upgrade-0.1.0-to-0.2.0-server-1"), "{way_back}");

    // And back: agents first.
    for board in ["agent-1", "server-3", "server-2", "server-1"] {
        install(&stack, board, "0.1.0");
        until_runs(&stack, board, "0.1.0");
    }
    assert_eq!(containers(&kubectl), before);
    kubectl.ok("get configmap written-by-the-new");
}
