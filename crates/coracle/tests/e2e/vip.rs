//! The address of all servers: who holds it, who says so, and who lets go.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Board, Kubectl, eventually, eventually_some, tools};

const VIP: &str = "192.0.2.40";
/// A server that is killed keeps the address for no longer than this, also on a busy machine: less
/// than what is left of the address's lifetime, which would take it away in the end.
const LET_GO: Duration = Duration::from_secs(4);

fn has(board: &Board, address: &str) -> bool {
    let out = board.netns.command("ip").args(["addr", "show", "to", address]).output().expect("ip");
    !out.stdout.is_empty()
}

#[test]
fn a_server_holds_the_address_while_it_is_well_and_lets_go_also_when_killed() {
    let board = Board::unstarted();
    let serve = || {
        let mut line = board.server();
        line.args(["--disable-agent", "--vip", VIP]);
        board.launch(line);
        eventually("the address is on the board", || has(&board, VIP));
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
    eventually("the address is gone", || !has(&board, VIP));
    let took = killed.elapsed();
    assert!(took < LET_GO, "a killed server kept the address for {took:?}");
    serve();
    assert!(board.stop().success());
    assert!(!has(&board, VIP), "it let go before it ended");
}

const VIP6: &str = "fd00:2::40";

/// The client is the segment of two boards, and runs the datastore of both.
#[test]
fn an_address_of_ipv6_is_kubectls_and_moves_when_its_holder_dies() {
    let (first, second) = (Board::unstarted(), Board::unstarted());
    let segment = &first.client;
    second.netns.ip("link del uplink");
    second.netns.ip(&format!("link add uplink type veth peer name eth1 netns {}", segment.name));
    second.netns.ip("addr add 192.0.2.3/24 dev uplink");
    second.netns.ip("link set uplink up");
    second.netns.ip("route add default via 192.0.2.2");
    segment.ip("link add switch type bridge");
    segment.ip("addr del 192.0.2.2/24 dev eth0");
    for link in ["eth0", "eth1"] {
        segment.ip(&format!("link set {link} master switch up"));
    }
    segment.ip("link set switch up");
    segment.ip("addr add 192.0.2.2/24 dev switch");
    segment.ip("addr add fd00:2::2/64 dev switch nodad");
    first.netns.ip("addr add fd00:2::1/64 dev uplink nodad");
    second.netns.ip("addr add fd00:2::3/64 dev uplink nodad");
    let mut etcd = segment.command(tools().join("etcd/usr/bin/etcd"));
    etcd.arg("--data-dir").arg(first.folder.join("etcd"));
    etcd.args(["--listen-client-urls", "http://192.0.2.2:2379"]);
    etcd.args(["--advertise-client-urls", "http://192.0.2.2:2379", "--log-level", "error"]);
    let _etcd = Guard(etcd.stdout(Stdio::null()).spawn().expect("etcd"));
    for (name, board) in [("first", &first), ("second", &second)] {
        let mut line = board.coracle("server --disable-agent --token of-both");
        line.args(["--node-name", name, "--vip", &format!("{VIP6}/64")]);
        line.args(["--datastore-endpoint", "http://192.0.2.2:2379"]);
        line.arg("--write-kubeconfig").arg(board.kubeconfig());
        board.launch(line);
        eventually("the address is held", || [&first, &second].iter().any(|b| has(b, VIP6)));
    }
    let server = Some(format!("https://[{VIP6}]:6443"));
    let seat = Kubectl::at(segment, second.kubeconfig(), second.folder.clone());
    let kubectl = Kubectl { server, ..seat };
    kubectl.ok("create configmap before --request-timeout=10s");
    // The first, unless the machine has kept it waiting for so long that it was missed.
    let (holder, other) =
        eventually_some("one alone holds it", || match (has(&first, VIP6), has(&second, VIP6)) {
            (true, false) => Ok((&first, &second)),
            (false, true) => Ok((&second, &first)),
            both => Err(both),
        });
    holder.kill();
    let killed = Instant::now();
    eventually("the other has the address", || has(other, VIP6));
    let took = killed.elapsed();
    assert!(took < LET_GO, "the address was away for {took:?}");
    kubectl.until_that("get configmap before -o name --request-timeout=3s", |out| {
        out == "configmap/before"
    });
    kubectl.ok("create configmap after --request-timeout=10s");
}

/// A process that ends with the value.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
