//! Life of containers and sandboxes.

use std::time::{Duration, Instant};

use runtime::{
    ContainerFilter, ContainerState, Error, Mount, Propagation, Reason, Resources, Runtime,
    SandboxFilter, SandboxState, Seccomp, UserSpec,
};

use crate::rig::{Rig, SOON, shell_config};

crate::tests!(
    runs_and_records,
    image_defaults,
    start_errors,
    several_share_a_sandbox,
    shared_process_namespace,
    processes_of_another_container,
    host_namespaces,
    stop_by_signal_and_by_kill,
    users_and_rights,
    filters_of_system_calls,
    mounts,
    limits_and_figures,
    out_of_memory,
    removal_leaves_nothing,
    mounts_cross_the_border,
    many_at_once,
    speed,
);

async fn runs_and_records() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig.shell(&sandbox, "echo out; echo err >&2; printf tail; exit 3").await;
    let status = rig.ended(&id).await;
    assert_eq!(status.exit_code, Some(3));
    assert_eq!(status.reason, Some(Reason::Error));
    assert!(status.started_at.unwrap() >= status.created_at);
    assert!(status.finished_at.unwrap() >= status.started_at.unwrap());
    let mut log = rig.log("main.log");
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out", "stdout P tail"]);
    let good = rig.shell(&sandbox, "true").await;
    assert_eq!(rig.ended(&good).await.reason, Some(Reason::Completed));
    let killed = rig.shell(&sandbox, "kill -9 $$; sleep 60").await;
    // As process 1 of its namespace it cannot kill itself; from outside it can.
    rig.native.stop_container(&killed, Duration::ZERO).await.unwrap();
    let status = rig.ended(&killed).await;
    assert_eq!((status.exit_code, status.signal), (Some(137), Some(9)));
}

async fn image_defaults() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig
        .start(&sandbox, "echo $FROM_IMAGE $MINE $HOME $HOSTNAME; pwd; hostname", |c| {
            c.process.env = vec![("MINE".into(), "too".into())];
        })
        .await;
    rig.ended(&id).await;
    assert_eq!(
        rig.log("main.log"),
        ["stdout F yes too /root boat", "stdout F /root", "stdout F boat"]
    );
    let id = rig
        .start(&sandbox, "", |c| {
            // Not by the shell, which ignores signals of its own accord.
            let argv = ["grep", "-E", "SigIgn|SigBlk|^Name", "/proc/self/status"];
            c.process.command = argv.map(str::to_owned).to_vec();
            c.process.working_dir = "/made/for/it".into();
            c.log_path = "cwd.log".into();
        })
        .await;
    rig.ended(&id).await;
    assert_eq!(
        rig.log("cwd.log"),
        [
            "stdout F Name:\tgrep",
            "stdout F SigBlk:\t0000000000000000",
            "stdout F SigIgn:\t0000000000000000"
        ]
    );
    assert!(rig.layer(&id).join("made/for/it").is_dir());
}

async fn start_errors() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    for (program, want) in [
        ("nothing-here", "exec: \"nothing-here\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let mut config = shell_config("");
        config.process.command = vec![program.into()];
        let id = rig.native.create_container(&sandbox, config).await.unwrap();
        let error = rig.native.start_container(&id).await.unwrap_err();
        assert!(matches!(&error, Error::Start { message } if message == want), "{error:?}");
        let status = rig.status(&id).await;
        assert_eq!(status.state, ContainerState::Exited);
        assert_eq!(status.reason, Some(Reason::StartError));
        assert_eq!(status.exit_code, Some(128));
        assert_eq!(status.message, want);
        rig.native.remove_container(&id).await.unwrap();
    }
    let mut config = shell_config("");
    config.mounts = vec![Mount {
        host_path: "/definitely/missing".into(),
        container_path: "/x".into(),
        ..Mount::default()
    }];
    let error = rig.native.create_container(&sandbox, config).await.unwrap_err();
    assert!(error.to_string().contains("/definitely/missing"), "{error}");
    assert!(rig.native.list_containers(ContainerFilter::default()).await.unwrap().is_empty());
}

