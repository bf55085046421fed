//! Logs, exec, cp, attach-like streams and port-forward, with both kubectls.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::harness::{Board, Kubectl, both, eventually_some, get};

const TALKER: &str = "apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, 'trap exit TERM; for i in 1 2 3 4 5; do echo line $i; done; echo complaint >&2; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo gone on; while true; do sleep 0.2; done']
";

fn talker(kubectl: &Kubectl) {
    kubectl.apply(TALKER);
    kubectl.ok("wait --for=condition=Ready pod/talker --timeout=60s");
    kubectl.until_log("talker", "complaint");
}

#[test]
fn logs() {
    let board = Board::start();
    both(&board, |kubectl| {
        talker(kubectl);
        let all = kubectl.ok("logs talker");
        assert!(all.starts_with("line 1\nline 2\n"), "{all}");
        assert_eq!(kubectl.ok("logs talker --tail=1 -c main").lines().count(), 1);
        assert_eq!(kubectl.ok("logs talker --limit-bytes=6"), "line 1");
        assert!(kubectl.ok("logs talker --timestamps --tail=1").starts_with("20"));
        let mut follow = kubectl.spawn("logs -f talker --tail=0");
        let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        // Something must have been said before the following begins, or it would not be followed.
        kubectl.ok("exec talker -- touch /tmp/go");
        let followed = lines.next();
        // `--tail=0` begins at the end: where the line came first, there is nothing to follow.
        let seen = followed.is_some_and(|line| line.unwrap() == "gone on");
        assert!(seen || kubectl.ok("logs talker").contains("gone on"));
        let _ = follow.kill();
        follow.wait().unwrap();
        assert_eq!(kubectl.ok("logs talker --since=1h").lines().last(), Some("gone on"));
        let none = kubectl.fails("logs talker --previous");
        assert!(
            none.contains("previous terminated container \"main\" in pod \"talker\" not found"),
            "{none}"
        );
        let none = kubectl.fails("logs talker -c other");
        assert!(none.contains("container other is not valid for pod talker"), "{none}");
        kubectl.ok("delete pod talker --now");
    });
}

#[test]
fn exec() {
    let board = Board::start();
    both(&board, |kubectl| {
        talker(kubectl);
        assert_eq!(kubectl.ok("exec talker -- hostname").trim(), "talker");
        let echoed =
            kubectl.run_with("exec -i talker -- sh -c 'cat; echo done >&2'", "to and fro\n");
        assert_eq!((echoed.stdout.as_str(), echoed.stderr.as_str()), ("to and fro\n", "done\n"));
        assert_eq!(kubectl.run("exec talker -- sh -c 'exit 7'").code, Some(7));
        let missing = kubectl.fails("exec talker -- nothing");
        assert!(missing.contains("nothing"), "{missing}");
        // More than any window of the protocols in between.
        let large = "0123456789abcdef".repeat(32 * 1024);
        let back = kubectl.run_with("exec -i talker -- cat", &large);
        assert_eq!(back.stdout.len(), large.len());
        assert!(back.stdout == large);

        let tty = on_terminal(
            kubectl,
            "exec -it talker -- sh",
            "test -t 0 && echo is-a-tty; stty size\nexit 4\n",
        );
        assert!(tty.contains("is-a-tty"), "{tty}");
        assert!(tty.contains("exit code 4"), "{tty}");
        kubectl.ok("delete pod talker --now");
    });
}

/// Runs kubectl on a terminal of its own, made by script(1), and types.
fn on_terminal(kubectl: &Kubectl, arguments: &str, typed: &str) -> String {
    let inner = kubectl.command(arguments);
    let line = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect::<Vec<_>>()
        .join(" ");
    let mut script = kubectl.netns.command("script");
    script.args(["-qec", &line, "/dev/null"]);
    script.env("HOME", &kubectl.home);
    let mut child =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    // The prompt says that the far end listens.
    while !seen.contains('#') {
        let mut byte = [0; 256];
        let count = stdout.read(&mut byte).unwrap();
        assert!(count > 0, "no prompt: {seen}");
        seen.push_str(&String::from_utf8_lossy(&byte[..count]));
    }
    stdin.write_all(typed.as_bytes()).unwrap();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    child.wait().unwrap();
    seen + &String::from_utf8_lossy(&rest)
}

#[test]
fn copying_files() {
    let board = Board::start();
    let here = board.folder.join("there-and-back");
    std::fs::write(&here, "cargo").unwrap();
    both(&board, |kubectl| {
        talker(kubectl);
        // kubectl takes what stands before a colon for a pod: relative paths only.
        let mut copy = kubectl.command("cp there-and-back talker:/tmp/copied");
        assert!(copy.current_dir(&board.folder).status().unwrap().success());
        assert_eq!(kubectl.ok("exec talker -- cat /tmp/copied"), "cargo");
        let mut copy = kubectl.command("cp talker:/tmp/copied back");
        assert!(copy.current_dir(&board.folder).status().unwrap().success());
        assert_eq!(std::fs::read_to_string(board.folder.join("back")).unwrap(), "cargo");
        kubectl.ok("delete pod talker --now");
    });
}

#[test]
fn port_forward() {
    let board = Board::start();
    board.import_hello();
    both(&board, |kubectl| {
        kubectl.ok("run web --image=coracle.local/hello --image-pull-policy=IfNotPresent");
        kubectl.ok("wait --for=condition=Ready pod/web --timeout=60s");
        let mut forward = kubectl.spawn("port-forward pod/web :8080");
        let mut line = String::new();
        // Held open: kubectl goes on talking, and would die of a closed pipe.
        let mut stdout = BufReader::new(forward.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
        let address = format!("127.0.0.1:{}", port.unwrap_or_else(|| panic!("{line}")));
        for _ in 0..3 {
            let body = board.netns.run(|| {
                eventually_some("the forwarded port answers", || get(&address, "/").map(|r| r.body))
            });
            assert!(body.contains("web"), "{body}");
        }
        forward.kill().unwrap();
        forward.wait().unwrap();
        kubectl.ok("delete pod web --now");
    });
}
