//! Further boards join: by which tokens, what refuses them, and what outlasts a change of keys.

use std::fs;
use std::time::Instant;

use crate::harness::{BOARD_ADDRESS, Board, Kubectl, Member, SHELL, busybox};

fn url() -> String {
    format!("--server https://{BOARD_ADDRESS}:6443")
}

fn token(board: &Board, file: &str) -> String {
    let path = board.data().join("server").join(file);
    fs::read_to_string(path).expect("a token").trim().to_owned()
}

fn until_ready(kubectl: &Kubectl, node: &str) {
    kubectl.until_field(
        &format!("node/{node}"),
        ".status.conditions[?(@.type==\"Ready\")].status",
        "True",
    );
}

fn talker(node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: talker}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {SHELL}
    command: [sh, -c, 'echo here I am; while true; do sleep 1; done']
"
    )
}

#[test]
fn an_agent_joins_and_comes_back() {
    let board = Board::start();
    let kubectl = Kubectl::default(&board);
    let member = Member::new(&board, 1);
    member.import(&busybox(), SHELL);
    let joined = Instant::now();
    let token = token(&board, "agent-token");
    member.start(&format!(
        "{} --token {token} --node-label shelf=top --node-taint a=b:PreferNoSchedule",
        url()
    ));
    until_ready(&kubectl, "member1");
    println!("join to Ready: {:?}", joined.elapsed());
    assert_eq!(kubectl.field("node/member1", ".metadata.labels.shelf"), "top");
    assert_eq!(kubectl.field("node/member1", ".spec.taints[0].key"), "a");

    kubectl.apply(&talker("member1"));
    kubectl.ok("wait --for=condition=Ready pod/talker --timeout=60s");
    kubectl.until_log("talker", "here I am");
    assert_eq!(kubectl.ok("exec talker -- echo hello"), "hello\n");
    // Whatever is no TLS is answered with an alert, and the connection ends.
    let reach = "sh -c 'echo hello | nc kubernetes.default 443 >/dev/null && echo reached'";
    kubectl.until_that(&format!("exec talker -- {reach}"), |out| out == "reached");
    let signed = kubectl.ok("get csr -o 'jsonpath={.items[*].spec.signerName}'");
    for signer in ["kube-apiserver-client-kubelet", "kubelet-serving"] {
        assert!(signed.contains(signer), "{signed}");
    }

    member.kill();
    // No token: it proves itself by its certificate. No server: it remembers them.
    member.start("");
    kubectl.until_that("get --raw /api/v1/nodes/member1/proxy/healthz", |out| out == "ok");
    assert_eq!(kubectl.ok("exec talker -- echo again"), "again\n");
}
