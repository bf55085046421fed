use super::*;

/// A pod that needs one core.
fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    let text = format!(
        "{{metadata: {{name: {name}, namespace: default}}, spec: {{priority: {priority}, containers: [{{name: c, resources: {{requests: {{cpu: '1'}}}}}}]}}}}"
    );
    let pod: Pod = serde_saphyr::from_str(&text).expect("a pod");
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// Two nodes of two cores, where two and one unimportant pods run.
fn state() -> State {
    let mut state = State::default();
    for name in ["n1", "n2"] {
        let text = format!(
            "{{metadata: {{name: {name}}}, status: {{allocatable: {{cpu: '2', pods: '9'}}}}}}"
        );
        let node: Node = serde_saphyr::from_str(&text).expect("a node");
        state.snapshot.set_node(Arc::new(node));
    }
    for (name, node) in [("a", "n1"), ("b", "n1"), ("c", "n2")] {
        state.snapshot.place(pod(name, 1), node);
    }
    state
}

/// The node, or who has to leave which.
fn outcome(state: &mut State, pod: &PodInfo) -> String {
    match state.decide(&Key::of(pod.pod.as_ref()), pod, None) {
        Ok(node) => node,
        Err(Refusal { nomination: Nomination::Begins(preemption), .. }) => {
            let names = preemption.victims.iter().filter_map(|v| v.pod.metadata.name.clone());
            format!("{}: {}", preemption.node, names.collect::<Vec<_>>().join(" "))
        }
        Err(refusal) => refusal.message,
    }
}

fn keep(state: &mut State, pod: &Arc<PodInfo>, node: &str) {
    let key = Key::of(pod.pod.as_ref());
    state.pending.insert(key.clone(), pod.pod.clone());
    state.nominated.insert(key, (pod.clone(), node.into()));
}

#[test]
fn others_leave_for_each_pod_that_waits_for_room() {
    let mut state = state();
    state.snapshot.remove_node("n2");
    let (one, two) = (pod("one", 9), pod("two", 9));
    assert_eq!(outcome(&mut state, &one), "n1: b");
    keep(&mut state, &one, "n1");
    assert_eq!(outcome(&mut state, &two), "n1: a b");
    keep(&mut state, &two, "n1");
    let none = outcome(&mut state, &pod("three", 9));
    assert!(none.contains("No preemption victims found for incoming pod"), "{none}");
}

#[test]
fn the_node_that_is_kept_for_a_pod_comes_first() {
    let mut state = state();
    state.snapshot.remove_pod(&Key::new("default", "a"));
    let one = pod("one", 9);
    for node in ["n1", "n2"] {
        keep(&mut state, &one, node);
        assert_eq!(outcome(&mut state, &one), node);
    }
    keep(&mut state, &pod("other", 9), "n1");
    keep(&mut state, &one, "n1");
    assert_eq!(outcome(&mut state, &one), "n2");
}
