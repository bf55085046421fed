//! Further boards join: by which tokens, what refuses them, and what outlasts a change of keys.

use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use crate::harness::{
    BOARD_ADDRESS, Board, Kubectl, Member, SHELL, busybox, eventually, eventually_some,
};
use crate::impostor;

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

    let (resident, anonymous) = member.memory_kib();
    println!("the agent's memory with one pod: {resident} KiB resident, {anonymous} KiB anonymous");

    member.kill();
    // No token: it proves itself by its certificate. No server: it remembers them.
    member.start("");
    kubectl.until_that("get --raw /api/v1/nodes/member1/proxy/healthz", |out| out == "ok");
    assert_eq!(kubectl.ok("exec talker -- echo again"), "again\n");
}

/// An agent that was refused says why, and what to do next.
fn refused(member: &Member, arguments: &str, what: &str, hint: &str) {
    let said = member.refused(arguments);
    assert!(said.contains(what), "{what:?} is not in: {said}");
    let next = said.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
    assert!(next.contains(hint), "{hint:?} is not in: {said}");
}

#[test]
fn refusals_say_what_to_do_next() {
    let board = Board::unstarted();
    board.serve_api();
    let member = Member::new(&board, 1);
    let agent = token(&board, "agent-token");
    let hash = agent.split("::").next().expect("a hash").to_owned();
    let url = url();

    let wrong = format!("{url} --token {hash}::node:{}", "0".repeat(32));
    refused(&member, &wrong, "the token is not one of this cluster's", "server/agent-token");
    let other = format!("{url} --token K10{}::node:x", "ab".repeat(32));
    refused(&member, &other, "is not of the cluster that the token is for", "poses as it");
    let cut = format!("{url} --token {}", &agent[..40]);
    refused(&member, &cut, "the token", "copy the whole line");
    refused(&member, &url, "this board has no token and no certificate yet", "give --token");
    refused(&member, "", "no server is named", "--server https://board:6443");
    let label = format!("{url} --token {agent} --node-label node-role.kubernetes.io/x=y");
    refused(&member, &label, "may not give itself the label", "kubectl label node");

    let made =
        board.coracle("token create --ttl 1s --description short").output().expect("coracle");
    assert!(made.status.success(), "{made:?}");
    let short = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    eventually("the bootstrap token expires", || {
        let listed = board.coracle("token list").output().expect("coracle");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        !listed.contains("short") || listed.contains("<expired>")
    });
    let short = format!("{url} --token {short}");
    refused(&member, &short, "expired", "coracle token create");

    let newer = member
        .agent(&format!("{url} --token {agent}"))
        .env("CORACLE_VERSION_OVERRIDE", "9.0.0")
        .output()
        .expect("coracle");
    let newer = String::from_utf8_lossy(&newer.stderr).into_owned();
    assert!(newer.contains("an agent must not be newer"), "{newer}");
    assert!(newer.contains("hint: upgrade the servers first"), "{newer}");

    let mut line = member.coracle("server");
    line.args(["--node-name", "second", "--disable-agent", "--write-kubeconfig"]);
    line.arg(member.folder.join("kubeconfig")).args(url.split(' ')).args(["--token", &agent]);
    let said = line.output().expect("coracle");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("an agent's token does not let a server join"), "{said}");
    assert!(said.contains("hint: take the server token"), "{said}");

    // A clock that is wrong cannot be had without root's own clock: the request is made by hand.
    let secret = agent.rsplit(':').next().expect("a secret");
    let hello = r#"{"name":"late","password":"x","version":"v1.36.0+coracle0.1.0","timeMs":0}"#;
    let out = member
        .netns
        .command("curl")
        .args(["-sk", "-u", &format!("node:{secret}"), "-d", hello])
        .arg(format!("https://{BOARD_ADDRESS}:6443/v1-coracle/join"))
        .output()
        .expect("curl");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("the clock of late is") && said.contains("timedatectl"), "{said}");
}

