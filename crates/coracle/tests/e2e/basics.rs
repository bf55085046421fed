//! The verbs that people use every day, with both kubectls.

use crate::harness::{Board, both};

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one, tier: front}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, 'echo started; trap exit TERM; while true; do sleep 0.2; done']
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
";

#[test]
fn get_in_every_output() {
    let board = Board::start();
    both(&board, |kubectl| {
        assert_eq!(kubectl.apply(POD).trim(), "pod/one created");
        assert_eq!(kubectl.apply(POD).trim(), "pod/one unchanged");
        kubectl.ok("wait --for=condition=Ready pod/one --timeout=60s");

        let table = kubectl.ok("get pods");
        let mut lines = table.lines();
        let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(head, ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
        let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(row[..4], ["one", "1/1", "Running", "0"]);

        let wide = kubectl.ok("get pod one -o wide");
        let address = kubectl.field("pod/one", ".status.podIP");
        assert!(
            wide.contains("NODE") && wide.contains("board") && wide.contains(&address),
            "{wide}"
        );
        assert_eq!(kubectl.ok("get pods -o name").trim(), "pod/one");
        let yaml = kubectl.ok("get pod one -o yaml");
        assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
        let json: serde_json::Value =
            serde_json::from_str(&kubectl.ok("get pod one -o json")).unwrap();
        assert_eq!(json["status"]["phase"], "Running");
        assert_eq!(json["status"]["qosClass"], "Burstable");
        let columns = kubectl.ok("get pods -o custom-columns=N:.metadata.name,P:.status.phase");
        let columns: Vec<&str> = columns.split_whitespace().collect();
        assert_eq!(columns, ["N", "P", "one", "Running"]);
        let template = kubectl.ok("get pod one -o 'go-template={{.metadata.name}}/{{.kind}}'");
        assert_eq!(template, "one/Pod");
        assert_eq!(kubectl.ok("get pods -l app=one,tier!=back -o name").trim(), "pod/one");
        assert_eq!(kubectl.ok("get pods --field-selector status.phase=Failed -o name"), "");
        assert!(kubectl.ok("get pods --show-labels").contains("app=one,tier=front"));
        let all = kubectl.ok("get pods -A --sort-by=.metadata.name");
        assert!(all.contains("one"), "{all}");
        let fails = kubectl.fails("get pod two");
        assert_eq!(fails.trim(), "Error from server (NotFound): pods \"two\" not found");

        let described = kubectl.ok("describe pod one");
        for part in [
            "Name:",
            "one",
            "Node:",
            "board/",
            "Status:",
            "Running",
            "Container ID:",
            "Events:",
            "Scheduled",
        ] {
            assert!(described.contains(part), "no {part} in {described}");
        }
        let described = kubectl.ok("describe node board");
        assert!(
            described.contains("Allocatable") && described.contains("KubeletReady"),
            "{described}"
        );
        kubectl.ok("delete pod one");
        assert_eq!(kubectl.ok("get pods -o name"), "");
    });
}

#[test]
fn watching() {
    use std::io::{BufRead, BufReader};
    let board = Board::start();
    both(&board, |kubectl| {
        let mut watch = kubectl
            .spawn("get configmaps -w -o name --field-selector metadata.name!=kube-root-ca.crt");
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        kubectl.ok("create configmap a --from-literal=k=v");
        assert_eq!(lines.next().unwrap().unwrap(), "configmap/a");
        kubectl.ok("label configmap a x=y");
        assert_eq!(lines.next().unwrap().unwrap(), "configmap/a");
        kubectl.ok("delete configmap a");
        assert_eq!(lines.next().unwrap().unwrap(), "configmap/a");
        watch.kill().unwrap();
        watch.wait().unwrap();
    });
}

#[test]
fn changing_objects() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.ok("create configmap c --from-literal=a=1 --from-literal=b=2");
        kubectl.ok("label configmap c tier=front");
        kubectl.ok("annotate configmap c note=hi");
        let fails = kubectl.fails("label configmap c tier=back");
        assert!(fails.contains("overwrite"), "{fails}");
        kubectl.ok("label --overwrite configmap c tier=back");
        assert_eq!(kubectl.field("configmap/c", ".metadata.labels.tier"), "back");
        assert_eq!(kubectl.field("configmap/c", ".metadata.annotations.note"), "hi");

        kubectl.ok("patch configmap c --type=merge -p '{\"data\":{\"a\":\"3\",\"b\":null}}'");
        assert_eq!(kubectl.field("configmap/c", ".data"), "{\"a\":\"3\"}");
        kubectl.ok("patch configmap c --type=json -p '[{\"op\":\"add\",\"path\":\"/data/z\",\"value\":\"9\"}]'");
        assert_eq!(kubectl.field("configmap/c", ".data.z"), "9");
        kubectl.ok("create deployment d --image=test.local/busybox:1");
        kubectl.ok("patch deployment d -p '{\"spec\":{\"replicas\":0,\"template\":{\"spec\":{\"containers\":[{\"name\":\"busybox\",\"env\":[{\"name\":\"A\",\"value\":\"b\"}]}]}}}}'");
        assert_eq!(
            kubectl.field("deployment/d", ".spec.template.spec.containers[0].env[0].value"),
            "b"
        );
        assert_eq!(
            kubectl.field("deployment/d", ".spec.template.spec.containers[0].image"),
            "test.local/busybox:1"
        );

        kubectl.ok("create secret generic s --from-literal=password=pearl");
        assert_eq!(kubectl.field("secret/s", ".data.password"), "cGVhcmw=");
        kubectl.ok(
            "create secret generic t --type=kubernetes.io/basic-auth --from-literal=username=u",
        );
        kubectl.ok("create serviceaccount robot");
        kubectl.ok("create role reader --verb=get,list --resource=pods");
        kubectl.ok("create rolebinding reader --role=reader --serviceaccount=new:robot");
        kubectl.ok("delete configmap/c deployment/d secret/s secret/t");
    });
}

