//! What a container finds in its file system and environment.

use crate::harness::{Board, both};

#[test]
fn volumes_of_every_kind() {
    let board = Board::start();
    let host = board.folder.join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("host-file"), "from the host").unwrap();
    both(&board, |kubectl| {
        kubectl
            .ok("create configmap settings --from-literal=colour=blue --from-literal=size=small");
        kubectl.ok("create secret generic keys --from-literal=password=pearl");
        let host = host.display();
        kubectl.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: full, labels: {{app: full}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, 'trap exit TERM; while true; do sleep 0.2; done']
    env:
    - {{name: COLOUR, valueFrom: {{configMapKeyRef: {{name: settings, key: colour}}}}}}
    - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: keys, key: password}}}}}}
    - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
    - {{name: GREETING, value: 'hello $(NODE)'}}
    envFrom: [{{configMapRef: {{name: settings}}, prefix: S_}}]
    volumeMounts:
    - {{name: settings, mountPath: /settings}}
    - {{name: settings, mountPath: /one-setting, subPath: size}}
    - {{name: keys, mountPath: /keys, readOnly: true}}
    - {{name: scratch, mountPath: /scratch}}
    - {{name: fast, mountPath: /fast}}
    - {{name: host, mountPath: /host}}
    - {{name: about, mountPath: /about}}
  - name: second
    image: test.local/busybox:1
    command: [sh, -c, 'trap exit TERM; echo shared > /scratch/note; while true; do sleep 0.2; done']
    volumeMounts: [{{name: scratch, mountPath: /scratch}}]
  volumes:
  - {{name: settings, configMap: {{name: settings}}}}
  - {{name: keys, secret: {{secretName: keys, defaultMode: 0400}}}}
  - {{name: scratch, emptyDir: {{}}}}
  - {{name: fast, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}
  - {{name: host, hostPath: {{path: {host}, type: Directory}}}}
  - name: about
    downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}
"
        ));
        kubectl.ok("wait --for=condition=Ready pod/full --timeout=60s");
        let sh = |script: &str| kubectl.ok(&format!("exec full -c main -- sh -c '{script}'"));
        assert_eq!(
            sh("echo $COLOUR $PASSWORD $GREETING $S_size"),
            "blue pearl hello board small\n"
        );
        assert_eq!(sh("cat /settings/colour /one-setting /keys/password"), "bluesmallpearl");
        assert_eq!(sh("stat -Lc %a /keys/password"), "400\n");
        assert_eq!(sh("grep -c tmpfs./fast /proc/mounts"), "1\n");
        assert_eq!(sh("cat /host/host-file"), "from the host");
        assert_eq!(sh("cat /about/labels").trim(), "app=\"full\"");
        kubectl.until("exec full -c main -- cat /scratch/note", "shared");
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        assert_eq!(sh(&format!("cat {token}/namespace")), kubectl.namespace);
        assert!(sh(&format!("head -1 {token}/ca.crt")).contains("BEGIN CERTIFICATE"));
        assert_eq!(sh(&format!("cut -d. -f1 {token}/token | wc -l")), "1\n");
        // A secret's bytes are on no disk.
        let fs = sh("stat -fc %T /keys");
        assert!(fs.contains("tmpfs"), "{fs}");
        // A changed ConfigMap reaches the running pod.
        kubectl.ok("patch configmap settings --type=merge -p '{\"data\":{\"colour\":\"green\"}}'");
        kubectl.until("exec full -c main -- cat /settings/colour", "green");
        kubectl.ok("delete pod full --now");
    });
}

#[test]
fn a_missing_configmap_is_waited_for() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.apply(
            "apiVersion: v1
kind: Pod
metadata: {name: early}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: test.local/busybox:1, command: [sh, -c, 'echo $LATE'], envFrom: [{configMapRef: {name: late}}]}
",
        );
        let reason = ".status.containerStatuses[0].state.waiting.reason";
        kubectl.until_field("pod/early", reason, "CreateContainerConfigError");
        kubectl.ok("create configmap late --from-literal=LATE=better");
        kubectl.until_field("pod/early", ".status.phase", "Succeeded");
        assert_eq!(kubectl.ok("logs early").trim(), "better");
        kubectl.ok("delete pod early");
    });
}

#[test]
fn memory_limits_hold() {
    let board = Board::start();
    both(&board, |kubectl| {
        kubectl.apply(
            "apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: test.local/busybox:1
    command: [sh, -c, 'x=0123456789abcdef; while true; do x=$x$x; done']
    resources: {limits: {memory: 16Mi}}
",
        );
        let reason = ".status.containerStatuses[0].state.terminated.reason";
        kubectl.until_field("pod/greedy", reason, "OOMKilled");
        kubectl.until_field("pod/greedy", ".status.phase", "Failed");
        kubectl.ok("delete pod greedy");
    });
}
