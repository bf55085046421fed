//! The story of three masters: each is unplugged in turn, and the owner hardly notices.

use std::time::Instant;

use crate::harness::{Boards, Kubectl, RECOVERY, Stack, within};

/// A page on every board that has room, and quick to leave a node that is gone.
const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers:
      - name: main
        image: test.local/busybox:1
        command: [sh, -c, 'echo $HOSTNAME >/tmp/index.html; exec httpd -f -p 8080 -h /tmp']
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
";

/// The page, at any board's address.
fn page(boards: &impl Boards, address: &str) -> bool {
    let address = format!("{address}:30080");
    boards.laptop().run(|| crate::harness::get(&address, "/").is_ok_and(|r| r.status == 200))
}

/// Waits until three pods are ready on nodes other than `gone`.
fn until_web_is_off(kubectl: &Kubectl, gone: &str) {
    let pods =
        "{.spec.nodeName} {.metadata.deletionTimestamp} {.status.containerStatuses[*].ready}";
    let line = format!("get pods -l app=web -o 'jsonpath={{range .items[*]}}{pods},{{end}}'");
    within(RECOVERY, &format!("three pods run, none of them on {gone}"), || {
        let run = kubectl.run(&line);
        let running =
            run.stdout.split(',').filter(|pod| pod.ends_with("  true") && !pod.starts_with(gone));
        if running.count() == 3 { Ok(()) } else { Err(run) }
    });
}

#[test]
fn three_masters_one_unplugged_in_turn() {
    let stack =
        Stack::up("--servers 3 --agents 0 --vip auto --server-arg node-monitor-grace-period=15");
    each_is_unplugged(&stack, &["server-1", "server-2", "server-3"], 3);
}

/// The first `count` of the servers are unplugged, one after the other; `nodes` are all there are.
pub fn each_is_unplugged(boards: &impl Boards, nodes: &[&str], count: usize) {
    let servers = boards.servers();
    let kubectl = boards.kubectl();
    kubectl.apply(WEB);
    kubectl.ok("rollout status deployment/web --timeout=90s");
    for (index, gone) in servers.iter().enumerate().take(count) {
        let left: Vec<&str> = nodes.iter().copied().filter(|name| name != gone).collect();
        let begun = Instant::now();
        boards.unplug(gone);
        // Through the virtual address: a write that is acknowledged while one board is away.
        within(RECOVERY, "a write through the virtual address", || {
            let line = format!("create configmap during-{index} --request-timeout=2s");
            let run = kubectl.run(&line);
            if run.success || run.stderr.contains("already exists") { Ok(()) } else { Err(run) }
        });
        println!("{gone} unplugged: the API takes writes after {:?}", begun.elapsed());
        let took = boards.until_ready(&left);
        println!("{gone} unplugged: seen as not ready after {took:?}");
        until_web_is_off(&kubectl, gone);
        println!("{gone} unplugged: all pods are back after {:?}", begun.elapsed());
        for (other, name) in servers.iter().enumerate().filter(|(_, name)| *name != gone) {
            within(RECOVERY, &format!("the page at {name}"), || {
                page(boards, &boards.address(other + 1)).then_some(()).ok_or("no page")
            });
        }
        boards.plug(gone);
        let took = boards.until_ready(nodes);
        println!("{gone} plugged in again: ready after {took:?}");
        for server in 1..=servers.len() {
            let kubectl = boards.kubectl_at(server);
            kubectl.until(
                "get configmaps -o name --field-selector metadata.name!=kube-root-ca.crt",
                &(0..=index)
                    .map(|i| format!("configmap/during-{i}"))
                    .collect::<Vec<_>>()
                    .join("\n"),
            );
        }
    }
}
