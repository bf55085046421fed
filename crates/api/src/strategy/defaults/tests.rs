use super::*;

fn filled(collection: &str, mut object: Value) -> Value {
    fill(collection, &mut object);
    let once = object.clone();
    fill(collection, &mut object);
    assert_eq!(object, once, "filling in twice changes nothing");
    object
}

#[test]
fn an_empty_text_is_none() {
    let binding = json!({"roleRef": {"apiGroup": "", "kind": "Role", "name": "a"}});
    let binding = filled("rbac.authorization.k8s.io/rolebindings", binding);
    assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
}

#[test]
fn the_table_is_json() {
    let rows = KINDS.iter().flat_map(|(_, rows)| rows.iter());
    for (path, text) in rows
        .chain(CONTAINER)
        .chain(PROBE)
        .chain(POD_SPEC)
        .chain(JOB_SPEC)
        .chain(FLOW_SCHEMA)
        .chain(QUEUING)
    {
        assert!(serde_json::from_str::<Value>(text).is_ok(), "{path}");
    }
    for (collection, _) in KINDS.iter() {
        assert!(
            crate::resource::RESOURCES.iter().any(|r| r.collection() == *collection),
            "{collection}"
        );
    }
}

#[test]
fn a_pod_has_no_less_than_no_time_to_end() {
    let spec = |seconds: i64| json!({"terminationGracePeriodSeconds": seconds});
    let pod = |seconds| filled("pods", json!({"spec": spec(seconds)}))["spec"].clone();
    for (asked, kept) in [(-1, 1), (0, 0), (5, 5)] {
        assert_eq!(pod(asked)["terminationGracePeriodSeconds"], kept, "{asked}");
    }
    let template = json!({"spec": {"template": {"spec": spec(-1)}}});
    let kept = filled("apps/deployments", template);
    assert_eq!(kept["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], -1);
}

#[test]
fn a_pod_as_upstream_shows_it() {
    let pod = json!({"spec": {"volumes": [{"name": "v"}], "containers": [
        {"name": "c", "image": "nginx", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
         "resources": {"limits": {"cpu": "1", "example.com/dongle": "2"}}},
        {"name": "d", "image": "localhost:5000/x:1"}]}});
    assert_eq!(
        filled("pods", pod)["spec"],
        json!({"enableServiceLinks": true, "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler",
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [
                {"name": "c", "image": "nginx", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
                 "terminationMessagePolicy": "File", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                 "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                     "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                 "resources": {"limits": {"cpu": "1", "example.com/dongle": "2"},
                     "requests": {"cpu": "1", "example.com/dongle": "2"}}},
                {"name": "d", "image": "localhost:5000/x:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                 "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}]})
    );
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": []}});
    let deployment = filled("apps/deployments", json!({"spec": {"template": template}}));
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["spec"]["revisionHistoryLimit"]),
        (&json!(1), &json!(10))
    );
    assert_eq!(deployment["spec"]["template"]["spec"]["restartPolicy"], "Always");
    let job = filled("batch/jobs", json!({"spec": {"template": template}}));
    assert_eq!(
        (&job["spec"]["completions"], &job["spec"]["parallelism"], &job["spec"]["backoffLimit"]),
        (&json!(1), &json!(1), &json!(6))
    );
    let parallel = filled("batch/jobs", json!({"spec": {"parallelism": 2}}));
    assert!(parallel["spec"]["completions"].is_null());
    assert_eq!(filled("apps/deployments", json!({})), json!({}));
}