async fn several_share_a_sandbox() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let one = rig.shell(&sandbox, "sleep 60").await;
    let two = rig.shell(&sandbox, "sleep 60").await;
    let read = "readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts";
    let (a, b) = (rig.exec(&one, read).await.0, rig.exec(&two, read).await.0);
    assert_eq!(a, b);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!a.contains(own.to_str().unwrap()));
    let (ps, _) = rig.exec(&one, "ps | wc -l").await;
    assert!(ps.parse::<u32>().unwrap() <= 6, "processes of others are seen: {ps}");
    rig.exec(&one, "echo shared > /dev/shm/x").await;
    assert_eq!(rig.exec(&two, "cat /dev/shm/x").await.0, "shared");
    assert_eq!(rig.exec(&one, "ip -o link show lo | grep -c UP").await.0, "1");
    let status = rig.native.sandbox_status(&sandbox).await.unwrap();
    assert_eq!(status.state, SandboxState::Ready);
    assert!(status.netns.unwrap().exists());
    let all = rig.native.list_containers(ContainerFilter::default()).await.unwrap();
    assert_eq!(all.iter().map(|c| &c.id).collect::<Vec<_>>(), [&one, &two]);
    rig.native.stop_container(&one, Duration::ZERO).await.unwrap();
    assert_eq!(rig.exec(&two, "echo alive").await.0, "alive");
}

async fn shared_process_namespace() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox_with(|c| c.shared_pid = true).await;
    let one = rig.shell(&sandbox, "sleep 61").await;
    let two = rig.shell(&sandbox, "sleep 62").await;
    assert_eq!(rig.exec(&one, "ps | grep -c 'sleep 6[12]$'").await.0, "2");
    assert_eq!(rig.exec(&two, "cat /proc/1/comm").await.0, "coracle-pod");
    rig.native.remove_sandbox(&sandbox).await.unwrap();
}

async fn processes_of_another_container() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let one = rig.shell(&sandbox, "sleep 61").await;
    let two = rig.start(&sandbox, "sleep 62", |c| c.target = Some(one.clone())).await;
    assert_eq!(rig.exec(&two, "ps | grep -c 'sleep 6[12]$'").await.0, "2");
    rig.native.stop_container(&one, Duration::ZERO).await.unwrap();
    // Those of a namespace end with its first, and nobody can join them any more.
    assert_eq!(rig.ended(&two).await.signal, Some(9));
    let mut late = shell_config("true");
    late.target = Some(one);
    let refused = rig.native.create_container(&sandbox, late).await.unwrap_err().to_string();
    assert!(refused.contains("share the processes of"), "{refused}");
    rig.native.remove_sandbox(&sandbox).await.unwrap();
}

async fn host_namespaces() {
    let rig = Rig::new().await;
    let sandbox = rig
        .sandbox_with(|c| {
            (c.host_network, c.host_pid, c.host_ipc) = (true, true, true);
            c.hostname = String::new();
        })
        .await;
    let id = rig.shell(&sandbox, "sleep 60").await;
    let (inside, _) = rig
        .exec(
            &id,
            "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc",
        )
        .await;
    let outside = ["net", "pid", "ipc"]
        .map(|n| std::fs::read_link(format!("/proc/self/ns/{n}")).unwrap().display().to_string());
    assert_eq!(inside, outside.join("\n"));
    assert_eq!(rig.native.sandbox_status(&sandbox).await.unwrap().netns, None);
    rig.native.stop_container(&id, Duration::ZERO).await.unwrap();
}

async fn stop_by_signal_and_by_kill() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let kind = rig
        .shell(&sandbox, "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done")
        .await;
    crate::rig::eventually("trap is set", || !rig.log("main.log").is_empty()).await;
    rig.native.stop_container(&kind, SOON).await.unwrap();
    assert_eq!(rig.status(&kind).await.exit_code, Some(7));
    assert_eq!(rig.log("main.log"), ["stdout F up", "stdout F bye"]);
    // The first process of a namespace ignores what it does not handle.
    let deaf = rig.shell(&sandbox, "sleep 60").await;
    let began = Instant::now();
    rig.native.stop_container(&deaf, Duration::from_millis(300)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(rig.status(&deaf).await.exit_code, Some(137));
    let other = rig
        .start(&sandbox, "trap 'exit 5' USR1; echo go; while :; do sleep 0.1; done", |c| {
            c.stop_signal = "SIGUSR1".into();
            c.log_path = "usr.log".into();
        })
        .await;
    crate::rig::eventually("trap is set", || !rig.log("usr.log").is_empty()).await;
    rig.native.stop_container(&other, SOON).await.unwrap();
    assert_eq!(rig.status(&other).await.exit_code, Some(5));
}

