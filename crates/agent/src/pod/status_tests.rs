use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::*;
use crate::pod::preemption;
use crate::pod::view::Resize;
use crate::pod::view::{Sandbox, Waiting};

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn pod(spec: Value) -> Pod {
    let meta = json!({"name": "p", "namespace": "ns", "uid": "u", "generation": 3});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

fn run(name: &str, state: RunState, exit_code: i32) -> Run {
    let ended = state == RunState::Exited;
    Run {
        id: format!("{name}-id"),
        sandbox: "s0".into(),
        attempt: 1,
        round: 0,
        state,
        created: at(0),
        started: Some(at(1)),
        finished: ended.then(|| at(2)),
        exit_code,
        reason: if exit_code == 0 { "Completed".into() } else { "Error".into() },
        message: String::new(),
        image: "img".into(),
        image_id: "img@sha256:1".into(),
        user: None,
        hash: String::new(),
        resources: None,
        delay_s: 0,
        replaced: false,
    }
}

fn view(slots: Vec<(&str, Slot)>) -> View {
    let ips = vec!["10.42.0.5".parse().unwrap()];
    View {
        sandbox: Some(Sandbox { id: "s0".into(), attempt: 0, ready: true, ips }),
        slots: slots.into_iter().map(|(name, slot)| (name.to_owned(), slot)).collect(),
        ..View::default()
    }
}

fn running(name: &str) -> (&str, Slot) {
    let current = Some(run(name, RunState::Running, 0));
    (name, Slot { current, started: true, ready: true, ..Slot::default() })
}

fn exited(name: &str, code: i32) -> (&str, Slot) {
    (name, Slot { current: Some(run(name, RunState::Exited, code)), ..Slot::default() })
}

fn show(pod: &Pod, view: &View, plan: &Plan, life: Life) -> PodStatus {
    let host = ["192.168.1.2".parse().unwrap()];
    let facts = Facts {
        view,
        plan,
        life,
        verdict: None,
        pending: None,
        host_ips: &host,
        start_time: at(0),
        now: at(9),
    };
    status(pod, &facts)
}

fn conditions(status: &PodStatus) -> String {
    let list = status.conditions.iter().flatten().map(|c| {
        let tail: Vec<&str> =
            [&c.reason, &c.message].into_iter().flatten().map(|s| s.as_str()).collect();
        format!(
            "{}={}{}",
            c.type_,
            c.status,
            tail.iter().map(|t| format!(" {t}")).collect::<String>()
        )
    });
    list.collect::<Vec<_>>().join("; ")
}

#[test]
fn a_pod_that_is_being_made() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let status = show(&pod, &View::default(), &Plan::default(), Life::Running);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(
        conditions(&status),
        "PodReadyToStartContainers=False; Initialized=True; \
         Ready=False ContainersNotReady containers with unready status: [a]; \
         ContainersReady=False ContainersNotReady containers with unready status: [a]; \
         PodScheduled=True"
    );
    let container = &status.container_statuses.unwrap()[0];
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ContainerCreating"));
    assert_eq!((container.started, container.restart_count), (Some(false), 0));
}

#[test]
fn a_running_pod() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let status = show(&pod, &view(vec![running("a")]), &Plan::default(), Life::Running);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.42.0.5"));
    assert_eq!(status.host_ip.as_deref(), Some("192.168.1.2"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.observed_generation, Some(3));
    assert!(status.conditions.iter().flatten().all(|c| c.status == "True"));
    let container = &status.container_statuses.unwrap()[0];
    assert!(container.ready);
    assert_eq!(container.container_id.as_deref(), Some("coracle://a-id"));
}

#[test]
fn phases_of_what_has_ended() {
    for (policy, codes, want) in [
        ("Never", [0, 0], "Succeeded"),
        ("Never", [0, 1], "Failed"),
        ("OnFailure", [0, 0], "Succeeded"),
        ("OnFailure", [0, 1], "Running"),
        ("Always", [0, 0], "Running"),
    ] {
        let pod =
            pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
        let view = view(vec![exited("a", codes[0]), exited("b", codes[1])]);
        let phase = |life| show(&pod, &view, &Plan::default(), life).phase.unwrap();
        assert_eq!(phase(Life::Running), want, "{policy} {codes:?}");
        let ended = if codes == [0, 0] { "Succeeded" } else { "Failed" };
        assert_eq!(phase(Life::Ended), ended, "{policy} {codes:?}, when the pod is taken away");
    }
}

