//! The address of all servers, with one server: who holds it, who says so, and who lets go.

use std::time::{Duration, Instant};

use crate::harness::{Board, Kubectl, eventually};

const VIP: &str = "192.0.2.40";
/// A server that is killed keeps the address for no longer than this, also on a busy machine: far
/// less than the address's lifetime, which would take it away in the end.
const LET_GO: Duration = Duration::from_secs(2);

fn has(board: &Board) -> bool {
    let out = board.netns.command("ip").args(["addr", "show", "to", VIP]).output().expect("ip");
    !out.stdout.is_empty()
}

#[test]
fn a_server_holds_the_address_while_it_is_well_and_lets_go_also_when_killed() {
    let board = Board::unstarted();
    let serve = || {
        let mut line = board.server();
        line.args(["--disable-agent", "--vip", VIP]);
        board.launch(line);
        eventually("the address is on the board", || has(&board));
    };
    serve();
    // The certificate is for the address too: kubectl checks it.
    let kubectl = Kubectl::default(&board);
    let server = format!("--server https://{VIP}:6443");
    kubectl.until_that(&format!("get --raw /readyz {server}"), |out| out == "ok");
    let holder = "-n kube-system get lease coracle-vip -o jsonpath={.spec.holderIdentity}";
    kubectl.until_that(holder, |out| out == "board");
    kubectl.until_that("get --raw /metrics", |out| out.contains("\ncoracle_vip_active 1\n"));
    board.kill();
    let killed = Instant::now();
    eventually("the address is gone", || !has(&board));
    let took = killed.elapsed();
    assert!(took < LET_GO, "a killed server kept the address for {took:?}");
    serve();
    assert!(board.stop().success());
    assert!(!has(&board), "it let go before it ended");
}

#[test]
fn an_address_that_cannot_be_virtual_is_refused() {
    let board = Board::unstarted();
    let mut line = board.server();
    let out = line.args(["--disable-agent", "--vip", "192.0.2.1"]).output().expect("coracle");
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success());
    assert!(told.contains("192.0.2.1 is this board's own address"), "{told}");
    assert!(told.contains("--vip"), "{told}");
}
