//! The FlowSchemas and PriorityLevelConfigurations that every cluster has (upstream's
//! pkg/apis/flowcontrol/bootstrap): as a table, since only few members differ.

use serde_json::{Value, json};

/// API group of both kinds.
pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Level: shares, lendable percent, and queues, hand size and queue length where requests wait.
type LevelRow = (&'static str, usize, usize, Option<(usize, usize, usize)>);

const LEVELS: &[LevelRow] = &[
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

/// Whom a rule is of: users, groups, and service accounts of kube-system, by a letter and a name.
type Subjects = &'static [(char, &'static str)];

const EVERYBODY: Subjects = &[('g', "system:unauthenticated"), ('g', "system:authenticated")];
const NODES: Subjects = &[('g', "system:nodes")];
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

/// What a rule covers.
enum Covers {
    All,
    Probes,
    /// Verbs, group, resources, whether beyond namespaces, each rule of a schema in turn.
    Some(&'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)]),
}

/// Schema: precedence, level, distinguisher, subjects and what it covers.
type SchemaRow = (&'static str, i64, &'static str, &'static str, Subjects, Covers);

const WRITE: &[&str] = &["get", "create", "update"];
const ANY: &[&str] = &["*"];
const LEASES: Covers = Covers::Some(&[(WRITE, "coordination.k8s.io", &["leases"], false)]);

const SCHEMAS: &[SchemaRow] = &[
    ("exempt", 1, "exempt", "", &[('g', "system:masters")], Covers::All),
    ("probes", 2, "exempt", "", EVERYBODY, Covers::Probes),
    (
        "system-leader-election",
        100,
        "leader-election",
        "ByUser",
        &[('u', MANAGER), ('u', SCHEDULER)],
        LEASES,
    ),
    (
        "endpoint-controller",
        150,
        "workload-high",
        "ByUser",
        &[('u', MANAGER), ('s', "endpoint-controller"), ('s', "endpointslicemirroring-controller")],
        Covers::Some(&[(WRITE, "", &["endpoints"], false)]),
    ),
    ("workload-leader-election", 200, "leader-election", "ByUser", &[('s', "*")], LEASES),
    (
        "system-node-high",
        400,
        "node-high",
        "ByUser",
        NODES,
        Covers::Some(&[
            (ANY, "", &["nodes", "nodes/status"], true),
            (ANY, "coordination.k8s.io", &["leases"], false),
        ]),
    ),
    ("system-nodes", 500, "system", "ByUser", NODES, Covers::All),
    (
        "kube-controller-manager",
        800,
        "workload-high",
        "ByNamespace",
        &[('u', MANAGER)],
        Covers::All,
    ),
    ("kube-scheduler", 800, "workload-high", "ByNamespace", &[('u', SCHEDULER)], Covers::All),
    (
        "kube-system-service-accounts",
        900,
        "workload-high",
        "ByNamespace",
        &[('s', "*")],
        Covers::All,
    ),
    (
        "service-accounts",
        9000,
        "workload-low",
        "ByUser",
        &[('g', "system:serviceaccounts")],
        Covers::All,
    ),
    ("global-default", 9900, "global-default", "ByUser", EVERYBODY, Covers::All),
    ("catch-all", 10_000, "catch-all", "ByUser", EVERYBODY, Covers::All),
];

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": spec,
    })
}

/// The PriorityLevelConfigurations.
pub(crate) fn levels() -> impl Iterator<Item = Value> {
    let exempt = json!({"type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LEVELS.iter().map(|(name, shares, lendable, queuing)| {
        let response = match queuing {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => json!({"type": "Queue", "queuing": {
                "queues": queues, "handSize": hand, "queueLengthLimit": length}}),
        };
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": response});
        object(LEVEL, name, json!({"type": "Limited", "limited": limited}))
    });
    std::iter::once(object(LEVEL, "exempt", exempt)).chain(limited)
}

const LEVEL: &str = "PriorityLevelConfiguration";

/// The FlowSchemas.
pub(crate) fn schemas() -> impl Iterator<Item = Value> {
    SCHEMAS.iter().map(|(name, precedence, level, distinguisher, subjects, covers)| {
        let subjects: Vec<Value> = subjects.iter().map(subject).collect();
        let mut rule = covers.rule();
        rule["subjects"] = subjects.into();
        let mut spec = json!({"priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence, "rules": [rule]});
        if !distinguisher.is_empty() {
            spec["distinguisherMethod"] = json!({"type": distinguisher});
        }
        object("FlowSchema", name, spec)
    })
}

fn subject((kind, name): &(char, &'static str)) -> Value {
    match kind {
        'u' => json!({"kind": "User", "user": {"name": name}}),
        'g' => json!({"kind": "Group", "group": {"name": name}}),
        _ => json!({"kind": "ServiceAccount",
            "serviceAccount": {"namespace": "kube-system", "name": name}}),
    }
}

impl Covers {
    fn rule(&self) -> Value {
        match self {
            Covers::All => json!({
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                                   "clusterScope": true, "namespaces": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }),
            Covers::Probes => json!({"nonResourceRules": [{"verbs": ["get"],
                "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}),
            Covers::Some(rows) => {
                let rules: Vec<Value> = rows
                    .iter()
                    .map(|(verbs, group, resources, cluster)| {
                        let mut rule = json!({"verbs": verbs, "apiGroups": [group],
                            "resources": resources, "namespaces": ["*"]});
                        if *cluster {
                            rule["clusterScope"] = true.into();
                        }
                        rule
                    })
                    .collect();
                json!({"resourceRules": rules})
            }
        }
    }
}