#[test]
fn a_crash_loop_shows_the_wait_and_the_last_end() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let wait =
        Waiting { reason: "CrashLoopBackOff".into(), message: "back-off".into(), retry_at: None };
    let plan = Plan { waiting: vec![("a".into(), wait)], ..Plan::default() };
    let status = show(&pod, &view(vec![exited("a", 3)]), &plan, Life::Running);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let container = &status.container_statuses.unwrap()[0];
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(container.restart_count, 1);
}

#[test]
fn a_pod_is_over_only_when_nothing_runs() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    pod.status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
    let verdict = Verdict { reason: "Evicted".into(), message: "low".into() };
    let of = |view: &View| {
        let facts = Facts {
            view,
            plan: &Plan::default(),
            life: Life::Ending,
            verdict: Some(&verdict),
            pending: None,
            host_ips: &[],
            start_time: at(0),
            now: at(9),
        };
        let status = status(&pod, &facts);
        (status.phase.unwrap(), status.reason)
    };
    assert_eq!(of(&view(vec![running("a")])), ("Running".into(), None));
    assert_eq!(of(&view(vec![exited("a", 0)])), ("Failed".into(), Some("Evicted".into())));
}

#[test]
fn that_the_node_is_to_blame_is_told_in_a_condition() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    let running =
        json!({"phase": "Running", "containerStatuses": [], "startTime": "2026-01-01T00:00:00Z"});
    pod.status = serde_json::from_value(running).unwrap();
    let preempted = "Pod was preempted by Kubelet to accommodate a critical pod.";
    let low = "The node was low on resource: memory. ";
    for (reason, message, told) in [
        ("Evicted", low, Some(low)),
        ("Evicted", "Container a exceeded its local ephemeral storage limit", None),
        (preemption::REASON, "Preempted", Some(preempted)),
    ] {
        let verdict = Verdict { reason: reason.into(), message: message.into() };
        let facts = Facts {
            view: &view(vec![exited("a", 0)]),
            plan: &Plan::default(),
            life: Life::Ended,
            verdict: Some(&verdict),
            pending: None,
            host_ips: &[],
            start_time: at(0),
            now: at(9),
        };
        let status = status(&pod, &facts);
        let mut all = status.conditions.iter().flatten();
        let found = all.find(|c| c.type_ == "DisruptionTarget");
        assert_eq!(found.and_then(|c| c.message.as_deref()), told);
        assert_eq!(found.and_then(|c| c.observed_generation), told.map(|_| 3));
    }
}

#[test]
fn that_all_containers_begin_anew_is_told_in_a_condition() {
    let codes = json!({"operator": "In", "values": [42]});
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": codes}]);
    let container = json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules});
    let pod = pod(json!({"containers": [container]}));
    let told = |view: &View| conditions(&show(&pod, view, &Plan::default(), Life::Running));
    let mut view = view(vec![exited("a", 42)]);
    assert!(told(&view).ends_with("; AllContainersRestarting=False"));
    view.round = 1;
    let words = "RestartAllContainersStarted container exited with restart policy rule";
    assert!(told(&view).ends_with(&format!("; AllContainersRestarting=True {words}")));
}

#[test]
fn initialisation() {
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    let status = show(&pod, &view(vec![running("i")]), &Plan::default(), Life::Running);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let text = conditions(&status);
    assert!(
        text.contains(
            "Initialized=False ContainersNotInitialized containers with incomplete status: [i]"
        ),
        "{text}"
    );
    let waiting = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
    let status =
        show(&pod, &view(vec![exited("i", 0), running("a")]), &Plan::default(), Life::Running);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.init_container_statuses.unwrap()[0].ready);
}

#[test]
fn readiness_gates_and_foreign_conditions() {
    let mut pod =
        pod(json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "a"}]}));
    let view = view(vec![running("a")]);
    let text = conditions(&show(&pod, &view, &Plan::default(), Life::Running));
    assert!(text.contains("Ready=False ReadinessGatesNotReady corresponding condition of pod readiness gate \"x/y\" does not exist."), "{text}");
    pod.status =
        serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).unwrap();
    let text = conditions(&show(&pod, &view, &Plan::default(), Life::Running));
    assert!(text.contains("; Ready=True;") && text.ends_with("x/y=True"), "{text}");
}