#[test]
fn what_follows_from_other_fields() {
    let pod = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]});
    let port = |kind: &str, object: Value, pointer: &str| {
        filled(kind, object).pointer(pointer).unwrap()["containers"][0]["ports"][0].clone()
    };
    let shown = port("pods", json!({"spec": pod}), "/spec");
    assert_eq!(shown, json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80}));
    let template = json!({"spec": {"template": {"spec": pod}}});
    let shown = port("apps/deployments", template, "/spec/template/spec");
    assert_eq!(shown, json!({"containerPort": 80, "protocol": "TCP"}));
    for (collection, object, pointer, expected) in [
        (
            "limitranges",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}}),
            "/spec/limits/0",
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
                "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}}),
        ),
        (
            "limitranges",
            json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "2"}}]}}),
            "/spec/limits/0",
            json!({"type": "Pod", "max": {"cpu": "2"}}),
        ),
        (
            "nodes",
            json!({"status": {"capacity": {"cpu": "4"}}}),
            "/status/allocatable",
            json!({"cpu": "4"}),
        ),
        (
            "autoscaling/horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 2, "behavior": {"scaleUp": {"selectPolicy": "Min"}}}}),
            "/spec/behavior",
            json!({"scaleUp": {"selectPolicy": "Min", "stabilizationWindowSeconds": 0, "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}),
        ),
        (
            "autoscaling/horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 2}}),
            "/spec/metrics/0/resource/target/averageUtilization",
            json!(80),
        ),
        (
            "apps/statefulsets",
            json!({"spec": {}}),
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}}),
        ),
        (
            "apps/statefulsets",
            json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}}),
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate"}),
        ),
        (
            "networking.k8s.io/ingressclasses",
            json!({"spec": {"parameters": {"kind": "A"}}}),
            "/spec/parameters/scope",
            json!("Cluster"),
        ),
        (
            "batch/jobs",
            json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
            "/metadata/labels",
            json!({"a": "b"}),
        ),
        (
            "batch/cronjobs",
            json!({"spec": {"jobTemplate": {"spec": {"parallelism": 2}}}}),
            "/spec/jobTemplate/spec",
            json!({"parallelism": 2}),
        ),
        (
            "resource.k8s.io/resourceclaims",
            json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {}}]}}}),
            "/spec/devices/requests/0/exactly",
            json!({"allocationMode": "ExactCount", "count": 1}),
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"dataSource": {"kind": "A", "name": "b"}}}),
            "/spec/dataSourceRef",
            json!({"kind": "A", "name": "b"}),
        ),
        (
            "persistentvolumes",
            json!({"spec": {"hostPath": {"path": "/x"}}}),
            "/spec/hostPath/type",
            json!(""),
        ),
        (
            "pods",
            json!({"spec": {"volumes": [{"name": "v", "image": {"reference": "a:1"}}]}}),
            "/spec/volumes/0/image/pullPolicy",
            json!("IfNotPresent"),
        ),
        (
            "services",
            json!({"spec": {"sessionAffinityConfig": {"clientIP": {}}}}),
            "/spec",
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}),
        ),
        (
            "services",
            json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
            "/status/loadBalancer/ingress/0",
            json!({"ip": "1.2.3.4", "ipMode": "VIP"}),
        ),
    ] {
        assert_eq!(filled(collection, object).pointer(pointer), Some(&expected), "{collection}");
    }
}

#[test]
fn what_a_pod_says_for_itself_is_completed() {
    let filled = |own: Value| {
        let containers = json!([
            {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "64Mi", "x.org/y": "1"}}},
            {"name": "b", "resources": {"requests": {"cpu": "200m"}, "limits": {"hugepages-2Mi": "4Mi"}}}]);
        let pod = json!({"spec": {"containers": containers, "resources": own}});
        filled("pods", pod)["spec"]["resources"].clone()
    };
    for (own, expected) in [
        (json!({}), json!({})),
        (json!({"limits": {}}), json!({"limits": {}})),
        (
            json!({"limits": {"cpu": "2"}}),
            json!({"limits": {"cpu": "2", "hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "300m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}}),
        ),
        (
            json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "1", "hugepages-2Mi": "8Mi"}}),
            json!({"limits": {"memory": "1Gi"},
                "requests": {"cpu": "1", "hugepages-2Mi": "8Mi", "memory": "64Mi"}}),
        ),
        (
            json!({"requests": {"cpu": "1"}}),
            json!({"requests": {"cpu": "1", "memory": "64Mi", "hugepages-2Mi": "4Mi"},
                "limits": {"hugepages-2Mi": "4Mi"}}),
        ),
    ] {
        assert_eq!(filled(own.clone()), expected, "{own}");
    }
}

#[test]
fn zero_is_none_where_nothing_can_be_zero() {
    let schema = json!({"spec": {"matchingPrecedence": 0}});
    let schema = filled("flowcontrol.apiserver.k8s.io/flowschemas", schema);
    assert_eq!(schema["spec"]["matchingPrecedence"], 1000);
    let queuing = json!({"queues": 0, "handSize": 3});
    let level = json!({"spec": {"limited": {"nominalConcurrencyShares": 0, "limitResponse": {"queuing": queuing}}}});
    let level = filled("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", level);
    assert_eq!(
        level["spec"]["limited"],
        json!({"nominalConcurrencyShares": 0, "lendablePercent": 0,
            "limitResponse": {"queuing": {"queues": 64, "handSize": 3, "queueLengthLimit": 50}}})
    );
}

#[test]
fn services_and_secrets() {
    let service = filled(
        "services",
        json!({"spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 1, "targetPort": "web"}]}}),
    );
    assert_eq!(
        service["spec"],
        json!({"type": "NodePort", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}, {"port": 1, "targetPort": "web", "protocol": "TCP"}]})
    );
    let secret = filled("secrets", json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}}));
    assert_eq!(secret, json!({"type": "Opaque", "data": {"c": "ZA==", "a": "Yg=="}}));
}
