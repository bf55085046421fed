//! The agent with the real API server, runtime and network on one board.
//!
//! The binary is its own shim, which is why it has a `main` of its own. It works in network and
//! mount namespaces of its own, so nothing of the machine is touched.

mod kubectl;
mod rig;

use std::process::ExitCode;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{LogParams, Patch, PatchParams, PostParams};
use nix::sched::{CloneFlags, unshare};
use rig::{BUSYBOX, Rig};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|a| a == runtime::shim::ARGUMENT) {
        return runtime::shim::main(args.skip(1));
    }
    if args.any(|a| a == "--list") {
        println!("board: test");
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() || !std::path::Path::new("/bin/busybox").exists() {
        println!("skipped: needs root and /bin/busybox (Debian package busybox-static)");
        return ExitCode::SUCCESS;
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .try_init();
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "loopback");
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = executor.block_on(async {
        let mut rig = Rig::new().await;
        let checked = tokio::spawn(async move {
            let result = std::panic::AssertUnwindSafe(board(&mut rig));
            let result = futures::FutureExt::catch_unwind(result).await;
            rig.finish().await;
            result.is_ok()
        });
        tokio::time::timeout(std::time::Duration::from_secs(240), checked).await
    });
    executor.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        other => {
            println!("failed: {other:?}");
            ExitCode::FAILURE
        }
    }
}

async fn board(rig: &mut Rig) {
    let began = Instant::now();
    rig.start().await;
    node_is_ready(rig, began).await;
    a_pod_with_everything(rig).await;
    jobs_end(rig).await;
    crash_loops(rig).await;
    missing_things_are_told(rig).await;
    probes(rig).await;
    services(rig).await;
    kubectl::streams(rig).await;
    ends_of_pods(rig).await;
    death_of_a_shim(rig).await;
    who_is_refused(rig).await;
    other_resources(rig).await;
    restarts_of_the_agent(rig).await;
}