#[test]
fn jobs() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.ok("create job sums --image=test.local/busybox:1 -- sh -c 'echo $((6*7))'");
        kubectl.ok("wait --for=condition=complete job/sums --timeout=60s");
        assert_eq!(kubectl.ok("logs job/sums").trim(), "42");
        kubectl.ok("delete job sums");
        kubectl.until("get pods -o name", "");
    });
}

#[test]
fn facts_about_the_cluster() {
    let board = Board::start();
    both(&board, |kubectl| {
        let version = kubectl.ok("version");
        assert!(version.contains("v1.36."), "{version}");
        assert!(version.contains("+coracle"), "{version}");
        let resources = kubectl.ok("api-resources --verbs=list -o wide");
        for part in ["deployments", "deploy", "Deployment", "networkpolicies", "cronjobs"] {
            assert!(resources.contains(part), "no {part} in {resources}");
        }
        let versions = kubectl.ok("api-versions");
        assert!(versions.contains("apps/v1") && versions.contains("rbac.authorization.k8s.io/v1"));
        let explained = kubectl.ok("explain deployment.spec.strategy.rollingUpdate.maxSurge");
        assert!(explained.contains("maximum number of pods"), "{explained}");
        assert!(kubectl.ok("explain pods --recursive").contains("terminationGracePeriodSeconds"));
        assert_eq!(kubectl.ok("auth can-i create pods").trim(), "yes");
        let robot = "--as=system:serviceaccount:default:default";
        let denied = kubectl.run(&format!("auth can-i delete nodes {robot}"));
        assert_eq!((denied.success, denied.stdout.trim()), (false, "no"));
        let denied = kubectl.fails(&format!("get secrets {robot}"));
        assert!(denied.contains("Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"secrets\" in API group \"\" in the namespace"), "{denied}");
        let info = kubectl.ok("cluster-info");
        assert!(info.contains("https://"), "{info}");
    });
}

#[test]
fn diff_and_server_side_apply() {
    let board = Board::start();
    both(&board, |kubectl| {
        let map = |value: &str| {
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m}}, data: {{k: {value}}}}}"
            )
        };
        kubectl.apply(&map("one"));
        let same = kubectl.run_with("diff -f -", &map("one"));
        assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""));
        let other = kubectl.run_with("diff -f -", &map("two"));
        assert_eq!(other.code, Some(1), "{other:?}");
        assert!(
            other.stdout.contains("-  k: one") && other.stdout.contains("+  k: two"),
            "{other:?}"
        );
        assert_eq!(kubectl.field("configmap/m", ".data.k"), "one");

        let mine = map("one").replace("name: m", "name: ssa");
        kubectl.run_with("apply --server-side --field-manager=mine -f -", &mine).ok();
        let theirs = mine.replace("k: one", "k: two");
        let conflict =
            kubectl.run_with("apply --server-side --field-manager=theirs -f -", &theirs).fails();
        assert!(
            conflict.contains("conflict with \"mine\"") && conflict.contains(".data.k"),
            "{conflict}"
        );
        kubectl
            .run_with("apply --server-side --force-conflicts --field-manager=theirs -f -", &theirs)
            .ok();
        assert_eq!(kubectl.field("configmap/ssa", ".data.k"), "two");
        kubectl.run_with("apply --dry-run=server -f -", &map("three")).ok();
        assert_eq!(kubectl.field("configmap/m", ".data.k"), "one");
        kubectl.ok("delete configmap m ssa");
    });
}

