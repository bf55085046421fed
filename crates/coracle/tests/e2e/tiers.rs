//! A real application of several tiers from Debian packages: nginx before a Python service before
//! Redis, a password in a Secret, configuration in ConfigMaps, images from a registry.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{BOARD_ADDRESS, Board, Image, Kubectl, Registry, eventually, get, tools};
use crate::survive::{containers, under_load};

const PORT: u16 = 30100;
/// How long the server is away while its pods go on.
const AWAY: Duration = Duration::from_secs(6);
const SERVICE: &str = include_str!("tiers/service.py");
const MANIFEST: &str = include_str!("tiers/shop.yaml");

/// Files that a Debian system has and unpacked packages do not.
const BASE: [(&str, &str); 4] = [
    ("tmp/", ""),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
];

fn package(folder: &str, config: serde_json::Value) -> Image {
    Image::new(config).folder(&tools().join(folder)).files(&BASE)
}

fn service(release: &str) -> Image {
    let command = json!({
        "Cmd": ["/usr/bin/python3.11", "-u", "/srv/service.py"],
        "Env": [format!("RELEASE={release}"), "PATH=/usr/bin"],
    });
    package("image-python", command).files(&[("srv/service.py", SERVICE)])
}

fn ask(board: &Board) -> Option<String> {
    let answer = board.client.run(|| get(&format!("{BOARD_ADDRESS}:{PORT}"), "/")).ok()?;
    (answer.status == 200).then_some(answer.body)
}

fn settled(kubectl: &Kubectl) {
    for tier in ["redis", "service", "nginx"] {
        kubectl.ok(&format!("rollout status deployment/{tier} --timeout=180s"));
    }
}

#[test]
fn an_application_of_three_tiers() {
    let board = Board::start();
    let registry = Registry::start(&board);
    registry.push(
        &package("image-redis", json!({"Cmd": ["/usr/bin/redis-server"]})),
        "shop/redis",
        "7",
    );
    let stop = json!({"Cmd": ["/usr/sbin/nginx"], "StopSignal": "SIGQUIT"});
    registry.push(&package("image-nginx", stop), "shop/nginx", "1");
    registry.push(&service("one"), "shop/service", "1");
    let second = registry.push(&service("two"), "shop/service", "2");

    let kubectl = Kubectl { namespace: "shop".into(), ..Kubectl::default(&board) };
    kubectl.ok("create namespace shop");
    kubectl.ok("create secret generic redis --from-literal=password=mother-of-pearl");
    kubectl.apply(MANIFEST);
    settled(&kubectl);
    eventually("all tiers answer", || {
        ask(&board).is_some_and(|b| b.starts_with("Ahoy from one, visit "))
    });
    // The password is wanted: without it Redis says no.
    let refused = kubectl.ok("exec deployment/redis -- redis-cli -h 127.0.0.1 incr visits");
    assert!(refused.contains("NOAUTH"), "{refused}");

    let (answers, failures) = under_load(&board, PORT, 4, || {
        kubectl.ok(&format!("set image deployment/service service={second}"));
        settled(&kubectl);
        eventually("only the new version answers", || {
            (0..8).all(|_| ask(&board).is_some_and(|body| body.starts_with("Ahoy from two, ")))
        });
    });
    println!("rolled under {answers} requests");
    assert!(failures.is_empty(), "{} failed of {answers}: {failures:?}", failures.len());
    kubectl.until_field("deployment/service", ".status.replicas", "2");
    kubectl.until_that("get pods -o name", |out| out.lines().count() == 4);

    without_a_server(&board, &kubectl);

    for shim in board.shims() {
        // SAFETY: plain system call on a shim of this board.
        unsafe { libc::kill(shim, libc::SIGKILL) };
        eventually("the shim is gone", || !board.shims().contains(&shim));
        eventually("the pod runs again", || board.shims().len() == 4);
        settled(&kubectl);
        eventually("all tiers answer", || ask(&board).is_some());
    }
}

/// Whatever happens to the server, every tier finds the next by its name for every request.
fn without_a_server(board: &Board, kubectl: &Kubectl) {
    let (before, dns) = (containers(kubectl), board.dns());
    assert_eq!(dns.len(), 1, "one process answers for cluster DNS");
    let (answers, failures) = under_load(board, PORT, 4, || {
        board.kill();
        board.serve();
        board.stop();
        let back = Instant::now() + AWAY;
        while Instant::now() < back {
            assert!(ask(board).is_some_and(|body| body.starts_with("Ahoy from two, ")));
        }
        board.serve();
    });
    println!("killed and stopped the server under {answers} requests");
    assert!(failures.is_empty(), "{} failed of {answers}: {failures:?}", failures.len());
    assert_eq!(containers(kubectl), before);
    assert_eq!(board.dns(), dns);

    // The process that answers is no single point of failure either.
    // SAFETY: plain system call on a process of this board.
    unsafe { libc::kill(dns[0], libc::SIGKILL) };
    eventually("another process answers", || {
        board.dns().len() == 1 && board.dns() != dns && ask(board).is_some()
    });
}