async fn node_is_ready(rig: &Rig, began: Instant) {
    let nodes: Api<Node> = Api::all(rig.client.clone());
    loop {
        let node = serde_json::to_value(nodes.get_opt("board").await.unwrap()).unwrap();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            println!("node ready after {:?}", began.elapsed());
            assert_eq!(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
            return;
        }
        assert!(began.elapsed().as_secs() < 20, "{node:#}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn a_pod_with_everything(rig: &Rig) {
    let maps: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "default");
    let map = json!({"metadata": {"name": "cm"}, "data": {"k": "v1"}});
    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(rig.client.clone(), "default");
    let secret = json!({"metadata": {"name": "s"}, "data": {"p": "aHVzaA=="}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let script = "echo env=$FROM_MAP,$FROM_SECRET,$IP; cat /cm/k; echo; ls -l /cm/k; cat /etc/hosts; hostname; \
                  ls /token; touch /empty/x; cat /sub; echo; echo ready; \
                  while true; do cat /cm/k > /tmp/k; sleep 0.2; done";
    let began = Instant::now();
    rig.create("all", json!({
        "initContainers": [{"name": "init", "image": BUSYBOX, "command": ["sh", "-c", "echo hello > /empty/from-init"],
            "volumeMounts": [{"name": "empty", "mountPath": "/empty"}]}],
        "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
            "env": [{"name": "FROM_MAP", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
                {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"memory": "64Mi"}},
            "volumeMounts": [{"name": "cm", "mountPath": "/cm"}, {"name": "empty", "mountPath": "/empty"},
                {"name": "token", "mountPath": "/token"}, {"name": "empty", "mountPath": "/sub", "subPath": "from-init"}]}],
        "volumes": [{"name": "cm", "configMap": {"name": "cm"}}, {"name": "empty", "emptyDir": {}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}]}))
    .await;
    let pod = rig.phase("all", "Running").await;
    println!("create to Running with an init container: {:?}", began.elapsed());
    let status = &pod["status"];
    assert_eq!(status["qosClass"], "Burstable");
    assert!(status["podIP"].as_str().unwrap().starts_with("10.42.0."), "{status:#}");
    assert!(
        status["conditions"].as_array().unwrap().iter().all(|c| c["status"] == "True"),
        "{status:#}"
    );
    let params = || LogParams { container: Some("main".into()), ..LogParams::default() };
    let log = log_with(rig, "all", "ready").await;
    for want in [
        "env=v1,hush,10.42.0.",
        "v1\n",
        "..data/k",
        "\tall\n",
        "labels\ntoken",
        "hello\n",
        "all\nlabels",
    ] {
        assert!(log.contains(want), "{want:?} is not in {log}");
    }
    let tail =
        rig.logs("all", LogParams { tail_lines: Some(1), timestamps: true, ..params() }).await;
    assert!(tail.ends_with("Z ready\n"), "{tail}");
    let patch = Patch::Merge(json!({"data": {"k": "v2"}}));
    maps.patch("cm", &PatchParams::default(), &patch).await.unwrap();
    live_update(rig).await;
    let began = Instant::now();
    rig.delete("all").await;
    println!("deleted after {:?}", began.elapsed());
}

/// Waits for a text in the log of the main container.
async fn log_with(rig: &Rig, pod: &str, text: &str) -> String {
    let began = Instant::now();
    loop {
        let params = LogParams { container: Some("main".into()), ..LogParams::default() };
        let log = rig.logs(pod, params).await;
        if log.contains(text) {
            return log;
        }
        assert!(began.elapsed().as_secs() < 20, "{text:?} never came: {log}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The volume on the board follows the ConfigMap.
async fn live_update(_rig: &Rig) {
    let root = format!("/var/tmp/cor-agent-{}/run-agent/volumes", std::process::id());
    let began = Instant::now();
    loop {
        let found = std::fs::read_dir(&root).unwrap().flatten().any(|entry| {
            std::fs::read_to_string(entry.path().join("volumes/cm/k"))
                .is_ok_and(|text| text == "v2")
        });
        if found {
            return;
        }
        assert!(began.elapsed().as_secs() < 20, "the ConfigMap volume was not updated");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn jobs_end(rig: &Rig) {
    for (name, code, phase) in [("good", 0, "Succeeded"), ("bad", 3, "Failed")] {
        let script = format!("echo last words > /dev/termination-log; exit {code}");
        rig.create(
            name,
            json!({"restartPolicy": "Never",
            "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}]}),
        )
        .await;
        let pod = rig.phase(name, phase).await;
        let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(
            (&end["exitCode"], &end["message"]),
            (&json!(code), &json!("last words\n")),
            "{end}"
        );
        rig.delete(name).await;
    }
}

async fn crash_loops(rig: &Rig) {
    rig.create("crash", json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", "echo boom; exit 1"]}]})).await;
    let pod = rig
        .until("crash", "in a crash loop", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "CrashLoopBackOff"
        })
        .await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("back-off 10s restarting failed container=main pod=crash_default("),
        "{message}"
    );
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    let previous = LogParams { previous: true, ..LogParams::default() };
    assert_eq!(rig.logs("crash", previous).await, "boom\n");
    rig.event(
        "crash",
        "BackOff",
        "Back-off restarting failed container main in pod crash_default(",
    )
    .await;
    rig.delete("crash").await;
}

async fn missing_things_are_told(rig: &Rig) {
    rig.create(
        "config",
        json!({"containers": [{"name": "main", "image": BUSYBOX,
        "envFrom": [{"configMapRef": {"name": "nope"}}]}]}),
    )
    .await;
    rig.create("image", json!({"containers": [{"name": "main", "image": "127.0.0.1:1/nope:1"}]}))
        .await;
    rig.create(
        "never",
        json!({"containers": [{"name": "main", "image": "nope:1", "imagePullPolicy": "Never"}]}),
    )
    .await;
    rig.create("command", json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": BUSYBOX, "command": ["/nope"]}]})).await;
    let waiting = |reason: &'static str| {
        move |pod: &Value| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
        }
    };
    let pod =
        rig.until("config", "told of its ConfigMap", waiting("CreateContainerConfigError")).await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"],
        "configmap \"nope\" not found"
    );
    rig.until("image", "ErrImagePull", waiting("ErrImagePull")).await;
    rig.until("image", "ImagePullBackOff", waiting("ImagePullBackOff")).await;
    rig.event("image", "BackOff", "Back-off pulling image \"127.0.0.1:1/nope:1\"").await;
    rig.until("never", "ErrImageNeverPull", waiting("ErrImageNeverPull")).await;
    let pod = rig.phase("command", "Failed").await;
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(end["reason"], "StartError", "{end}");
    for name in ["config", "image", "never", "command"] {
        rig.delete(name).await;
    }
}

async fn probes(rig: &Rig) {
    let script =
        "echo hi > /tmp/index.html; httpd -p 8080 -h /tmp; sleep 1; touch /tmp/up; sleep 1000";
    rig.create("probed", json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
        "startupProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
        "readinessProbe": {"exec": {"command": ["stat", "/tmp/up"]}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/gone", "port": 8080}, "periodSeconds": 1, "failureThreshold": 3}}]}))
    .await;
    let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    rig.until("probed", "ready", ready).await;
    rig.until("probed", "restarted by its liveness probe", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    let unhealthy = "Liveness probe failed: HTTP probe failed with statuscode: 404";
    rig.event("probed", "Unhealthy", unhealthy).await;
    rig.event("probed", "Killing", "Container main failed liveness probe, will be restarted").await;
    rig.delete("probed").await;
}

async fn restarts_of_the_agent(rig: &mut Rig) {
    let spec = || json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "1000"]}]});
    rig.create("stays", spec()).await;
    rig.create("goes", spec()).await;
    let before = rig.phase("stays", "Running").await;
    let refused = rig.phase("second", "Failed").await;
    rig.phase("goes", "Running").await;
    rig.stop().await;
    rig.reopen_runtime().await;
    let now = kube::api::DeleteParams::default().grace_period(0);
    rig.pods().delete("goes", &now).await.unwrap();
    rig.start().await;
    rig.create("new", spec()).await;
    rig.phase("new", "Running").await;
    let after = rig.phase("stays", "Running").await;
    let part = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
    assert_eq!(part(&before), part(&after));
    assert_eq!(before["status"]["podIP"], after["status"]["podIP"]);
    assert_eq!(refused["status"], rig.phase("second", "Failed").await["status"]);
    rig.delete("second").await;
    rig.delete("stays").await;
    rig.delete("new").await;
}

async fn ends_of_pods(rig: &Rig) {
    let main =
        |script: &str| json!({"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]});
    // A deadline ends a pod that would run on.
    let spec = json!({"activeDeadlineSeconds": 1, "containers": [main("sleep 1000")]});
    rig.create("late", spec).await;
    let pod = rig.phase("late", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    rig.delete("late").await;
    // A sidecar does not keep a pod from being done.
    let sidecar = json!({"name": "side", "image": BUSYBOX, "command": ["sleep", "1000"], "restartPolicy": "Always"});
    let spec = json!({"restartPolicy": "Never", "initContainers": [sidecar], "containers": [main("sleep 0.2")]});
    rig.create("side", spec).await;
    rig.phase("side", "Succeeded").await;
    rig.delete("side").await;
    // `preStop` runs before the signal; both leave traces on the board.
    let traces = rig.folder().join("traces");
    let mut container = main(
        "trap 'echo term >> /traces/log; exit 0' TERM; touch /traces/up; while true; do sleep 0.1; done",
    );
    container["lifecycle"] =
        json!({"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /traces/log"]}}});
    container["volumeMounts"] = json!([{"name": "traces", "mountPath": "/traces"}]);
    let volume =
        json!({"name": "traces", "hostPath": {"path": traces, "type": "DirectoryOrCreate"}});
    rig.create("hook", json!({"terminationGracePeriodSeconds": 20, "containers": [container], "volumes": [volume]})).await;
    rig.until("hook", "up", |_| traces.join("up").exists()).await;
    rig.delete("hook").await;
    assert_eq!(std::fs::read_to_string(traces.join("log")).unwrap(), "hook\nterm\n");
    // Who deletes again with less patience is heard.
    let spec = json!({"terminationGracePeriodSeconds": 600, "containers": [main("trap '' TERM; while true; do sleep 1; done")]});
    rig.create("stubborn", spec).await;
    rig.phase("stubborn", "Running").await;
    rig.pods().delete("stubborn", &kube::api::DeleteParams::default()).await.unwrap();
    rig.until("stubborn", "being deleted", |pod| pod["metadata"]["deletionTimestamp"].is_string())
        .await;
    let sooner = kube::api::DeleteParams::default().grace_period(1);
    rig.pods().delete("stubborn", &sooner).await.unwrap();
    rig.until("stubborn", "gone", Value::is_null).await;
}

async fn other_resources(rig: &Rig) {
    let cpu = |amount: &str| json!({"requests": {"cpu": amount}, "limits": {"cpu": amount}});
    rig.create(
        "grows",
        json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "1000"],
            "resources": cpu("100m")}]}),
    )
    .await;
    let pod = rig.phase("grows", "Running").await;
    let id = pod["status"]["containerStatuses"][0]["containerID"].clone();
    let resize = async |name: &str, amount: &str| {
        let patch = json!({"spec": {"containers": [{"name": "main", "resources": cpu(amount)}]}});
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        rig.pods().patch_subresource("resize", name, &params, &patch).await.unwrap();
    };
    resize("grows", "200m").await;
    let grown =
        |pod: &Value| pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "200m";
    let pod = rig.until("grows", "resized", grown).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["containerID"], id);
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "200m");
    assert_eq!(pod["status"]["allocatedResources"]["cpu"], "200m");
    for reason in ["ResizeStarted", "ResizeCompleted"] {
        rig.event("grows", reason, r#""requests":{"cpu":"200m"}"#).await;
    }
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    // A CPU's time in microseconds of each 100 ms, by either version of control groups.
    let limit = "for d in /sys/fs/cgroup /sys/fs/cgroup/cpu*; do find $d -path *$0*/*/* -name cpu.max \
                 -o -path *$0*/*/* -name cpu.cfs_quota_us | xargs -r cut -d' ' -f1; done | sort -u";
    let found = std::process::Command::new("sh").args(["-c", limit, uid]).output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.lines().any(|line| line == "20000"), "{found}");

    resize("grows", "100000").await;
    let pending = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|c| c["type"] == "PodResizePending" && c["reason"] == "Infeasible")
    };
    let pod = rig.until("grows", "told that it does not fit", pending).await;
    assert!(grown(&pod), "{pod:#}");
    rig.event("grows", "ResizeInfeasible", "Node didn't have enough capacity").await;
    resize("grows", "100m").await;
    rig.until("grows", "as small as before", |pod| {
        pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "100m"
            && !pending(pod)
    })
    .await;
    rig.delete("grows").await;

    // What is restarted for its resources goes on, also where it ends well and would else be done.
    let policies = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let script = "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done";
    rig.create(
        "again",
        json!({"restartPolicy": "OnFailure", "containers": [{"name": "main", "image": BUSYBOX,
            "command": ["sh", "-c", script], "resources": cpu("100m"), "resizePolicy": policies}]}),
    )
    .await;
    rig.phase("again", "Running").await;
    log_with(rig, "again", "ready").await;
    resize("again", "200m").await;
    let pod = rig
        .until("again", "started anew", |pod| {
            let main = &pod["status"]["containerStatuses"][0];
            main["restartCount"] == 1 && main["state"]["running"].is_object() && grown(pod)
        })
        .await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 0, "{pod:#}");
    rig.delete("again").await;
}

