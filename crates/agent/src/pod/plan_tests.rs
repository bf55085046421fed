use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::pod::view::Sandbox;

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn pod(spec: Value) -> Pod {
    let meta = json!({"name": "p", "namespace": "ns", "uid": "u"});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

fn up() -> View {
    let sandbox = Sandbox { id: "s0".into(), attempt: 0, ready: true, ips: vec![] };
    View { sandbox: Some(sandbox), volumes: Volumes::Ready, ..View::default() }
}

/// `"name:running"`, `"name:3@100+10"` (exit code 3 at second 100, delay 10).
fn with(mut view: View, runs: &[&str]) -> View {
    for text in runs {
        let (name, state) = text.split_once(':').unwrap();
        let mut run = Run {
            id: format!("{name}-id"),
            sandbox: view.sandbox.as_ref().map(|s| s.id.clone()).unwrap_or_default(),
            attempt: 0,
            round: 0,
            state: RunState::Running,
            created: at(0),
            started: Some(at(0)),
            finished: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            user: None,
            resources: None,
            hash: hash(&Container { name: name.into(), ..Container::default() }),
            delay_s: 0,
            replaced: false,
        };
        if let Some((code, times)) = state.split_once('@') {
            let (end, delay) = times.split_once('+').unwrap_or((times, "0"));
            run.state = RunState::Exited;
            run.exit_code = code.parse().unwrap();
            run.finished = Some(at(end.parse().unwrap()));
            run.delay_s = delay.parse().unwrap();
            run.attempt = 2;
        }
        let slot = Slot { current: Some(run), started: true, ready: true, ..Slot::default() };
        view.slots.insert(name.into(), slot);
    }
    view
}

/// The plan on one line.
fn decide(pod: &Pod, view: &View, now: i64) -> String {
    let plan = plan(pod, view, at(now));
    let mut out: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::PrepareVolumes => "volumes".into(),
            Action::CreateSandbox { attempt, .. } => format!("sandbox#{attempt}"),
            Action::Start { container, attempt, delay_s } => {
                format!("start {container}#{attempt}+{delay_s}")
            }
            Action::Resize => "resize".into(),
            Action::Kill { container, .. } => format!("kill {container}"),
            Action::StopSandbox { id } => format!("stop {id}"),
        })
        .collect();
    out.extend(plan.waiting.iter().map(|(name, w)| format!("{name}={}", w.reason)));
    out.extend(plan.wake.map(|wake| format!("wake {}", wake.as_second())));
    out.join(", ")
}

#[test]
fn from_nothing_to_running() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let mut view = View::default();
    assert_eq!(decide(&pod, &view, 0), "volumes");
    view.volumes = Volumes::Doing;
    assert_eq!(decide(&pod, &view, 0), "");
    view.volumes = Volumes::Failed(at(5));
    assert_eq!(decide(&pod, &view, 0), "wake 5");
    assert_eq!(decide(&pod, &view, 5), "volumes");
    view.volumes = Volumes::Ready;
    assert_eq!(decide(&pod, &view, 0), "sandbox#0");
    view.sandbox_busy = true;
    assert_eq!(decide(&pod, &view, 0), "");
    assert_eq!(decide(&pod, &up(), 0), "start a#0+0, start b#0+0");
    assert_eq!(decide(&pod, &with(up(), &["a:running"]), 0), "start b#0+0");
    assert_eq!(decide(&pod, &with(up(), &["a:running", "b:running"]), 0), "");
}