#[test]
fn what_is_not_there_is_waited_for() {
    let board = Board::unstarted();
    board.serve_api();
    let member = Member::new(&board, 1);
    let agent = token(&board, "agent-token");
    let says = |server: &str, what: &str, hint: &str| {
        member.start(&format!("--server https://{server} --token {agent}"));
        eventually_some(what, || {
            let log = member.log();
            if log.contains(what) && log.contains(hint) { Ok(()) } else { Err(log) }
        });
        member.kill();
    };
    let refused = format!("{BOARD_ADDRESS}:1");
    says(&refused, "Connection refused", "nothing listens on port 1 there");
    board.netns.ip(&format!("route add blackhole {}/32", member.address));
    says(&format!("{BOARD_ADDRESS}:6443"), "does not answer within 5 s", "no firewall drops");
    board.netns.ip(&format!("route del blackhole {}/32", member.address));

    let address = format!("{BOARD_ADDRESS}:7000");
    let ssh = board.netns.run(|| std::net::TcpListener::bind(&address).expect("a free port"));
    let greeter = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = ssh.accept().expect("a caller");
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
    });
    let url = format!("--server https://{address} --token {agent}");
    let said = member.refused(&url);
    greeter.join().expect("the greeter");
    assert!(said.contains("hint: another program answers on that port"), "{said}");
}

#[test]
fn nobody_can_pose_as_the_cluster() {
    let board = Board::unstarted();
    board.serve_api();
    let member = Member::new(&board, 1);
    let agent = token(&board, "agent-token");
    let authority = fs::read_to_string(board.data().join("server/tls/server-ca.crt"));
    let address = format!("{BOARD_ADDRESS}:7443");
    let heard =
        impostor::pose(&board, address.parse().expect("an address"), authority.expect("it"));
    let arguments = format!("--server https://{address} --token {agent}");
    refused(&member, &arguments, "setting up TLS to", "somebody poses as it");
    let heard = String::from_utf8_lossy(&heard.lock().expect("no panic while locked")).into_owned();
    assert!(heard.contains("GET /cacerts"), "{heard}");
    assert!(!heard.contains("uthorization"), "the token was given away: {heard}");
}

#[test]
fn a_nodes_name_is_its_boards() {
    let board = Board::start();
    let kubectl = Kubectl::default(&board);
    let member = Member::new(&board, 1);
    let arguments = format!("{} --token {}", url(), token(&board, "agent-token"));
    member.start(&arguments);
    until_ready(&kubectl, "member1");
    member.kill();
    let stranger = Member::new(&board, 2);
    let posing = format!("{arguments} --node-name member1");
    refused(&stranger, &posing, "the node name member1 is another board's", "kubectl delete node");
    // The name of a board that was taken away for good is free again, and nothing is left of it.
    let password = "secrets -n kube-system --field-selector \
                    metadata.name=member1.node-password.coracle";
    kubectl.ok("delete node member1");
    kubectl.until(&format!("get -o name {password}"), "");
    stranger.start(&posing);
    until_ready(&kubectl, "member1");
    // A node without a password is still its board's: whoever has a token could be anybody.
    kubectl.ok(&format!("delete {password}"));
    let third = Member::new(&board, 3);
    refused(&third, &posing, "the node name member1 is another board's", "kubectl delete node");
    stranger.kill();
    stranger.start("--node-name member1");
    kubectl.until_that(&format!("get -o name {password}"), |out| out.contains("member1"));
    // All boards have one VXLAN, as the servers say.
    let other = format!("{arguments} --node-name third --vxlan-vni 9");
    refused(&third, &other, "--vxlan-vni is 9 here, but 1 in the cluster", "leave it out");
}

#[test]
fn node_certificates_are_renewed_in_time() {
    let board = Board::unstarted();
    let mut server = board.server();
    server.args(["--cluster-signing-duration", "12s"]);
    board.launch(server);
    let kubectl = Kubectl::default(&board);
    until_ready(&kubectl, "board");
    let member = Member::new(&board, 1);
    member.start(&format!("{} --token {}", url(), token(&board, "agent-token")));
    until_ready(&kubectl, "member1");
    for signer in ["kube-apiserver-client-kubelet", "kubelet-serving"] {
        let renewed = format!("new certificate signer=\"kubernetes.io/{signer}\"");
        eventually_some("certificates are renewed twice", || {
            let log = member.log();
            if log.matches(&renewed).count() >= 2 { Ok(()) } else { Err(log) }
        });
    }
    assert_eq!(kubectl.ok("get --raw /api/v1/nodes/member1/proxy/healthz"), "ok");
    until_ready(&kubectl, "member1");
}

