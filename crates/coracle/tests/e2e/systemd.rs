//! The services of a server and of an agent, on two machines with a real systemd each.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Kubectl, Machine, SHELL, busybox, eventually};

/// What a test machine's fuller disk must not change.
const ROOMY: &str = "--eviction-hard=nodefs.inodesFree<1%";

/// Two machines on one cable, switched on.
fn two_machines() -> (Machine, Machine) {
    let (mut first, mut second) = (Machine::new("pi1"), Machine::new("pi2"));
    first.netns.ip(&format!("link add eth0 type veth peer name eth0 netns {}", second.netns.name));
    for (machine, own, other) in [(&first, 1, 2), (&second, 2, 1)] {
        machine.netns.ip(&format!("addr add 192.0.2.{own}/24 dev eth0"));
        machine.netns.ip("link set eth0 up");
        machine.netns.ip(&format!("route add default via 192.0.2.{other}"));
    }
    first.boot();
    second.boot();
    (first, second)
}

/// A pod on pi2 that writes down when it was told to end, and when it did.
fn pod(name: &str, namespace: &str, class: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{\
         nodeName: pi2, {class} volumes: [{{name: log, hostPath: {{path: /var/lib/coracle}}}}], \
         containers: [{{name: c, image: {SHELL}, volumeMounts: [{{name: log, mountPath: /log}}], \
         command: [sh, -c, \"trap 'echo {name} told >> /log/ends; sleep 1; echo {name} ended >> \
         /log/ends; exit 0' TERM; while :; do sleep 0.1; done\"]}}]}}}}"
    )
}

fn import(machine: &Machine) {
    busybox().archive(&machine.file("/var/lib/coracle/shell.tar"), SHELL);
    machine.run("coracle image import /var/lib/coracle/shell.tar");
}

#[test]
fn systemd_runs_a_server_and_an_agent_and_goes_off_in_order() {
    let (server, mut agent) = two_machines();
    server.run(&format!("/mnt/coracle install -- --node-name pi1 {ROOMY}"));
    assert_eq!(server.property("coracle", "ActiveState"), "active", "it said that it is ready");
    let kubeconfig = server.folder.join("kubeconfig");
    fs::write(&kubeconfig, server.run("coracle kubeconfig")).expect("written");
    let kubectl = Kubectl::at(&server.netns, kubeconfig, server.folder.clone());

    // What cannot work is refused before anything is written.
    let said = agent.try_run("/mnt/coracle install agent --node-nme x").expect_err("refused");
    assert!(said.contains("--node-nme") && said.contains("coracle agent --help"), "{said}");
    let said = agent.try_run("/mnt/coracle install agent").expect_err("refused");
    assert!(said.contains("no server of one is named"), "{said}");
    assert!(!agent.file("/usr/local/bin/coracle").exists());

    let token = fs::read_to_string(server.file("/var/lib/coracle/server/agent-token"));
    let token = token.expect("a token").trim().to_owned();
    let join = format!("--server https://192.0.2.1:6443 --token {token} --node-name pi2");
    agent.run(&format!("/mnt/coracle install agent {join} {ROOMY}"));
    kubectl.until_field("node/pi2", ".status.conditions[?(@.type==\"Ready\")].status", "True");
    the_token_is_for_root_only(&agent, &token);
    assert!(agent.run("systemd-inhibit --list").contains("Pods are ended first"));
    let said = agent.try_run("coracle install").expect_err("refused");
    assert!(said.contains("this board runs coracle-agent.service already"), "{said}");

    import(&agent);
    kubectl.apply(&pod("web", "default", ""));
    let dns = pod("dns", "kube-system", "priorityClassName: system-node-critical,");
    kubectl.run_with("--namespace=kube-system apply -f -", &dns).ok();
    kubectl.ok("wait --for=condition=Ready pod/web --timeout=60s");
    kubectl.ok("-n kube-system wait --for=condition=Ready pod/dns --timeout=60s");
    the_service_is_stopped_and_killed(&agent, &kubectl);

    agent.run("systemctl poweroff");
    let ready = |field: &str| format!(".status.conditions[?(@.type==\"Ready\")].{field}");
    kubectl.until_field("node/pi2", &ready("message"), "node is shutting down");
    assert_eq!(kubectl.field("node/pi2", &ready("status")), "False");
    assert_eq!(kubectl.field("node/pi2", &ready("reason")), "KubeletNotReady");
    agent.until_off();
    let ends = fs::read_to_string(agent.folder.join("data/ends")).expect("what pods wrote");
    assert_eq!(ends, "web told\nweb ended\ndns told\ndns ended\n", "critical pods go last");
    assert_eq!(kubectl.field("pod/web", ".status.reason"), "Terminated");
    let message = kubectl.field("pod/web", ".status.message");
    assert_eq!(message, "Pod was terminated in response to imminent node shutdown.");

    // Switched on again, the board is back by itself.
    agent.boot();
    kubectl.until_field("node/pi2", &ready("message"), "kubelet is posting ready status");
    for machine in [&server, &agent] {
        nothing_is_left(machine);
    }
}

fn the_token_is_for_root_only(agent: &Machine, token: &str) {
    let unit = agent.file("/etc/systemd/system/coracle-agent.service");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode();
    assert_eq!(mode(&unit) & 0o777, 0o644);
    assert!(!fs::read_to_string(&unit).expect("the unit").contains(token));
    let file = agent.file("/etc/coracle/token");
    assert_eq!(mode(&file) & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&file).expect("the token").trim(), token);
    let main = agent.property("coracle-agent", "MainPID");
    let line = fs::read(agent.file(&format!("/proc/{main}/cmdline"))).expect("its command line");
    assert!(!String::from_utf8_lossy(&line).contains(token));
}

/// Restarted, stopped, killed: the service comes and goes, the pods stay.
fn the_service_is_stopped_and_killed(agent: &Machine, kubectl: &Kubectl) {
    let container = || kubectl.field("pod/web", ".status.containerStatuses[0].containerID");
    let before = container();
    agent.run("systemctl restart coracle-agent");
    agent.run("systemctl stop coracle-agent");
    assert_eq!(agent.property("coracle-agent", "Result"), "success");
    agent.run("systemctl start coracle-agent");
    agent.run("systemctl kill --kill-whom=main --signal=KILL coracle-agent");
    eventually("systemd starts it again", || {
        agent.property("coracle-agent", "NRestarts") == "1"
            && agent.property("coracle-agent", "ActiveState") == "active"
    });
    kubectl.until_that("logs web", |log| log.is_empty());
    assert_eq!(container(), before);
    assert_eq!(kubectl.field("pod/web", ".status.containerStatuses[0].restartCount"), "0");
    assert!(!agent.file("/var/lib/coracle/ends").exists(), "nobody told the pods to end");
}

fn nothing_is_left(machine: &Machine) {
    machine.run("coracle uninstall --yes");
    for gone in [
        "/etc/coracle",
        "/etc/systemd/system/coracle.service",
        "/etc/systemd/system/coracle-agent.service",
        "/etc/systemd/logind.conf.d/coracle.conf",
        "/usr/local/bin/coracle",
        "/run/coracle",
    ] {
        assert!(!machine.file(gone).exists(), "{gone} on {}", machine.name);
    }
}