async fn who_is_refused(rig: &Rig) {
    let main = || json!({"name": "main", "image": BUSYBOX, "command": ["sleep", "1000"]});
    let mut greedy = main();
    greedy["resources"] = json!({"requests": {"cpu": "100000"}});
    rig.create("greedy", json!({"containers": [greedy]})).await;
    let pod = rig.phase("greedy", "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    let message = "Pod was rejected: Node didn't have enough resource: cpu, requested: 100000000, ";
    assert!(pod["status"]["message"].as_str().unwrap().starts_with(message), "{pod:#}");
    assert!(pod["status"]["containerStatuses"].is_null(), "{pod:#}");
    rig.event("greedy", "OutOfcpu", "Node didn't have enough resource: cpu").await;
    rig.delete("greedy").await;
    // A controller that tries again at once is slowed down.
    let replica = |name: &str| {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "greedy",
            "uid": "1", "controller": true});
        let mut container = main();
        container["resources"] = json!({"requests": {"cpu": "100000"}});
        let pod = json!({"metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {"nodeName": "board", "containers": [container]}});
        serde_json::from_value(pod).unwrap()
    };
    rig.pods().create(&PostParams::default(), &replica("replica-1")).await.unwrap();
    rig.phase("replica-1", "Failed").await;
    let began = Instant::now();
    rig.pods().create(&PostParams::default(), &replica("replica-2")).await.unwrap();
    rig.event("replica-2", "OutOfcpu", "Node didn't have enough resource: cpu").await;
    rig.phase("replica-2", "Failed").await;
    assert!(began.elapsed().as_millis() >= 950, "{:?}", began.elapsed());
    rig.delete("replica-1").await;
    rig.delete("replica-2").await;
    // Of two that want one port of the board the first has it, until it has ended.
    let listening = || {
        let mut container = main();
        container["ports"] = json!([{"containerPort": 80, "hostPort": 18081}]);
        json!({"containers": [container]})
    };
    rig.create("first", listening()).await;
    rig.phase("first", "Running").await;
    rig.create("second", listening()).await;
    assert_eq!(rig.phase("second", "Failed").await["status"]["reason"], "NodePorts");
    rig.delete("first").await;
    rig.create("third", listening()).await;
    rig.phase("third", "Running").await;
    // A label that the board has got just now counts.
    let nodes: Api<Node> = Api::all(rig.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"fresh": "yes"}}}));
    nodes.patch("board", &PatchParams::default(), &label).await.unwrap();
    rig.create("picky", json!({"nodeSelector": {"fresh": "yes"}, "containers": [main()]})).await;
    rig.phase("picky", "Running").await;
    rig.delete("third").await;
    rig.delete("picky").await;
    // What the node leans on begins when those are gone that left for it, however slow they are.
    let board = nodes.get("board").await.unwrap();
    let all = board.status.unwrap().allocatable.unwrap()["cpu"].0.clone();
    let whole = |script: &str, more: Value| {
        let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [main()]});
        spec["containers"][0]["command"] = json!(["sh", "-c", script]);
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": all}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    rig.create("slow", whole("trap '' TERM; while true; do sleep 1; done", json!({}))).await;
    rig.phase("slow", "Running").await;
    let critical = json!({"priorityClassName": "system-node-critical"});
    rig.create("critical", whole("exec sleep 1000", critical)).await;
    rig.phase("critical", "Running").await;
    let slow = rig.until("slow", "there", |_| true).await;
    assert_eq!(slow["status"]["phase"], "Failed", "{slow:#}");
    assert_eq!(slow["status"]["reason"], "Preempting");
    rig.delete("critical").await;
    rig.delete("slow").await;
}