#[test]
fn init_containers_one_by_one_and_sidecars_stay() {
    let pod =
        pod(json!({"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]}));
    assert_eq!(decide(&pod, &up(), 0), "start i#0+0");
    assert_eq!(decide(&pod, &with(up(), &["i:running"]), 0), "");
    assert_eq!(decide(&pod, &with(up(), &["i:0@1"]), 2), "start s#0+0");
    let mut view = with(up(), &["i:0@1", "s:running"]);
    assert_eq!(decide(&pod, &view, 2), "start a#0+0");
    view.slots.get_mut("s").unwrap().started = false;
    assert_eq!(decide(&pod, &view, 2), "", "a sidecar must have started");
    assert_eq!(decide(&pod, &with(up(), &["i:1@1"]), 2), "start i#3+10");
    let view = with(up(), &["i:0@1", "s:0@5", "a:running"]);
    assert_eq!(decide(&pod, &view, 9), "start s#3+10", "a sidecar restarts after success too");
    let mut lost = with(up(), &["i:0@1", "s:running", "a:running"]);
    lost.sandbox.as_mut().unwrap().id = "s1".into();
    for slot in lost.slots.values_mut() {
        slot.current.as_mut().unwrap().state = RunState::Exited;
    }
    assert_eq!(decide(&pod, &lost, 9), "start i#3+10", "a new sandbox is initialised again");
}

#[test]
fn a_rule_has_all_containers_begin_anew() {
    let rule =
        json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "restartPolicy": "Never", "restartPolicyRules": [rule]},
            {"name": "b"}, {"name": "c"}]}));
    let begun = |mut view: View, name: &str| {
        view.slots.get_mut(name).and_then(|slot| slot.current.as_mut()).unwrap().round = 1;
        view
    };
    let mut view = with(up(), &["i:0@1", "s:running", "a:1@5", "b:running", "c:0@3"]);
    assert_eq!(round(&pod, &view), 0, "another code has no rule");
    view = with(view, &["a:42@5"]);
    view.round = round(&pod, &view);
    assert_eq!(decide(&pod, &view, 6), "kill s, kill b");
    assert!(begins_anew(&pod, &view));
    view = with(view, &["s:143@7", "b:137@7"]);
    assert!(!done(&pod, &view));
    assert_eq!(decide(&pod, &view, 8), "start i#3+10");
    view = begun(with(view, &["i:0@9"]), "i");
    assert_eq!(decide(&pod, &view, 10), "start s#3+10");
    view = begun(with(view, &["s:running"]), "s");
    assert_eq!(decide(&pod, &view, 11), "start a#3+10, start b#3+10, start c#3+10");
    let looping = with(view.clone(), &["a:42@5+20"]);
    let waits = "start b#3+10, start c#3+10, a=CrashLoopBackOff, wake 25";
    assert_eq!(decide(&pod, &looping, 11), waits);
    for name in ["a", "b", "c"] {
        view = begun(with(view, &[&format!("{name}:running")]), name);
    }
    assert_eq!(decide(&pod, &view, 12), "");
    assert!(!begins_anew(&pod, &view));
    assert_eq!(round(&pod, &view), 1);
}

#[test]
fn restart_policies() {
    for (policy, code, want) in [
        ("Always", 0, "start a#3+10"),
        ("OnFailure", 0, ""),
        ("OnFailure", 1, "start a#3+10"),
        ("Never", 1, ""),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let view = with(up(), &[&format!("a:{code}@1")]);
        assert_eq!(decide(&pod, &view, 2), want, "{policy} {code}");
    }
    let failed = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}]}));
    assert_eq!(decide(&failed, &with(up(), &["i:1@1"]), 2), "");
    assert!(init_failed(&failed, &with(up(), &["i:1@1"])));
}

#[test]
fn back_off_doubles_and_forgets_after_ten_minutes() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let view = |text| with(up(), &[text]);
    assert_eq!(decide(&pod, &view("a:1@100+10"), 101), "a=CrashLoopBackOff, wake 110");
    assert_eq!(decide(&pod, &view("a:1@100+10"), 110), "start a#3+20");
    assert_eq!(decide(&pod, &view("a:1@100+160"), 300), "start a#3+300");
    assert_eq!(decide(&pod, &view("a:1@700+160"), 700), "start a#3+10");
    assert_eq!(
        back_off_message(&pod, "a", 160),
        "back-off 2m40s restarting failed container=a pod=p_ns(u)"
    );
}

#[test]
fn a_dead_sandbox_is_replaced_unless_all_is_done() {
    let job = pod(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]}));
    let mut view = with(up(), &["a:0@1"]);
    view.sandbox.as_mut().unwrap().ready = false;
    assert_eq!(decide(&job, &view, 2), "");
    let mut view = with(up(), &["a:137@1"]);
    view.sandbox.as_mut().unwrap().ready = false;
    assert_eq!(decide(&job, &view, 2), "sandbox#1");
}

#[test]
fn probes_and_changed_images_end_a_run() {
    let changed = pod(json!({"containers": [{"name": "a", "image": "new"}]}));
    assert_eq!(decide(&changed, &with(up(), &["a:running"]), 2), "kill a");
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut view = with(up(), &["a:running"]);
    view.slots.get_mut("a").unwrap().condemned = Some(("a-id".into(), "liveness".into()));
    assert_eq!(decide(&pod, &view, 2), "kill a");
    view.slots.get_mut("a").unwrap().condemned = Some(("former".into(), "liveness".into()));
    assert_eq!(decide(&pod, &view, 2), "");
}

