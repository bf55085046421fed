//! A board that falls silent and comes back, and the drill that shows it to the owner.

use crate::harness::{Boards, RECOVERY, Stack, coracle, within};

/// A pod on each of two boards, quick to leave one that is lost.
const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers: [{name: main, image: 'test.local/busybox:1', command: [sleep, '100000']}]
---
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec:
  nodeName: agent-1
  tolerations: [{operator: Exists}]
  containers: [{name: main, image: 'test.local/busybox:1', command: [sleep, '100000']}]
";

/// The processes on a board whose command line has this word.
fn running(stack: &Stack, board: &str, word: &str) -> usize {
    let (_, said) = stack.run(&format!("exec {board} -- ps -ef"));
    said.lines().filter(|line| line.contains(word) && !line.contains("ps -ef")).count()
}

#[test]
fn a_silent_board_loses_its_pods_and_is_cleaned_when_it_returns() {
    let stack = Stack::up(
        "--servers 1 --agents 1 --server-arg node-monitor-grace-period=15s --server-arg \
         default-unreachable-toleration-seconds=2",
    );
    let kubectl = stack.kubectl();
    kubectl.apply(WEB);
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.until_field("pod/stays", ".status.conditions[?(@.type==\"Ready\")].status", "True");
    assert_eq!(running(&stack, "agent-1", "sleep 100000"), 2);

    stack.ok("cut agent-1");
    stack.until_ready(&["server-1"]);
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    kubectl.until_field("pod/stays", ready, "False");
    let here = "get pods -l app=web --field-selector spec.nodeName=server-1 -o name";
    within(RECOVERY, "both pods are on the board that is left", || {
        let run = kubectl.run(here);
        if run.stdout.lines().count() == 2 { Ok(()) } else { Err(run) }
    });
    // The board itself ends nothing while it cannot know.
    assert_eq!(running(&stack, "agent-1", "sleep 100000"), 2);

    stack.ok("heal agent-1");
    stack.until_ready(&["agent-1", "server-1"]);
    within(RECOVERY, "the pod that moved is ended on the board that returned", || {
        match running(&stack, "agent-1", "sleep 100000") {
            1 => Ok(()),
            other => Err(other),
        }
    });
    kubectl.until_field("pod/stays", ready, "True");
    assert_eq!(kubectl.field("node/agent-1", ".spec.taints"), "");
    assert_eq!(kubectl.ok("get pods -l app=web -o name").lines().count(), 2);

    // A Node that somebody deletes is made again by its agent, and its pods stay.
    kubectl.ok("delete node agent-1");
    stack.until_ready(&["agent-1", "server-1"]);
    assert_eq!(running(&stack, "agent-1", "sleep 100000"), 1);
}

/// `coracle drill LINE` on the laptop.
fn drill(stack: &Stack, line: &str) -> (bool, String) {
    let kubeconfig = stack.boards().join("lab/kubeconfig");
    let mut command = stack.laptop.command(coracle());
    command.arg("drill").args(line.split(' ')).arg("--kubeconfig").arg(kubeconfig);
    let out = command.output().expect("coracle");
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_drill_takes_out_each_of_three_servers() {
    let stack = Stack::up(
        "--servers 3 --agents 0 --vip auto --hello --server-arg node-monitor-grace-period=15s",
    );
    let (passed, said) = drill(&stack, "--yes --only server,vip --outage 8s --vip 10.87.0.100");
    println!("{said}");
    assert!(passed, "{said}");
    let ends_well = |start: &str| {
        said.lines().any(|line| {
            let row = line.split_whitespace().collect::<Vec<_>>().join(" ");
            row.starts_with(start) && row.ends_with("ok")
        })
    };
    for start in ["server server-1", "server server-2", "server server-3", "vip "] {
        assert!(ends_well(start), "{start}: {said}");
    }
    let kubectl = stack.kubectl();
    within(RECOVERY, "nothing of the drill is left", || {
        let run = kubectl.run("get namespace coracle-drill");
        if run.success { Err(run) } else { Ok(()) }
    });
    let (passed, said) = drill(&stack, "--yes --only agent");
    assert!(!passed && said.contains("there is nothing of that kind to take out"), "{said}");
    let (passed, said) = drill(&stack, "--only server");
    assert!(!passed && said.contains("nothing was taken out"), "{said}");
}

#[test]
fn no_drill_on_a_single_server() {
    let stack = Stack::up("--servers 1 --agents 1");
    let (passed, said) = drill(&stack, "--yes");
    assert!(!passed && said.contains("server-1 is the only server"), "{said}");
}