async fn death_of_a_shim(rig: &Rig) {
    rig.create(
        "orphaned",
        json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "1000"]}]}),
    )
    .await;
    let before = rig.phase("orphaned", "Running").await;
    rig.kill_shim(before["metadata"]["uid"].as_str().unwrap()).await;
    let after = rig
        .until("orphaned", "running again", |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["restartCount"] == 1 && status["ready"] == true
        })
        .await;
    assert_eq!(after["status"]["phase"], "Running");
    assert!(
        after["status"]["containerStatuses"][0]["lastState"]["terminated"].is_object(),
        "{after:#}"
    );
    rig.event("orphaned", "SandboxChanged", "Pod sandbox changed").await;
    rig.delete("orphaned").await;
}

async fn services(rig: &Rig) {
    let script = "echo served > /tmp/index.html; httpd -f -p 8080 -h /tmp";
    rig.create(
        "web",
        json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
        "ports": [{"containerPort": 8080, "hostPort": 18080}],
        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1}}]}),
    )
    .await;
    let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let pod = rig.until("web", "ready", ready).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.43.0.77",
        "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [pod["status"]["podIP"]], "conditions": {"ready": true}}]});
    let services: Api<Service> = Api::namespaced(rig.client.clone(), "default");
    let service = serde_json::from_value(service).unwrap();
    services.create(&PostParams::default(), &service).await.unwrap();
    let slices: Api<EndpointSlice> = Api::namespaced(rig.client.clone(), "default");
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    let script = "until wget -qO- http://10.43.0.77/; do sleep 0.1; done; cat /etc/resolv.conf; \
                  until nslookup web.default.svc.cluster.local 10.43.0.10; do sleep 0.1; done; \
                  echo ready; sleep 1000";
    let spec = json!({"containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}]});
    rig.create("client", spec).await;
    rig.phase("client", "Running").await;
    let log = log_with(rig, "client", "ready").await;
    for want in
        ["served\n", "search default.svc.cluster.local", "nameserver 10.43.0.10", "10.43.0.77"]
    {
        assert!(log.contains(want), "{want:?} is not in {log}");
    }
    host_port(rig).await;
    rig.delete("client").await;
    rig.delete("web").await;
}

/// The board's own port leads to the pod.
async fn host_port(_rig: &Rig) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = ("10.42.0.1", 18080);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("served\n"), "{answer}");
}