#[test]
fn an_agent_that_restarts_leaves_running_containers() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let mut view = with(up(), &["a:running"]);
    view.volumes = Volumes::Todo;
    assert_eq!(decide(&pod, &view, 2), "volumes", "b waits for the volumes, a runs on");
}

#[test]
fn the_end_takes_sidecars_last_and_backwards() {
    let pod = pod(json!({"initContainers": [{"name": "s", "restartPolicy": "Always"},
        {"name": "t", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}));
    let kills = |view: &View| {
        end(&pod, view)
            .actions
            .iter()
            .map(|action| match action {
                Action::Kill { container, .. } => container.clone(),
                Action::StopSandbox { .. } => "sandbox".into(),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(kills(&with(up(), &["s:running", "t:running", "a:running"])), "a");
    assert_eq!(kills(&with(up(), &["s:running", "t:running", "a:0@1"])), "t");
    assert_eq!(kills(&with(up(), &["s:running", "t:0@1", "a:0@1"])), "s");
    assert_eq!(kills(&with(up(), &["s:0@1", "t:0@1", "a:0@1"])), "sandbox");
    let mut view = with(up(), &["a:running"]);
    view.slots.get_mut("a").unwrap().busy = true;
    assert_eq!(kills(&view), "", "what is under way is awaited");
}

#[test]
fn a_run_that_the_runtime_never_made_is_made_anew_and_not_ended() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let mut view = with(up(), &["a:running", "b:0@5"]);
    view.forget_vanished(|_| false);
    assert!(view.run("b").is_some(), "its end is told");
    assert!(decide(&pod, &view, 100).starts_with("start a"), "{}", decide(&pod, &view, 100));
    assert_eq!(end(&pod, &view).actions, [Action::StopSandbox { id: "s0".into() }]);
}

#[test]
fn other_resources_are_given_in_place_or_by_a_restart() {
    let had = json!({"requests": {"cpu": "1"}});
    let wished = |policy: &str| {
        let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
        let resources = json!({"requests": {"cpu": "2"}});
        pod(json!({"containers": [
            {"name": "a", "resources": resources, "resizePolicy": policy},
        ]}))
    };
    let mut view = with(up(), &["a:running"]);
    view.slots.get_mut("a").unwrap().resources = serde_json::from_value(had).ok();
    assert_eq!(decide(&wished("NotRequired"), &view, 0), "resize");
    assert_eq!(decide(&wished("RestartContainer"), &view, 0), "kill a");
    view.resize = Resize::Doing;
    assert_eq!(decide(&wished("NotRequired"), &view, 0), "");
    view.resize = Resize::Failed { message: "full".into(), retry_at: at(5) };
    assert_eq!(decide(&wished("NotRequired"), &view, 0), "wake 5");
    assert_eq!(decide(&wished("NotRequired"), &view, 5), "resize");
}

#[test]
fn a_run_that_was_ended_to_be_replaced_is_followed_by_another() {
    let again = |pod: &Pod, view: &View| {
        let plan = plan(pod, view, at(0));
        plan.actions.iter().any(|action| matches!(action, Action::Kill { again: true, .. }))
    };
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let policies = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let of = |policy: &str| {
        pod(json!({"restartPolicy": policy, "containers": [
            {"name": "a", "resources": resources("2"), "resizePolicy": policies}]}))
    };
    let mut view = with(up(), &["a:running"]);
    view.slots.get_mut("a").unwrap().resources = serde_json::from_value(resources("1")).ok();
    assert!(again(&of("OnFailure"), &view));
    view.slots.get_mut("a").unwrap().resources = serde_json::from_value(resources("2")).ok();
    view.slots.get_mut("a").unwrap().condemned = Some(("a-id".into(), "liveness".into()));
    assert!(again(&of("OnFailure"), &view) && !again(&of("Never"), &view));
    let mut ended = with(up(), &["a:0@1"]);
    assert!(done(&of("OnFailure"), &ended));
    ended.slots.get_mut("a").unwrap().current.as_mut().unwrap().replaced = true;
    assert!(!done(&of("OnFailure"), &ended));
    assert_eq!(decide(&of("OnFailure"), &ended, 2), "start a#3+10");
}