#[test]
fn authorities_are_replaced_under_a_watch() {
    let board = Board::start();
    let kubectl = Kubectl::default(&board);
    let member = Member::new(&board, 1);
    member.import(&busybox(), SHELL);
    let before = token(&board, "agent-token");
    member.start(&format!("{} --token {before}", url()));
    until_ready(&kubectl, "member1");
    kubectl.apply(&talker("member1"));
    kubectl.ok("wait --for=condition=Ready pod/talker --timeout=60s");
    let old = board.folder.join("old-kubeconfig");
    fs::copy(board.kubeconfig(), &old).expect("a copy");
    let with_old = format!("--kubeconfig {}", old.display());
    let account = kubectl.ok("create token default").trim().to_owned();
    let mut watch = kubectl.spawn(&format!("get configmaps -w -o name {with_old}"));
    let mut seen = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    assert!(seen.next().expect("a line").expect("text").contains("kube-root-ca.crt"));

    let rotate = |arguments: &str| {
        let out = board.coracle(&format!("certificate rotate-ca{arguments}")).output();
        out.expect("coracle")
    };
    let rotated = rotate("");
    assert!(rotated.status.success(), "{rotated:?}");
    let generation = ".metadata.annotations.coracle\\.dev/trust-generation";
    for node in ["board", "member1"] {
        kubectl.until_field(&format!("node/{node}"), generation, "2");
    }
    // All of before goes on: kubeconfig, watch, service-account token, agent token.
    kubectl.ok(&format!("create configmap after {with_old}"));
    assert!(seen.any(|line| line.is_ok_and(|line| line == "configmap/after")));
    watch.kill().expect("kill");
    watch.wait().expect("wait");
    let who = kubectl.run(&format!("auth whoami --token {account} {}", nobody(&board)));
    assert!(who.stdout.contains("system:serviceaccount:default:default"), "{who:?}");
    assert_eq!(kubectl.ok("exec talker -- echo hello"), "hello\n");
    let late = Member::new(&board, 2);
    late.start(&format!("{} --token {before}", url()));
    until_ready(&kubectl, "member2");
    kubectl.until_field("node/member2", generation, "2");
    kubectl.until_that("get configmap kube-root-ca.crt -o yaml", |yaml| {
        yaml.matches("BEGIN CERTIFICATE").count() == 2
    });

    let finished = rotate(" --finish");
    assert!(finished.status.success(), "{finished:?}");
    for node in ["board", "member1", "member2"] {
        kubectl.until_field(&format!("node/{node}"), generation, "3");
    }
    kubectl.ok("get nodes");
    assert_eq!(kubectl.ok("exec talker -- echo still"), "still\n");
    let void = kubectl.run(&format!("get nodes {with_old}"));
    assert!(!void.success, "{void:?}");
    member.kill();
    member.start("");
    kubectl.until_that("get --raw /api/v1/nodes/member1/proxy/healthz", |out| out == "ok");
}

/// A kubeconfig of nobody, so that a token alone says who asks.
fn nobody(board: &Board) -> String {
    let path = board.folder.join("nobody");
    let server = format!("https://{BOARD_ADDRESS}:6443");
    let text = format!(
        "{{apiVersion: v1, kind: Config, current-context: c,
  clusters: [{{name: c, cluster: {{server: '{server}', insecure-skip-tls-verify: true}}}}],
  contexts: [{{name: c, context: {{cluster: c, user: c}}}}], users: [{{name: c, user: {{}}}}]}}"
    );
    fs::write(&path, text).expect("a kubeconfig");
    format!("--kubeconfig {}", path.display())
}
