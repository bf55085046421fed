//! `kubectl drain` and what may stand in its way.

use crate::harness::{Board, both};

/// Pods of every sort: a bare one, one with a volume, one on every node, and a guarded pair.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {app: bare}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'test.local/busybox:1', command: [sleep, '1000']}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'test.local/busybox:1', command: [sleep, '1000']}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: scratch}
spec:
  selector: {matchLabels: {app: scratch}}
  template:
    metadata: {labels: {app: scratch}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: v, emptyDir: {}}]
      containers: [{name: c, image: 'test.local/busybox:1', command: [sleep, '1000'], volumeMounts: [{name: v, mountPath: /v}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: guarded}
spec:
  replicas: 2
  selector: {matchLabels: {app: guarded}}
  template:
    metadata: {labels: {app: guarded}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'test.local/busybox:1', command: [sleep, '1000']}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: guard}
spec: {minAvailable: 2, selector: {matchLabels: {app: guarded}}}
";

#[test]
fn drain_asks_before_it_ends_anything() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.apply(PODS);
        kubectl.ok("rollout status deployment/scratch --timeout=60s");
        kubectl.ok("rollout status deployment/guarded --timeout=60s");
        kubectl.ok("rollout status daemonset/everywhere --timeout=60s");
        kubectl.until_field("pod/bare", ".status.phase", "Running");

        // Each reason by name, and nothing has been touched.
        let refused = kubectl.fails("drain board --timeout=20s");
        for part in ["DaemonSet-managed", "local storage", "use --force to override"] {
            assert!(refused.contains(part), "no {part} in {refused}");
        }
        assert_eq!(kubectl.field("pod/bare", ".status.phase"), "Running");

        let line = "drain board --ignore-daemonsets --delete-emptydir-data --force --timeout=15s";
        let waiting = kubectl.fails(line);
        let budget = "Cannot evict pod as it would violate the pod's disruption budget.";
        assert!(waiting.contains(budget), "{waiting}");
        kubectl.fails("get pod bare");
        let guarded = "get pods -l app=guarded --field-selector status.phase=Running -o name";
        assert_eq!(kubectl.ok(guarded).lines().count(), 2);

        kubectl.ok("delete pdb guard");
        kubectl.ok(&line.replace("15s", "60s"));
        kubectl.until(guarded, "");
        kubectl.ok("rollout status daemonset/everywhere --timeout=60s");
        kubectl.ok("uncordon board");
        kubectl.ok("rollout status deployment/guarded --timeout=60s");
        kubectl.ok("delete deployment/guarded deployment/scratch daemonset/everywhere");
        kubectl.until("get pods -o name", "");
    });
}