#[test]
fn transition_times_are_kept() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    pod.status = serde_json::from_value(json!({"conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
    .unwrap();
    let status = show(&pod, &view(vec![running("a")]), &Plan::default(), Life::Running);
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap().clone();
    assert_eq!(ready.last_transition_time.unwrap().0.to_string(), "2026-01-01T00:00:00Z");
}

#[test]
fn what_a_container_has_is_shown_and_what_is_missing_is_said() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let pod = pod(json!({"containers": [{"name": "a", "resources": resources("2")}]}));
    let (name, mut slot) = running("a");
    slot.resources = serde_json::from_value(resources("1")).ok();
    let mut view = view(vec![(name, slot)]);
    let plan = Plan::default();
    let verdict = Verdict { reason: "Deferred".into(), message: "full".into() };
    let told = |view: &View, pending: Option<&Verdict>| {
        let facts = Facts {
            view,
            plan: &plan,
            life: Life::Running,
            verdict: None,
            pending,
            host_ips: &[],
            start_time: at(0),
            now: at(9),
        };
        let status = status(&pod, &facts);
        let all = conditions(&status);
        let resizes = all.split("; ").filter(|c| c.starts_with("PodResize")).collect::<Vec<_>>();
        let shown = status.container_statuses.unwrap()[0].resources.clone().unwrap();
        (shown.requests.unwrap()["cpu"].0.clone(), resizes.join("; "))
    };
    assert_eq!(told(&view, None), ("1".into(), "PodResizeInProgress=True".into()));
    view.resize = Resize::Failed { message: "busy".into(), retry_at: at(10) };
    assert_eq!(told(&view, None).1, "PodResizeInProgress=True Error busy");
    view.slots.get_mut("a").unwrap().resources = serde_json::from_value(resources("2")).ok();
    assert_eq!(told(&view, None).1, "");
    view.resize = Resize::Idle;
    assert_eq!(
        told(&view, Some(&verdict)),
        ("2".into(), "PodResizePending=True Deferred full".into())
    );
    assert_eq!(told(&view, None).1, "");

    view.slots.get_mut("a").unwrap().resources = serde_json::from_value(resources("1")).ok();
    let status = show(&pod, &view, &plan, Life::Running);
    let cpu =
        |list: Option<&std::collections::BTreeMap<_, Quantity>>| list.unwrap()["cpu"].0.clone();
    let own = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(cpu(own.allocated_resources.as_ref()), "2");
    assert_eq!(cpu(status.allocated_resources.as_ref()), "2");
    assert_eq!(cpu(status.resources.as_ref().unwrap().requests.as_ref()), "1");
    let made = show(&pod, &View::default(), &plan, Life::Running);
    assert_eq!(made.container_statuses.unwrap()[0].allocated_resources, None, "nothing is made");
}

#[test]
fn what_is_about_to_be_replaced_is_not_said_to_have_ended() {
    let pod = pod(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]}));
    let (name, mut slot) = exited("a", 0);
    slot.current.as_mut().unwrap().replaced = true;
    let view = view(vec![(name, slot)]);
    let shown = |life| {
        let status = show(&pod, &view, &Plan::default(), life);
        let container = status.container_statuses.unwrap().remove(0);
        let state = container.state.unwrap();
        (status.phase.unwrap(), state.waiting.is_some(), container.last_state.is_some())
    };
    assert_eq!(shown(Life::Running), ("Running".into(), true, true));
    assert_eq!(shown(Life::Ended), ("Succeeded".into(), false, false));
}

#[test]
fn how_volumes_are_mounted() {
    let pod = pod(json!({"containers": [{"name": "a", "volumeMounts": [
        {"name": "v", "mountPath": "/v"},
        {"name": "w", "mountPath": "/w", "readOnly": true},
        {"name": "x", "mountPath": "/x", "readOnly": true, "recursiveReadOnly": "IfPossible"},
    ]}]}));
    let shown = |view: &View| {
        let status = show(&pod, view, &Plan::default(), Life::Running);
        serde_json::to_value(&status.container_statuses.unwrap()[0].volume_mounts).unwrap()
    };
    assert_eq!(
        shown(&view(vec![running("a")])),
        json!([
            {"name": "v", "mountPath": "/v"},
            {"name": "w", "mountPath": "/w", "readOnly": true, "recursiveReadOnly": "Disabled"},
            {"name": "x", "mountPath": "/x", "readOnly": true, "recursiveReadOnly": "Enabled"},
        ])
    );
    assert_eq!(shown(&View::default()), json!(null), "nothing is made");
}