async fn users_and_rights() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let show = "id -u; id -g; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status; \
                touch /x 2>/dev/null && echo writable; cat /proc/timer_list | wc -c";
    let id = rig
        .start(&sandbox, show, |c| {
            c.security.user = UserSpec::Name("web".into());
            c.security.supplemental_groups = vec![77];
            c.security.no_new_privileges = true;
            c.security.readonly_rootfs = true;
        })
        .await;
    rig.ended(&id).await;
    assert_eq!(
        rig.log("main.log"),
        [
            "stdout F 33",
            "stdout F 34",
            "stdout F 34 50 77",
            "stdout F CapEff:\t0000000000000000",
            "stdout F NoNewPrivs:\t1",
            "stdout F 0"
        ]
    );
    let id = rig
        .start(&sandbox, "grep CapEff /proc/self/status", |c| {
            c.security.capabilities.drop = vec!["ALL".into()];
            c.security.capabilities.add = vec!["NET_BIND_SERVICE".into()];
            c.log_path = "caps.log".into();
        })
        .await;
    rig.ended(&id).await;
    assert_eq!(rig.log("caps.log"), ["stdout F CapEff:\t0000000000000400"]);
    let id = rig
        .start(
            &sandbox,
            "echo 1 > /proc/sys/net/ipv4/ip_forward && mount -t tmpfs x /tmp && echo may",
            |c| {
                c.security.privileged = true;
                c.log_path = "privileged.log".into();
            },
        )
        .await;
    rig.ended(&id).await;
    assert_eq!(rig.log("privileged.log"), ["stdout F may"]);
}

async fn filters_of_system_calls() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let show = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status";
    let wanted = |caps: &str, private: bool, mode: u8| {
        format!(
            "CapEff:\t{caps}\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t{}\nSeccomp:\t{mode}",
            u8::from(private)
        )
    };
    let usual = "00000000a80425fb";
    for (user, private, caps) in [
        (UserSpec::Image, false, usual),
        (UserSpec::Image, true, usual),
        (UserSpec::Uid(33), false, "0000000000000000"),
        (UserSpec::Uid(33), true, "0000000000000000"),
    ] {
        for (seccomp, mode) in [(Seccomp::RuntimeDefault, 2), (Seccomp::Unconfined, 0)] {
            let id = rig
                .start(&sandbox, &format!("{show}; sleep 60"), |c| {
                    c.security.user = user.clone();
                    c.security.no_new_privileges = private;
                    c.security.seccomp = seccomp.clone();
                    c.log_path = format!("{user:?}-{private}-{mode}.log").into();
                })
                .await;
            // The rights are those without a filter, for the program and for commands alike.
            let log = format!("{user:?}-{private}-{mode}.log");
            crate::rig::eventually("its output", || rig.log(&log).len() == 4).await;
            let got: Vec<_> =
                rig.log(&log).iter().map(|l| l["stdout F ".len()..].to_owned()).collect();
            assert_eq!(got.join("\n"), wanted(caps, private, mode), "{log}");
            assert_eq!(rig.exec(&id, show).await, (wanted(caps, private, mode), 0), "{log}");
            rig.native.remove_container(&id).await.unwrap();
        }
    }
    let profile = rig.folder.join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"],
            "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#,
    )
    .unwrap();
    let id = rig
        .start(&sandbox, "mkdir /one; touch /two && echo made", |c| {
            c.security.seccomp = Seccomp::Localhost(profile.clone());
        })
        .await;
    rig.ended(&id).await;
    let mut log = rig.log("main.log");
    log.sort();
    assert_eq!(
        log,
        ["stderr F mkdir: can't create directory '/one': No space left on device", "stdout F made"]
    );
    let before = rig.native.list_containers(ContainerFilter::default()).await.unwrap().len();
    let mut config = shell_config("");
    config.security.seccomp = Seccomp::Localhost("/no/such.json".into());
    let error = rig.native.create_container(&sandbox, config).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot load seccomp profile \"/no/such.json\": open /no/such.json: no such file or directory"
    );
    let after = rig.native.list_containers(ContainerFilter::default()).await.unwrap().len();
    assert_eq!(after, before);
}

