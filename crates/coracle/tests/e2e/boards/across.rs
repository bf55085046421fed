//! Pods, services, DNS, NodePorts and streams from board to board, within a segment and across
//! a router.

use std::io::{BufRead, BufReader};

use crate::harness::{
    Boards, Kubectl, Netns, RECOVERY, Stack, eventually, eventually_some, get, within,
};

/// A page that names its board, on every board.
const WEB: &str = "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: test.local/busybox:1
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        command: [sh, -c, 'echo $NODE >/tmp/index.html; exec httpd -f -p 8080 -h /tmp']
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

const NODES: [&str; 3] = ["agent-1", "agent-2", "server-1"];

/// Node, pod and address of the page on every board.
fn pods(kubectl: &Kubectl) -> Vec<(String, String, String)> {
    let fields = "{.spec.nodeName} {.metadata.name} {.status.podIP}";
    let all = kubectl.ok(&format!(
        "get pods -l app=web --sort-by=.spec.nodeName -o 'jsonpath={{range .items[*]}}{fields},{{end}}'"
    ));
    let words = |pod: &str| {
        let words: Vec<&str> = pod.split(' ').collect();
        (words[0].to_owned(), words[1].to_owned(), words[2].to_owned())
    };
    all.split(',').filter(|pod| !pod.is_empty()).map(words).collect()
}

#[test]
fn pods_services_and_streams_across_boards_and_subnets() {
    let stack = Stack::up("--servers 1 --agents 2 --subnets 2");
    stack.until_ready(&NODES);
    // Agents are across: 10.87.1.12 is in the second segment.
    all_reach_all(&stack, &NODES, &["10.87.0.11", "10.87.1.12", "10.87.0.13"]);
    an_agent_comes_back(&stack, &stack.kubectl());
}

/// Every board's pod reaches every other's, by address, name and service; streams come from each; the
/// page is at every board's address.
pub fn all_reach_all(boards: &impl Boards, nodes: &[&str], addresses: &[&str]) {
    let kubectl = boards.kubectl();
    kubectl.apply(WEB);
    kubectl.ok("rollout status daemonset/web --timeout=90s");
    let pods = pods(&kubectl);
    assert_eq!(pods.iter().map(|(node, ..)| node.as_str()).collect::<Vec<_>>(), nodes);
    for (node, pod, _) in &pods {
        for (other, _, address) in &pods {
            let line = format!("exec {pod} -- wget -qO- http://{address}:8080/");
            let told = kubectl.until_that(&line, |told| told == other);
            assert_eq!(told.trim(), other, "from {node}");
        }
        let line = format!("exec {pod} -- nslookup web.default.svc.cluster.local");
        kubectl.until_that(&line, |told| told.contains("10.43."));
        let line = format!("exec {pod} -- wget -qO- http://web/");
        kubectl.until_that(&line, |told| nodes.contains(&told));
        for server in 1..=boards.servers().len() {
            let kubectl = boards.kubectl_at(server);
            kubectl.ok(&format!("logs {pod}"));
            assert_eq!(kubectl.ok(&format!("exec {pod} -- sh -c 'echo $NODE'")).trim(), node);
        }
        forwarded(&kubectl, pod, node, boards.laptop());
    }
    for address in addresses {
        let mut seen = std::collections::BTreeSet::new();
        within(RECOVERY, &format!("every board's page at the NodePort of {address}"), || {
            let at = format!("{address}:30080");
            let page = boards.laptop().run(|| get(&at, "/").map(|r| r.body.trim().to_owned()));
            seen.extend(page.ok());
            if seen.len() == nodes.len() { Ok(()) } else { Err(seen.clone()) }
        });
    }
}

fn forwarded(kubectl: &Kubectl, pod: &str, node: &str, laptop: &Netns) {
    let mut forward = kubectl.spawn(&format!("port-forward {pod} :8080"));
    let mut lines = BufReader::new(forward.stdout.take().expect("a pipe")).lines();
    let told = lines.next().expect("a line").expect("text");
    let port = told.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
    let at = format!("127.0.0.1:{}", port.expect("a port"));
    let page = laptop.run(|| get(&at, "/")).expect("a page");
    let _ = forward.kill();
    forward.wait().expect("wait");
    assert_eq!(page.body.trim(), node);
}

fn an_agent_comes_back(stack: &Stack, kubectl: &Kubectl) {
    stack.ok("kill agent-1");
    stack.ok("restore agent-1");
    eventually("agent-1 runs its page again", || {
        let line =
            "get nodes agent-1 -o 'jsonpath={.status.conditions[?(@.type==\"Ready\")].status}'";
        kubectl.run(line).stdout == "True"
    });
    let [(_, agent, _), .., (_, server, _)] = &pods(kubectl)[..] else { panic!("three pods") };
    eventually_some("the board across reaches the others again", || {
        let line = format!("exec {agent} -- wget -qO- http://web/");
        let run = kubectl.run(&line);
        if run.success { Ok(()) } else { Err(run) }
    });
    kubectl.ok(&format!("exec {server} -- true"));
}
