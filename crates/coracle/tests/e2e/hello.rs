//! The thinnest thread that goes all the way: a Deployment that answers over HTTP.

use crate::harness::{BOARD_ADDRESS, Board, Kubectl, both, eventually_some, get};

/// A Deployment of the hello image and a NodePort before it.
pub fn manifest(replicas: u32, port: u16) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: hello}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: hello}}}}
  template:
    metadata: {{labels: {{app: hello}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: hello
        image: coracle.local/hello
        imagePullPolicy: IfNotPresent
        ports: [{{containerPort: 8080}}]
        env:
        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: hello}}
spec:
  type: NodePort
  selector: {{app: hello}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {port}}}]
"
    )
}

/// The page by the NodePort, as a client of the board sees it.
pub fn page(board: &Board, port: u16) -> String {
    board.client.run(|| {
        eventually_some("the NodePort answers", || {
            match get(&format!("{BOARD_ADDRESS}:{port}"), "/") {
                Ok(response) if response.status == 200 => Ok(response.body),
                other => Err(other),
            }
        })
    })
}

#[test]
fn hello_answers_at_its_node_port() {
    let board = Board::start();
    board.import_hello();
    let kubectl = Kubectl::default(&board);
    kubectl.apply(&manifest(2, 30080));
    kubectl.ok("rollout status deployment/hello --timeout=90s");
    let body = page(&board, 30080);
    assert!(body.contains("board"), "the page names its node: {body}");
    assert!(body.contains("hello-"), "the page names its pod: {body}");

    let cluster_ip = kubectl.field("service/hello", ".spec.clusterIP");
    let answer = board.netns.run(|| get(&format!("{cluster_ip}:80"), "/"));
    assert_eq!(answer.expect("the ClusterIP answers").status, 200);

    // Both pods get their share.
    let mut pods = std::collections::BTreeSet::new();
    let names = kubectl.ok("get pods -l app=hello -o 'jsonpath={.items[*].metadata.name}'");
    let names: Vec<&str> = names.split(' ').collect();
    assert_eq!(names.len(), 2);
    eventually_some("both pods answer", || {
        let body = page(&board, 30080);
        pods.extend(names.iter().find(|name| body.contains(**name)).map(|name| name.to_string()));
        (pods.len() == 2).then_some(()).ok_or(body)
    });

    kubectl.ok("delete deployment/hello service/hello");
    kubectl.until("get pods -o name", "");
    let gone = board.client.run(|| get(&format!("{BOARD_ADDRESS}:30080"), "/"));
    assert!(gone.is_err(), "{gone:?}");
}

#[test]
fn dns_names_services_and_pods_reach_them() {
    let board = Board::start();
    board.import_hello();
    let default = Kubectl::default(&board);
    default.apply(&manifest(1, 30080));
    default.ok("rollout status deployment/hello --timeout=90s");
    both(&board, |kubectl| {
        kubectl.ok("run probe --image=test.local/busybox:1 --restart=Never -- sleep 1000");
        kubectl.ok("wait --for=condition=Ready pod/probe --timeout=60s");
        let address = default.field("service/hello", ".spec.clusterIP");
        let found = kubectl.ok("exec probe -- nslookup hello.default.svc.cluster.local");
        assert!(found.contains(&address), "{found}");
        let found = kubectl.ok("exec probe -- nslookup kubernetes.default.svc.cluster.local");
        assert!(found.contains("10.43.0.1"), "{found}");
        let missing = kubectl.run("exec probe -- nslookup nothing.default.svc.cluster.local");
        assert!(!missing.success && missing.stdout.contains("NXDOMAIN"), "{missing:?}");
        // By the search path, over the service's address, to the other pod.
        let body = kubectl.ok("exec probe -- wget -qO- http://hello.default");
        assert!(body.contains("hello-"), "{body}");
        kubectl.ok("delete pod probe --now");
    });
}