async fn mounts() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let shared = rig.folder.join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::write(shared.join("hosts"), "10.0.0.1 x\n").unwrap();
    let script = "cat /etc/hosts; echo new > /data/sub/file; touch /ro/x 2>/dev/null || echo readonly; \
                  echo own > /etc/passwd; cat /etc/passwd";
    let id = rig
        .start(&sandbox, script, |c| {
            let mount = |from: &std::path::Path, to: &str, readonly| Mount {
                host_path: from.into(),
                container_path: to.into(),
                readonly,
                ..Mount::default()
            };
            std::fs::create_dir_all(shared.join("sub")).unwrap();
            c.mounts = vec![
                mount(&shared.join("hosts"), "/etc/hosts", false),
                mount(&shared, "/data", false),
                mount(&shared, "/ro", true),
            ];
        })
        .await;
    assert_eq!(rig.ended(&id).await.exit_code, Some(0));
    assert_eq!(rig.log("main.log"), ["stdout F 10.0.0.1 x", "stdout F readonly", "stdout F own"]);
    assert_eq!(std::fs::read_to_string(shared.join("sub/file")).unwrap(), "new\n");
    // The container's own layer took the change; the image did not.
    let id = rig.start(&sandbox, "head -c 4 /etc/passwd", |c| c.log_path = "2.log".into()).await;
    rig.ended(&id).await;
    // What ends without a newline is kept as part of a line (`P`), as containerd does.
    assert_eq!(rig.log("2.log"), ["stdout P root"]);
}

async fn limits_and_figures() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig
        .start(
            &sandbox,
            "dd if=/dev/zero of=/big bs=1024 count=100 2>/dev/null; echo done; sleep 60",
            |c| {
                c.resources = Resources {
                    cpu_shares: Some(256),
                    cpu_quota: Some(20_000),
                    cpu_period: Some(100_000),
                    memory_limit: Some(64 << 20),
                    pids_limit: Some(50),
                    oom_score_adj: Some(500),
                    ..Resources::default()
                };
            },
        )
        .await;
    crate::rig::eventually("it has written", || !rig.log("main.log").is_empty()).await;
    let stats = rig.native.stats(&id).await.unwrap();
    assert!(stats.memory_usage > 0 && stats.memory_usage < 64 << 20, "{stats:?}");
    assert!(stats.memory_working_set <= stats.memory_usage);
    assert!(stats.cpu_nanoseconds > 0);
    assert!((1..10).contains(&stats.pids), "{stats:?}");
    assert!(stats.writable_bytes >= 100 << 10, "{stats:?}");
    assert_eq!(rig.exec(&id, "cat /proc/1/oom_score_adj").await.0, "500");
    let more = Resources { memory_limit: Some(96 << 20), ..Resources::default() };
    rig.native.update_resources(&id, more).await.unwrap();
    let resources = rig.status(&id).await.resources;
    assert_eq!((resources.memory_limit, resources.cpu_shares), (Some(96 << 20), Some(256)));
    assert!(rig.native.sandbox_stats(&sandbox).await.unwrap().pids >= stats.pids);
    assert!(rig.native.image_fs_usage().await.unwrap().used_bytes > 1 << 20);
}

async fn out_of_memory() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let id = rig
        .start(
            &sandbox,
            "x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tail -c 150000000); echo $?",
            |c| {
                c.process.command = vec![
                    "/bin/dd".into(),
                    "if=/dev/zero".into(),
                    "of=/dev/null".into(),
                    "bs=200M".into(),
                ];
                c.resources.memory_limit = Some(16 << 20);
            },
        )
        .await;
    let status = rig.ended(&id).await;
    assert_eq!(status.reason, Some(Reason::OOMKilled), "{status:?}");
    assert_eq!(status.exit_code, Some(137));
}

async fn removal_leaves_nothing() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    rig.shell(&sandbox, "sleep 60").await;
    rig.shell(&sandbox, "true").await;
    let pid = rig.native.sandbox_status(&sandbox).await.unwrap().pid.unwrap();
    rig.native.stop_sandbox(&sandbox).await.unwrap();
    rig.native.stop_sandbox(&sandbox).await.unwrap();
    let all = rig.native.list_sandboxes(SandboxFilter::default()).await.unwrap();
    assert_eq!(all[0].state, SandboxState::NotReady);
    for container in rig.native.list_containers(ContainerFilter::default()).await.unwrap() {
        assert_eq!(container.state, ContainerState::Exited);
    }
    rig.native.remove_sandbox(&sandbox).await.unwrap();
    rig.native.remove_sandbox(&sandbox).await.unwrap();
    // Whoever adopted it may take a moment to reap it.
    let dead = format!("/proc/{pid}/ns/net");
    crate::rig::eventually("the shim is dead", || std::fs::read_link(&dead).is_err()).await;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(rig.folder.to_str().unwrap()), "{mounts}");
    for kind in ["sandboxes", "containers", "oci"] {
        let left = std::fs::read_dir(rig.config.state.join(kind)).unwrap().count();
        assert_eq!(left, 0, "{kind}");
    }
    assert_eq!(std::fs::read_dir(rig.config.root.join("containers")).unwrap().count(), 0);
}

