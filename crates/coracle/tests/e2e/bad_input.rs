//! What people get wrong, and what they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::harness::{Board, Kubectl, Registry, both, busybox, eventually};

#[test]
fn an_invalid_manifest_names_the_field() {
    let board = Board::start();
    both(&board, |kubectl| {
        let refused =
            |manifest: &str| kubectl.run_with("create --validate=false -f -", manifest).fails();
        let text = refused(
            "{apiVersion: v1, kind: Pod, metadata: {name: Bad_Name}, spec: {containers: [{name: a, image: b}]}}",
        );
        assert!(
            text.contains(
                "The Pod \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\""
            ),
            "{text}"
        );
        let text = refused(
            "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}]}}",
        );
        assert!(text.contains("spec.containers[0].image: Required value"), "{text}");
        let text = refused(
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 99999}]}}",
        );
        assert!(text.contains("spec.ports[0].port: Invalid value: 99999"), "{text}");
        let text = refused(
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}}",
        );
        assert!(
            text.contains("spec.template.metadata.labels: Invalid value")
                && text.contains("`selector` does not match template `labels`"),
            "{text}"
        );
        let unknown = kubectl
            .run_with(
                "apply -f -",
                "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, dta: {}}",
            )
            .fails();
        assert!(unknown.contains("dta"), "{unknown}");
        let absent = kubectl
            .run_with("apply -f -", "{apiVersion: none.test/v1, kind: Boat, metadata: {name: b}}")
            .fails();
        assert!(
            absent.contains("no matches for kind \"Boat\" in version \"none.test/v1\""),
            "{absent}"
        );
        assert_eq!(kubectl.ok("get pods,services,deployments -o name"), "");
    });
}

#[test]
fn a_missing_image_shows_what_the_registry_said() {
    let board = Board::start();
    let registry = Registry::start(&board);
    let name = registry.push(&busybox(), "here", "v1");
    both(&board, |kubectl| {
        kubectl.ok(&format!("run there --image={name} -- sleep 1000"));
        kubectl.ok("wait --for=condition=Ready pod/there --timeout=60s");
        kubectl.ok("run lost --image=127.0.0.1:5000/here:v2");
        let reason = ".status.containerStatuses[0].state.waiting.reason";
        let reasons = ["ErrImagePull", "ImagePullBackOff"];
        let query = |path: &str| format!("get pod lost -o 'jsonpath={{{path}}}'");
        kubectl.until_that(&query(reason), |seen| reasons.contains(&seen));
        kubectl.until(&query(reason), "ImagePullBackOff");
        let told =
            kubectl.until_that("describe pod lost", |text| text.contains("Failed to pull image"));
        assert!(told.contains("manifest unknown"), "{told}");
        kubectl.ok("delete pod lost there --now");
    });
}

#[test]
fn a_container_that_cannot_be_made_is_tried_again_and_can_be_deleted() {
    let board = Board::start();
    let kubectl = Kubectl::default(&board);
    // A volume below a file of the image.
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: never}, spec: {restartPolicy: Never, \
         volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: test.local/busybox:1, \
         volumeMounts: [{name: v, mountPath: /bin/busybox/v}]}]}}",
    );
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    kubectl.until_field("pod/never", reason, "CreateContainerError");
    let tries = "get events --field-selector reason=Failed -o 'jsonpath={.items[*].count}'";
    kubectl.until_that(tries, |counts| {
        counts.split(' ').filter_map(|count| count.parse::<u32>().ok()).sum::<u32>() > 1
    });
    assert_eq!(kubectl.field("pod/never", ".status.containerStatuses[0].restartCount"), "0");
    kubectl.ok("delete pod never --timeout=30s");
}

/// One clear line, and a hint.
fn complaint(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    let last: Vec<&str> = text.lines().rev().take(2).collect();
    assert!(last[0].trim_start().starts_with("hint: "), "no hint at the end: {text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_start_that_cannot_work_says_why() {
    let board = Board::start();

    // The same data folder twice.
    let second = board.server().args(["--https-listen-port", "7443"]).output().unwrap();
    complaint(&second, &["error: ", board.data().to_str().unwrap()]);

    // The port is taken.
    let other = Board::unstarted();
    let data = other.data();
    let mut line = board.netns.command(crate::harness::coracle());
    line.arg("server").arg("--data-dir").arg(&data).arg("--run-dir").arg(other.folder.join("run"));
    let taken = line.arg("--write-kubeconfig").arg(other.kubeconfig()).output().unwrap();
    complaint(&taken, &["error: ", "6443"]);

    // A file where the data folder should be.
    let file = other.folder.join("file");
    fs::write(&file, "").unwrap();
    let mut line = other.netns.command(crate::harness::coracle());
    line.arg("server").arg("--data-dir").arg(file.join("data"));
    let unwritable = line.arg("--write-kubeconfig").arg(other.kubeconfig()).output().unwrap();
    complaint(&unwritable, &["error: ", file.to_str().unwrap()]);

    // Pods of IPv6.
    let both = other.server().args(["--cluster-cidr", "10.42.0.0/16,fd00::/56"]).output().unwrap();
    let told = String::from_utf8_lossy(&both.stderr).into_owned();
    assert!(told.contains("--cluster-cidr") && told.contains("IPv4 addresses only"), "{told}");

    // A key that nobody knows.
    let config = other.folder.join("config.yaml");
    fs::write(&config, "node-nme: x\n").unwrap();
    let unknown = other.server().arg("--config").arg(&config).output().unwrap();
    complaint(&unknown, &["error: ", "node-nme", "node-name"]);
    fs::write(&config, "cluster-cidr: [nonsense\n").unwrap();
    let broken = other.server().arg("--config").arg(&config).output().unwrap();
    complaint(&broken, &["error: ", config.to_str().unwrap()]);
}

#[test]
fn the_kubeconfig_is_for_its_owner_alone() {
    let board = Board::start();
    let mode = fs::metadata(board.kubeconfig()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let printed = board.coracle("kubeconfig").output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let path = board.folder.join("printed");
    fs::write(&path, printed.stdout).unwrap();
    let kubectl = Kubectl::default(&board);
    let path = path.to_str().unwrap();
    assert_eq!(kubectl.ok(&format!("--kubeconfig {path} get nodes -o name")).trim(), "node/board");
}

#[test]
fn manifests_dropped_in_are_applied_and_kept() {
    let board = Board::start();
    let folder = board.data().join("server/manifests");
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: dropped, namespace: default}}\ndata: {{k: {value}}}\n"
        )
    };
    fs::write(folder.join("dropped.yaml"), manifest("one")).unwrap();
    let kubectl = Kubectl::default(&board);
    kubectl.until("get configmap dropped -o 'jsonpath={.data.k}'", "one");
    fs::write(folder.join("dropped.yaml"), manifest("two")).unwrap();
    kubectl.until("get configmap dropped -o 'jsonpath={.data.k}'", "two");
    kubectl.ok("delete configmap dropped");
    kubectl.until("get configmap dropped -o 'jsonpath={.data.k}'", "two");
    kubectl.ok("patch configmap dropped --type=merge -p '{\"data\":{\"k\":\"three\"}}'");
    kubectl.until("get configmap dropped -o 'jsonpath={.data.k}'", "two");
    fs::write(folder.join("broken.yaml"), "kind: [\n").unwrap();
    eventually("the log names the broken file", || board.log().contains("broken.yaml"));
}