#[test]
fn deleting() {
    let board = Board::start();
    both(&board, |kubectl| {
        // A container that does not listen to SIGTERM is gone at once where that is asked for.
        kubectl.ok("run deaf --image=test.local/busybox:1 --restart=Never -- sh -c 'trap : TERM; while true; do sleep 0.2; done'");
        kubectl.ok("wait --for=condition=Ready pod/deaf --timeout=60s");
        kubectl.ok("delete pod deaf --grace-period=0 --force");
        assert_eq!(kubectl.ok("get pods -o name"), "");

        // A finalizer holds an object until it is taken away.
        kubectl.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: held, finalizers: [test.local/hold]}}");
        kubectl.ok("delete configmap held --wait=false");
        assert_ne!(kubectl.field("configmap/held", ".metadata.deletionTimestamp"), "");
        kubectl.ok("patch configmap held --type=merge -p '{\"metadata\":{\"finalizers\":null}}'");
        kubectl.fails("get configmap held");

        kubectl.apply(&crate::rollouts::sleeper("d", 1));
        kubectl.ok("rollout status deployment/d --timeout=60s");
        kubectl.ok("delete deployment d --cascade=orphan");
        kubectl.until_that("get replicasets -o name", |out| out.starts_with("replicaset"));
        let set = kubectl.ok("get replicasets -o name");
        kubectl.until_field(set.trim(), ".metadata.ownerReferences", "");
        kubectl.ok(&format!("delete {} --cascade=foreground", set.trim()));
        assert_eq!(kubectl.ok("get replicasets -o name"), "");
        kubectl.until("get pods -o name", "");
        // A namespace goes with all that is in it.
        let temp = format!("{}-temp", kubectl.namespace);
        kubectl.ok(&format!("create namespace {temp}"));
        kubectl.ok(&format!("create configmap inside -n {temp}"));
        kubectl.ok(&format!("delete namespace {temp} --timeout=60s"));
        kubectl.fails(&format!("get namespace {temp}"));
    });
}

#[test]
fn nodes_out_of_use() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.apply(&crate::rollouts::sleeper("d", 1));
        kubectl.ok("rollout status deployment/d --timeout=60s");
        kubectl.ok("cordon board");
        assert!(kubectl.ok("get node board").contains("Ready,SchedulingDisabled"));
        kubectl.ok("drain board --ignore-daemonsets --force --timeout=60s");
        // The replacement finds no place until the node is back.
        let pending = "get pods --field-selector status.phase=Pending -o name";
        kubectl.until_that(pending, |out| out.starts_with("pod/d-"));
        kubectl.until_that("describe pods -l app=d", |out| {
            out.contains("FailedScheduling") && out.contains("were unschedulable")
        });
        kubectl.ok("uncordon board");
        kubectl.ok("rollout status deployment/d --timeout=60s");
        kubectl.ok("taint node board test.local/wet=yes:NoSchedule");
        kubectl.ok("run dry --image=test.local/busybox:1 --restart=Never -- true");
        kubectl.until_that("describe pod dry", |out| out.contains("untolerated taint"));
        kubectl.ok("taint node board test.local/wet-");
        kubectl.until_field("pod/dry", ".status.phase", "Succeeded");
        kubectl.ok("delete deployment/d pod/dry");
        kubectl.until("get pods -o name", "");
    });
}

#[test]
fn exposing_and_replacing() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.ok("create deployment d --image=test.local/busybox:1 --replicas=0");
        kubectl.ok("expose deployment d --port=80 --target-port=8080 --type=NodePort");
        let port: u16 = kubectl.field("service/d", ".spec.ports[0].nodePort").parse().unwrap();
        assert!((30000..=32767).contains(&port), "{port}");
        assert_eq!(kubectl.field("service/d", ".spec.selector"), "{\"app\":\"d\"}");
        let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {k: one}}";
        kubectl.run_with("create -f -", map).ok();
        let again = kubectl.run_with("create -f -", map).fails();
        assert!(
            again.contains("(AlreadyExists)") && again.contains("configmaps \"m\" already exists"),
            "{again}"
        );
        kubectl.run_with("replace -f -", &map.replace("k: one", "other: two")).ok();
        assert_eq!(kubectl.field("configmap/m", ".data"), "{\"other\":\"two\"}");
        kubectl.ok("delete deployment/d service/d configmap/m");
    });
}