async fn mounts_cross_the_border() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox().await;
    let shared = rig.folder.join("shared");
    std::fs::create_dir_all(shared.join("out")).unwrap();
    std::fs::create_dir_all(shared.join("in")).unwrap();
    // A shared mount of its own, as a volume's folder on a machine with systemd is.
    let none: Option<&str> = None;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    mount(Some(&shared), &shared, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &shared, none, MsFlags::MS_SHARED, none).unwrap();
    let volume = |propagation| Mount {
        host_path: shared.clone(),
        container_path: "/v".into(),
        propagation,
        ..Mount::default()
    };
    let both = rig
        .start(&sandbox, "mount -t tmpfs x /v/out && touch /v/out/seen; sleep 60", |c| {
            c.security.privileged = true;
            c.mounts = vec![volume(Propagation::Bidirectional)];
        })
        .await;
    let one = rig
        .start(&sandbox, "sleep 60", |c| c.mounts = vec![volume(Propagation::HostToContainer)])
        .await;
    let none_ =
        rig.start(&sandbox, "sleep 60", |c| c.mounts = vec![volume(Propagation::Private)]).await;
    let seen = shared.join("out/seen");
    crate::rig::eventually("the inner mount is seen outside", || seen.exists()).await;
    mount(Some("y"), &shared.join("in"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
    std::fs::write(shared.join("in/late"), "").unwrap();
    let look = "ls /v/in";
    assert_eq!(rig.exec(&one, look).await.0, "late");
    assert_eq!(rig.exec(&both, look).await.0, "late");
    assert_eq!(rig.exec(&none_, look).await.0, "");
    rig.native.remove_sandbox(&sandbox).await.unwrap();
    for path in [shared.join("in"), shared.join("out"), shared.clone()] {
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(rig.folder.to_str().unwrap()), "{mounts}");
}

async fn many_at_once() {
    const PODS: i32 = 12;
    let rig = std::sync::Arc::new(Rig::new().await);
    let began = Instant::now();
    let tasks: Vec<_> = (0..PODS)
        .map(|n| {
            let rig = rig.clone();
            tokio::spawn(async move {
                let sandbox = rig.sandbox().await;
                let run = |c: i32| {
                    let (rig, sandbox) = (rig.clone(), sandbox.clone());
                    async move {
                        let id = rig
                            .start(&sandbox, &format!("echo {n}; exit {c}"), |config| {
                                config.log_path = format!("{n}-{c}.log").into();
                            })
                            .await;
                        (c, rig.ended(&id).await.exit_code, rig.log(&format!("{n}-{c}.log")))
                    }
                };
                let ends = futures::future::join_all((0..3).map(run)).await;
                rig.native.remove_sandbox(&sandbox).await.unwrap();
                (n, ends)
            })
        })
        .collect();
    for task in tasks {
        let (n, ends) = task.await.unwrap();
        for (c, code, log) in ends {
            assert_eq!((code, log), (Some(c), vec![format!("stdout F {n}")]));
        }
    }
    println!("  {PODS} pods of 3 containers, made and removed: {:?}", began.elapsed());
}

/// Not a benchmark, but a start that never takes less than a second would be a mistake.
async fn speed() {
    let rig = Rig::new().await;
    let mut pods = Vec::new();
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let sandbox = rig.sandbox().await;
        let made = began.elapsed();
        let id = rig.native.create_container(&sandbox, shell_config("sleep 60")).await.unwrap();
        let created = began.elapsed();
        rig.native.start_container(&id).await.unwrap();
        let all = began.elapsed();
        println!("  sandbox {made:?}, container {:?}, start {:?}", created - made, all - created);
        fastest = fastest.min(all - made);
        pods.push(sandbox);
    }
    assert!(fastest < Duration::from_secs(1), "debug build: {fastest:?}");
    let pid = rig.native.sandbox_status(&pods[0]).await.unwrap().pid.unwrap();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    if std::env::var_os("SHIM_MAPS").is_some() {
        println!("{}", std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap());
    }
    for line in rollup.lines().filter(|l| l.starts_with("Private") || l.starts_with("Pss:")) {
        println!("  shim {line}");
    }
}
