//! Deployments over time, with both kubectls.

use crate::harness::{Board, both};

/// A Deployment of shells that do nothing and leave when told.
pub fn sleeper(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: test.local/busybox:1
        env: [{{name: RELEASE, value: first}}]
        command: [sh, -c, 'trap exit TERM; echo $RELEASE; while true; do sleep 0.2; done']
"
    )
}

#[test]
fn scale_roll_and_undo() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.apply(&sleeper("web", 2));
        let status = kubectl.ok("rollout status deployment/web --timeout=90s");
        assert!(status.contains("successfully rolled out"), "{status}");
        kubectl.ok("scale deployment/web --replicas=3");
        kubectl.until_field("deployment/web", ".status.readyReplicas", "3");
        kubectl.ok("scale deployment/web --replicas=1 --current-replicas=3");
        kubectl.until_field("deployment/web", ".status.replicas", "1");
        let table = kubectl.ok("get deployment web");
        assert!(table.contains("1/1"), "{table}");

        kubectl.ok("set env deployment/web RELEASE=second");
        kubectl.ok("rollout status deployment/web --timeout=90s");
        kubectl.until_that("logs deployment/web", |log| log == "second");
        let history = kubectl.ok("rollout history deployment/web");
        assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
        let first = kubectl.ok("rollout history deployment/web --revision=1");
        assert!(first.contains("first"), "{first}");
        kubectl.ok("rollout undo deployment/web");
        kubectl.ok("rollout status deployment/web --timeout=90s");
        kubectl.until_that("logs deployment/web", |log| log == "first");
        kubectl.ok("rollout undo deployment/web --to-revision=2");
        kubectl.ok("rollout status deployment/web --timeout=90s");
        let before = kubectl.ok("get pods -o name");
        kubectl.ok("rollout restart deployment/web");
        kubectl.ok("rollout status deployment/web --timeout=90s");
        kubectl
            .until_that("get pods -o name", |now| now.lines().count() == 1 && now != before.trim());
        kubectl.ok("rollout pause deployment/web");
        kubectl.ok("set env deployment/web RELEASE=third");
        kubectl.ok("rollout resume deployment/web");
        kubectl.ok("rollout status deployment/web --timeout=90s");
        kubectl.ok("delete deployment web");
        kubectl.until("get pods,replicasets -o name", "");
    });
}

#[test]
fn crash_loops_back_off_and_say_why() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.ok("run crash --image=test.local/busybox:1 -- sh -c 'echo attempt; exit 3'");
        let waiting = ".status.containerStatuses[0].state.waiting.reason";
        kubectl.until_field("pod/crash", waiting, "CrashLoopBackOff");
        let last = kubectl
            .field("pod/crash", ".status.containerStatuses[0].lastState.terminated.exitCode");
        assert_eq!(last, "3");
        kubectl.until_that(
            "get pod crash -o 'jsonpath={.status.containerStatuses[0].restartCount}'",
            |n| n != "0",
        );
        assert_eq!(kubectl.ok("logs crash --previous").trim(), "attempt");
        assert!(kubectl.ok("get pod crash").contains("CrashLoopBackOff"));
        kubectl.until_that("describe pod crash", |text| text.contains("BackOff"));
        kubectl.ok("delete pod crash --now");
    });
}

#[test]
fn init_containers_and_probes() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.apply(
            "apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: prepare, image: test.local/busybox:1, command: [sh, -c, 'echo ready > /work/state'], volumeMounts: [{name: work, mountPath: /work}]}
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, 'trap exit TERM; while true; do sleep 0.2; done']
    volumeMounts: [{name: work, mountPath: /work}]
    readinessProbe: {exec: {command: [grep, ready, /work/state]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, '!', -e, /work/dead]}, periodSeconds: 1, failureThreshold: 1}
  volumes: [{name: work, emptyDir: {}}]
",
        );
        kubectl.ok("wait --for=condition=Ready pod/probed --timeout=60s");
        assert_eq!(
            kubectl.field("pod/probed", ".status.initContainerStatuses[0].state.terminated.reason"),
            "Completed"
        );
        kubectl.ok("exec probed -- sh -c 'echo no > /work/state'");
        kubectl.until_field("pod/probed", ".status.containerStatuses[0].ready", "false");
        kubectl.ok("exec probed -- sh -c 'echo ready > /work/state'");
        kubectl.until_field("pod/probed", ".status.containerStatuses[0].ready", "true");
        kubectl.ok("exec probed -- touch /work/dead");
        kubectl.until_that(
            "get pod probed -o 'jsonpath={.status.containerStatuses[0].restartCount}'",
            |n| n != "0",
        );
        kubectl.ok("delete pod probed --now");
    });
}
