//! Rules for pods and for templates of pods.

use super::at::{At, Errors};
use super::{amounts, container, formats, meta, pod_update, security, selectors, volume};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const NAMESERVERS_MAX_COUNT: usize = 3;
const SEARCHES_MAX_COUNT: usize = 32;
const SEARCHES_MAX_CHARS: usize = 2048;
/// The kernel's limit.
const HOSTNAME_MAX_BYTES: usize = 64;
/// Marks the image of a pod that a node runs from a file of its own.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The parts of a pod's `spec` that rules for other parts ask for.
pub(super) struct Pod<'v> {
    /// The `spec`.
    pub spec: At<'v>,
    /// Legal volumes by their names.
    pub volumes: BTreeMap<&'v str, &'v Value>,
    /// Names of resource claims.
    pub claims: BTreeSet<&'v str>,
    /// Seconds the pod has to end.
    pub grace: Option<i64>,
}

impl<'v> Pod<'v> {
    /// Names of the containers of a list.
    pub fn names(&self, list: &str) -> impl Iterator<Item = &'v str> {
        self.spec.get(list).items().map(|container| container.get("name").text())
    }

    /// Whether users in the pod are the node's.
    pub fn host_users(&self) -> bool {
        self.spec.get("hostUsers").value != false
    }
}

/// A new pod.
pub(super) fn created(object: &At<'_>, out: &mut Errors) {
    whole(object, out);
    let spec = object.get("spec");
    let ephemeral = spec.get("ephemeralContainers");
    if ephemeral.len() > 0 {
        out.forbidden(&ephemeral, "cannot be set on create");
    }
    let node = spec.get("nodeName");
    if !node.text().is_empty() && spec.get("schedulingGates").len() > 0 {
        out.forbidden(&node, "cannot be set until all schedulingGates have been cleared");
    }
}

/// A changed pod.
pub(super) fn updated(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    whole(new, out);
    pod_update::check(new, old, out);
}

/// What holds for every state of a pod.
pub(super) fn whole(object: &At<'_>, out: &mut Errors) {
    let specification = object.get("spec");
    annotations(&object.get("metadata.annotations"), &specification, out);
    spec(&specification, true, out);
    if specification.get("serviceAccountName").text().is_empty() {
        for volume in specification.get("volumes").items() {
            for source in volume.get("projected.sources").items() {
                let token = source.get("serviceAccountToken");
                if token.is_set() {
                    let why = "must not be specified when serviceAccountName is not set";
                    out.forbidden(&token, why);
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        specification.get(list).items().for_each(|item| container::padded_image(&item, out));
    }
}

fn annotations(at: &At<'_>, spec: &At<'_>, out: &mut Errors) {
    for (key, value) in at.entries() {
        if key == MIRROR && spec.get("nodeName").text().is_empty() {
            out.invalid(&value, "must set spec.nodeName if mirror pod annotation is set");
        }
        if key == DELETION_COST && value.text().parse::<i32>().is_err() {
            out.invalid(&value, "must be a 32bit integer");
        }
    }
}

/// A template of a pod.
pub(super) fn template(at: &At<'_>, out: &mut Errors) {
    // Upstream's paths leave `metadata` out here.
    meta::labels(&at.get("metadata.labels").named(at, "labels"), out);
    let notes = at.get("metadata.annotations").named(at, "annotations");
    meta::annotations(&notes, out);
    annotations(&notes, &at.get("spec"), out);
    spec(&at.get("spec"), false, out);
    let ephemeral = at.get("spec.ephemeralContainers");
    if ephemeral.len() > 0 {
        out.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
    }
}

/// A pod's `spec`.
fn spec(at: &At<'_>, is_pod: bool, out: &mut Errors) {
    let grace = at.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        out.required(&grace, "");
    }
    let volumes = volume::check(&at.get("volumes"), out);
    let pod = Pod {
        spec: at.clone(),
        volumes,
        claims: resource_claims(&at.get("resourceClaims"), out),
        grace: grace.value.as_i64(),
    };
    container::regular(&pod, out);
    container::init(&pod, out);
    container::ephemeral(&pod, out);
    amounts::of_pod(at, &|claim| pod.claims.contains(claim), out);
    host_network_ports(at, is_pod, out);
    out.one_of(&at.get("restartPolicy"), &["Always", "OnFailure", "Never"]);
    out.one_of(&at.get("dnsPolicy"), &DNS_POLICIES);
    meta::labels(&at.get("nodeSelector"), out);
    security::pod(&at.get("securityContext"), at, out);
    selectors::affinity(&at.get("affinity"), out);
    dns_config(at, out);
    for gate in at.get("readinessGates").items() {
        let kind = gate.get("conditionType");
        meta::label_key(&kind, kind.text(), out);
    }
    scheduling_gates(&at.get("schedulingGates"), out);
    selectors::spread(&at.get("topologySpreadConstraints"), out);
    host_users(&pod, out);
    host_name(at, out);
    names(at, out);
    rest(at, out);
    env_files(at, out);
}

fn resource_claims<'v>(at: &At<'v>, out: &mut Errors) -> BTreeSet<&'v str> {
    let mut names = BTreeSet::new();
    for claim in at.items() {
        let name = claim.get("name");
        if out.needed(&name) {
            match names.insert(name.text()) {
                true => out.all(&name, formats::dns_label(name.text())),
                false => out.duplicate(&name, name.text()),
            }
        }
        let sources =
            ["resourceClaimName", "resourceClaimTemplateName"].map(|name| claim.get(name));
        match sources.iter().filter(|source| source.is_set()).count() {
            2 => out.invalid(&claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            0 => out.invalid(&claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            _ => {}
        }
        for source in sources.iter().filter(|source| source.is_set()) {
            out.all(source, formats::dns_subdomain(source.text()));
        }
    }
    names
}

/// On the host's network a port of the pod is one of the host; only a pod has to say so, since
/// templates are completed later.
fn host_network_ports(spec: &At<'_>, is_pod: bool, out: &mut Errors) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let (host, own) = (port.get("hostPort"), port.get("containerPort"));
            if (is_pod || host.number() != 0) && host.number() != own.number() {
                let why = "must match `containerPort` when `hostNetwork` is true";
                out.invalid_as(&host, host.number(), why);
            }
        }
    }
}

fn dns_config(spec: &At<'_>, out: &mut Errors) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            return out.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.len() == 0 {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return out.required(&servers, why);
        }
    }
    if servers.len() > NAMESERVERS_MAX_COUNT {
        out.invalid(
            &servers,
            format!("must not have more than {NAMESERVERS_MAX_COUNT} nameservers"),
        );
    }
    servers.items().for_each(|server| out.all(&server, formats::ip(server.text())));
    if searches.len() > SEARCHES_MAX_COUNT {
        out.invalid(
            &searches,
            format!("must not have more than {SEARCHES_MAX_COUNT} search paths"),
        );
    }
    let chars: usize = searches.items().map(|search| search.text().len() + 1).sum();
    if chars > SEARCHES_MAX_CHARS + 1 {
        let why = format!(
            "must not have more than {SEARCHES_MAX_CHARS} characters (including spaces) in the search list"
        );
        out.invalid(&searches, why);
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        for why in formats::dns_subdomain_underscore(text) {
            out.invalid_as(&search, text, why);
        }
    }
    for option in config.get("options").items() {
        if option.get("name").text().is_empty() {
            out.required(&option, "must not be empty");
        }
    }
}

fn scheduling_gates(at: &At<'_>, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for gate in at.items() {
        let name = gate.get("name").text();
        meta::label_key(&gate, name, out);
        if !seen.insert(name) {
            out.duplicate(&gate, name);
        }
    }
}

fn host_users(pod: &Pod<'_>, out: &mut Errors) {
    if pod.host_users() {
        return;
    }
    for (field, shown) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if pod.spec.get(field).is_true() {
            out.forbidden(&pod.spec.get(shown), "when `pod.Spec.HostUsers` is false");
        }
    }
}

/// The pod's host name where it is one of its own choice.
fn host_name(spec: &At<'_>, out: &mut Errors) {
    let Some(name) = spec.get("hostnameOverride").set() else { return };
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.get(other).is_true() {
            out.forbidden(&name, format!("may not be specified when {other} is true"));
        }
    }
    if name.text().len() > HOSTNAME_MAX_BYTES {
        out.too_long(&name, HOSTNAME_MAX_BYTES);
    }
    out.all(&name, formats::dns_subdomain(name.text()));
}

/// Variables come from files of volumes that the pod's own containers fill.
fn env_files(spec: &At<'_>, out: &mut Errors) {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    for container in lists.into_iter().flat_map(|list| spec.get(list).items()) {
        for variable in container.get("env").items() {
            let file = variable.get("valueFrom.fileKeyRef");
            if !file.is_set() {
                continue;
            }
            let name = file.get("volumeName");
            let volume = spec.get("volumes").items().find(|v| v.get("name").text() == name.text());
            match volume {
                None => out.not_found(&name, name.text()),
                Some(volume) if volume.get("emptyDir").is_set() => {}
                Some(_) => out.invalid(&name, "referenced volume must be of type emptyDir"),
            }
        }
    }
}

/// Names of other objects and of the pod in DNS, and its last moment, in upstream's order.
fn names(at: &At<'_>, out: &mut Errors) {
    let named = |name: &str, format: formats::Format, out: &mut Errors| {
        let name = at.get(name);
        if !name.text().is_empty() {
            out.all(&name, format(name.text()));
        }
    };
    named("serviceAccountName", formats::dns_subdomain, out);
    named("nodeName", formats::dns_subdomain, out);
    let deadline = at.get("activeDeadlineSeconds");
    let most = i64::from(i32::MAX);
    if deadline.is_set() && !(1..=most).contains(&deadline.number()) {
        out.invalid(&deadline, formats::between(1, most));
    }
    named("hostname", formats::dns_label, out);
    named("subdomain", formats::dns_label, out);
}

fn rest(at: &At<'_>, out: &mut Errors) {
    selectors::tolerations(&at.get("tolerations"), out);
    for alias in at.get("hostAliases").items() {
        out.all(&alias.get("ip"), formats::ip(alias.get("ip").text()));
        for name in alias.get("hostnames").items() {
            out.all(&name, formats::dns_subdomain(name.text()));
        }
    }
    let class = at.get("priorityClassName");
    if !class.text().is_empty() {
        out.all(&class, formats::dns_subdomain(class.text()));
    }
    let class = at.get("runtimeClassName");
    if class.is_set() {
        out.all(&class, formats::dns_subdomain(class.text()));
    }
    out.one_of_if_set(&at.get("preemptionPolicy"), &["PreemptLowerPriority", "Never"]);
    for (name, amount) in at.get("overhead").entries() {
        amounts::value(name, &amount, out);
    }
    if let Some(os) = at.get("os").set() {
        out.one_of(&os.get("name"), &["linux", "windows"]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{created, updated};

    #[test]
    fn pods() {
        created(
            "pods",
            &[
                ("spec: {containers: [{name: a, image: i}]}", ""),
                ("spec: {}", "spec.containers: Required value"),
                (
                    "spec: {containers: [{name: a, image: i, restartPolicy: Often}]}",
                    r#"spec.containers[0].restartPolicy: Unsupported value: "Often": supported values: "Always", "Never", "OnFailure""#,
                ),
                (
                    "spec: {initContainers: [{name: i, image: i, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: NotIn, values: [0]}}]}, {name: j, image: i, restartPolicy: OnFailure}, {name: k, image: i, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]}], containers: [{name: a, image: i, restartPolicy: Never, restartPolicyRules: [{action: Stop}, {exitCodes: {values: [1]}}]}]}",
                    r#"spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Stop": supported values: "Restart", "RestartAllContainers"
                       spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified
                       spec.containers[0].restartPolicyRules[1].action: Unsupported value: "": supported values: "Restart", "RestartAllContainers"
                       spec.containers[0].restartPolicyRules[1].exitCodes.operator: Unsupported value: "": supported values: "In", "NotIn"
                       spec.initContainers[2].restartPolicy: Required value: must specify restartPolicy when restart rules are used"#,
                ),
                (
                    "spec: {containers: [{name: a.b, image: ' i'}, {image: i}, {name: c}, {name: c, image: i, imagePullPolicy: Maybe, terminationMessagePolicy: x}]}",
                    r#"spec.containers[0].name: Invalid value: "a.b": must not contain dots
                       spec.containers[1].name: Required value
                       spec.containers[2].image: Required value
                       spec.containers[3].terminationMessagePolicy: Unsupported value: "x": supported values: "File", "FallbackToLogsOnError"
                       spec.containers[3].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"
                       spec.containers[3].name: Duplicate value: "c"
                       spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace"#,
                ),
                (
                    "spec: {containers: [{name: a, image: i, ports: [{containerPort: 70000, name: HTTP}, {name: x, containerPort: 1, hostPort: 5, protocol: ICMP}, {name: x, hostPort: 5}, {containerPort: 2, hostPort: 5}]}]}",
                    r#"spec.containers[0].ports[0].name: Invalid value: "HTTP": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
                       spec.containers[0].ports[0].name: Invalid value: "HTTP": must contain at least one letter (a-z)
                       spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
                       spec.containers[0].ports[1].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
                       spec.containers[0].ports[2].name: Duplicate value: "x"
                       spec.containers[0].ports[2].containerPort: Required value
                       spec.containers[0].ports[3].hostPort: Duplicate value: "TCP//5""#,
                ),
                (
                    "spec: {containers: [{name: a, image: i, env: [{value: x}, {name: 'a=b'}, {name: c, valueFrom: {}}, {name: d, value: x, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: e, valueFrom: {fieldRef: {fieldPath: spec.foo}}}, {name: f, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}, {name: g, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['a b']\"}}}], envFrom: [{prefix: '='}]}]}",
                    r#"spec.containers[0].env[0].name: Required value
                       spec.containers[0].env[1].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='
                       spec.containers[0].env[2].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`
                       spec.containers[0].env[3].valueFrom: Invalid value: "": may not be specified when `value` is not empty
                       spec.containers[0].env[4].valueFrom.fieldRef.fieldPath: Invalid value: "spec.foo": error converting fieldPath: field label not supported: spec.foo
                       spec.containers[0].env[5].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
                       spec.containers[0].env[6].valueFrom.fieldRef: Invalid value: "a b": name part must consist of…
                       spec.containers[0].envFrom[0].prefix: Invalid value: "=": a valid environment variable name…
                       spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#,
                ),
                (
                    "spec: {containers: [{name: a, image: i, env: [{name: c, valueFrom: {fileKeyRef: {path: ../x}}}]}]}",
                    r#"spec.containers[0].env[0].valueFrom.fileKeyRef.key: Required value
                       spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: "../x": must not contain '..'
                       spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Required value
                       spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: """#,
                ),
                (
                    "spec: {volumes: [{name: e, emptyDir: {}}, {name: h, hostPath: {path: /h}}], initContainers: [{name: i, image: i, env: [{name: c, valueFrom: {fileKeyRef: {path: x, key: c, volumeName: h}}}]}], containers: [{name: a, image: i, env: [{name: c, valueFrom: {fileKeyRef: {path: x, key: c, volumeName: e}}}, {name: d, valueFrom: {fileKeyRef: {path: x, key: d, volumeName: f}}}]}]}",
                    r#"spec.initContainers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: "h": referenced volume must be of type emptyDir
                       spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Not found: "f""#,
                ),
                (
                    "spec: {resources: {claims: [], requests: {cpu: 300m, ephemeral-storage: 1Mi}, limits: {memory: 10Mi, hugepages-2Mi: 2Mi}}, initContainers: [{name: i, image: i, restartPolicy: Always, resources: {requests: {cpu: 200m}}}], containers: [{name: a, image: i, resources: {requests: {cpu: 200m, memory: 1Mi}, limits: {memory: 20Mi, hugepages-2Mi: 4Mi}}}]}",
                    r#"spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level
                       spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"
                       spec.resources.requests[cpu]: Invalid value: "300m": must be greater than or equal to aggregate container requests of 400m
                       spec.resources.requests[hugepages-2Mi]: Invalid value: "2Mi": must be greater than or equal to aggregate container requests of 4Mi
                       spec.resources.limits[hugepages-2Mi]: Invalid value: "2Mi": must be greater than or equal to aggregate container limits of 4Mi
                       spec.resources.containers[0][memory].limits: Invalid value: "20Mi": must be less than or equal to pod limits of 10Mi
                       spec.resources.containers[0][hugepages-2Mi].limits: Invalid value: "4Mi": must be less than or equal to pod limits of 2Mi"#,
                ),
                (
                    "spec: {os: {name: windows}, resources: {limits: {cpu: 1}}, containers: [{name: a, image: i}]}",
                    "spec.resources: Forbidden: may not be set for a windows pod",
                ),
                (
                    "spec: {hostnameOverride: Not-A-Name, setHostnameAsFQDN: true, hostNetwork: true, containers: [{name: a, image: i}]}",
                    r#"spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true
                       spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true
                       spec.hostnameOverride: Invalid value: "Not-A-Name": a lowercase RFC 1123 subdomain…"#,
                ),
                (
                    &format!(
                        "spec: {{hostnameOverride: {}, containers: [{{name: a, image: i}}]}}",
                        "a".repeat(65)
                    ),
                    "spec.hostnameOverride: Too long: may not be more than 64 bytes",
                ),
                (
                    "spec: {containers: [{name: a, image: i, lifecycle: {stopSignal: SIGTERM}}]}",
                    "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
                ),
                (
                    "spec: {os: {name: linux}, containers: [{name: a, image: i, lifecycle: {stopSignal: SIGRTMAX-14}}, {name: b, image: i, lifecycle: {stopSignal: SIGRTMIN+15}}, {name: c, image: i, lifecycle: {stopSignal: SIGRTMIN+16}}]}",
                    r#"spec.containers[2].lifecycle.stopSignal: Unsupported value: "SIGRTMIN+16": supported values: "SIGABRT", "SIGALRM",…"#,
                ),
                (
                    "spec: {os: {name: windows}, containers: [{name: a, image: i, lifecycle: {stopSignal: SIGUSR1}}]}",
                    r#"spec.containers[0].lifecycle.stopSignal: Unsupported value: "SIGUSR1": supported values: "SIGKILL", "SIGTERM""#,
                ),
                (
                    "spec: {containers: [{name: a, image: i, env: [{name: c, valueFrom: {secretKeyRef: {name: A, key: 'x y'}}}, {name: d, valueFrom: {resourceFieldRef: {resource: limits.disk}}}, {name: e, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 2m}}}]}]}",
                    r#"spec.containers[0].env[0].valueFrom.secretKeyRef.name: Invalid value: "A": a lowercase RFC 1123 subdomain…
                       spec.containers[0].env[0].valueFrom.secretKeyRef.key: Invalid value: "x y": a valid config key must consist…
                       spec.containers[0].env[1].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.disk": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"
                       spec.containers[0].env[2].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource"#,
                ),
                (
                    "spec: {containers: [{name: a, image: i, resources: {limits: {cpu: 1, memory: -1, foo: 1, example.com/gpu: 500m}, requests: {cpu: 1500m, example.com/gpu: 1}}}]}",
                    r#"spec.containers[0].resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0
                       spec.containers[0].resources.limits[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
                       spec.containers[0].resources.limits[foo]: Invalid value: "foo": must be a standard resource for containers
                       spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer
                       spec.containers[0].resources.requests: Invalid value: "1500m": must be less than or equal to cpu limit of 1
                       spec.containers[0].resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 500m
                       spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0
                       spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
                       spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers"#,
                ),
                (
                    "spec: {terminationGracePeriodSeconds: 5, containers: [{name: a, image: i, livenessProbe: {successThreshold: 2}, readinessProbe: {tcpSocket: {port: 0}, httpGet: {port: web, scheme: FTP}, terminationGracePeriodSeconds: 1}, lifecycle: {preStop: {sleep: {seconds: 6}}, postStart: {exec: {}}}}]}",
                    r#"spec.containers[0].lifecycle.postStart.exec.command: Required value
                       spec.containers[0].lifecycle.preStop.sleep: Invalid value: 6: must be non-negative and less than terminationGracePeriodSeconds (5)
                       spec.containers[0].livenessProbe: Required value: must specify a handler type
                       spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
                       spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"
                       spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
                       spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes"#,
                ),
            ],
        );
    }

    #[test]
    fn volumes() {
        created(
            "pods",
            &[
                (
                    "spec: {volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}, {name: A, secret: {items: [{key: a, path: ../b}]}}, {name: h, hostPath: {path: /a/../b, type: Sock}}, {name: w, emptyDir: {}}, {name: w, emptyDir: {}}], containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /v}, {name: w, mountPath: /v}, {name: w, mountPath: /v, subPath: /x}, {mountPath: ''}]}]}",
                    r#"spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
                       spec.volumes[1].secret.secretName: Required value
                       spec.volumes[1].secret.items[0].path: Invalid value: "../b": must not contain '..'
                       spec.volumes[1].name: Invalid value: "A": a lowercase RFC 1123 label must…
                       spec.volumes[2].hostPath.path: Invalid value: "/a/../b": must not contain '..'
                       spec.volumes[2].hostPath.type: Unsupported value: "Sock": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
                       spec.volumes[4].name: Duplicate value: "w"
                       spec.containers[0].volumeMounts[0].name: Not found: "v"
                       spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/v": must be unique
                       spec.containers[0].volumeMounts[2].mountPath: Invalid value: "/v": must be unique
                       spec.containers[0].volumeMounts.subPath: Invalid value: "/x": must be a relative path
                       spec.containers[0].volumeMounts[3].name: Required value
                       spec.containers[0].volumeMounts[3].name: Not found: ""
                       spec.containers[0].volumeMounts[3].mountPath: Required value"#,
                ),
                (
                    "spec: {serviceAccountName: s, volumes: [{name: p, projected: {defaultMode: 512, sources: [{serviceAccountToken: {expirationSeconds: 5, path: t}}, {configMap: {}, secret: {name: s, items: [{key: a, path: x}, {key: b, path: x}]}}]}}], containers: [{name: a, image: i}]}",
                    r#"spec.volumes[0].projected.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive
                       spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes
                       spec.volumes[0].projected: Invalid value: "s": conflicting duplicate paths
                       spec.volumes[0].projected.sources[1].configMap.name: Required value
                       spec.volumes[0].projected.sources[1]: Forbidden: may not specify more than 1 volume type per source"#,
                ),
            ],
        );
    }

    #[test]
    fn pod_wide_fields() {
        created(
            "pods",
            &[
                (
                    "spec: {restartPolicy: Sometimes, dnsPolicy: None, nodeSelector: {a b: c}, hostNetwork: true, securityContext: {runAsUser: -1, sysctls: [{name: net.ipv4.x}, {name: A}]}, containers: [{name: a, image: i, ports: [{containerPort: 80, hostPort: 81}]}]}",
                    r#"spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true
                       spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
                       spec.nodeSelector: Invalid value: "a b": name part must…
                       spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
                       spec.securityContext.sysctls[0].name: Invalid value: "net.ipv4.x": may not be specified when 'hostNetwork' is true
                       spec.securityContext.sysctls[1].name: Invalid value: "A": must have at most 253 characters…
                       spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"#,
                ),
                (
                    "spec: {activeDeadlineSeconds: 0, hostname: a.b, nodeName: NN, serviceAccountName: S, tolerations: [{value: x}, {key: a, operator: Has}, {key: b, tolerationSeconds: 1, effect: NoRun}], hostAliases: [{ip: x, hostnames: [a_b]}], containers: [{name: a, image: i, securityContext: {privileged: true, allowPrivilegeEscalation: false}}]}",
                    r#"spec.containers[0].securityContext: Invalid value: {"privileged":true,"allowPrivilegeEscalation":false}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true
                       spec.serviceAccountName: Invalid value: "S": a lowercase…
                       spec.nodeName: Invalid value: "NN": a lowercase…
                       spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
                       spec.hostname: Invalid value: "a.b": must not contain dots
                       spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is empty, which means "match all values and all keys"
                       spec.tolerations[1].operator: Unsupported value: "Has": supported values: "Equal", "Exists"
                       spec.tolerations[2].effect: Invalid value: "NoRun": effect must be 'NoExecute' when `tolerationSeconds` is set
                       spec.tolerations[2].effect: Unsupported value: "NoRun": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
                       spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
                       spec.hostAliases[0].hostnames[0]: Invalid value: "a_b": a lowercase…"#,
                ),
                (
                    "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {}}, podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, podAffinityTerm: {labelSelector: {matchExpressions: [{key: a, operator: In}]}}}]}}, topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: Never}, {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Never}], containers: [{name: a, image: i}]}",
                    r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term
                       spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100
                       spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
                       spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty
                       spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: "": name part must be non-empty
                       spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: "": name part must consist…
                       spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
                       spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Never": supported values: "DoNotSchedule", "ScheduleAnyway"
                       spec.topologySpreadConstraints[1].whenUnsatisfiable: Unsupported value: "Never": supported values: "DoNotSchedule", "ScheduleAnyway"
                       spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, Never}""#,
                ),
                (
                    "spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z, matchLabelKeys: [a, b], mismatchLabelKeys: [b]}, {topologyKey: z, labelSelector: {matchLabels: {a: x}, matchExpressions: [{key: c, operator: Exists}, {key: a, operator: In, values: [x]}]}, matchLabelKeys: [b, a, '-']}]}}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule, matchLabelKeys: [a]}], containers: [{name: a, image: i}]}",
                    r#"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set
                       spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set
                       spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[1]: Invalid value: "b": exists in both matchLabelKeys and mismatchLabelKeys
                       spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].matchLabelKeys[2]: Invalid value: "-": name part must consist…
                       spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1][1]: Invalid value: "a": exists in both matchLabelKeys and labelSelector
                       spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"#,
                ),
                (
                    "spec: {initContainers: [{name: a, image: i, livenessProbe: {exec: {command: [x]}}}, {name: s, image: i, restartPolicy: Always, livenessProbe: {exec: {command: [x]}}}], ephemeralContainers: [{name: e, image: i}], containers: [{name: a, image: i}]}",
                    r#"spec.initContainers[0].name: Duplicate value: "a"
                       spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
                       spec.ephemeralContainers: Forbidden: cannot be set on create"#,
                ),
            ],
        );
    }

    #[test]
    fn changes() {
        const OLD: &str = "spec: {activeDeadlineSeconds: 5, tolerations: [{key: a, operator: Exists}], containers: [{name: a, image: i, imagePullPolicy: Always}]}";
        updated(
            "pods",
            &[
                (
                    OLD,
                    "spec: {activeDeadlineSeconds: 4, tolerations: [{key: a, operator: Exists}, {key: b, operator: Exists}], containers: [{name: a, image: j, imagePullPolicy: Always}]}",
                    "",
                ),
                (
                    OLD,
                    "spec: {activeDeadlineSeconds: 6, containers: [{name: a, image: i, imagePullPolicy: Always}]}",
                    "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value",
                ),
                (
                    OLD,
                    "spec: {containers: [{name: a, image: i}, {name: b, image: i}]}",
                    "spec.containers: Forbidden: pod updates may not add or remove containers",
                ),
                (
                    OLD,
                    "spec: {activeDeadlineSeconds: 5, containers: [{name: a, image: i, imagePullPolicy: Always}]}",
                    "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
                ),
            ],
        );
        let (old, new) = (
            super::super::testing::object("pods", OLD),
            super::super::testing::object("pods", &OLD.replace("name: a", "name: b")),
        );
        let pods = crate::resource::find("", "v1", "pods").unwrap();
        let told = super::super::validate_update(pods, "", &new, &old);
        assert_eq!(told.len(), 1);
        assert!(told[0].to_string().starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"), "{}", told[0]);
        assert!(
            told[0]
                .to_string()
                .ends_with("- spec.containers[0].name: \"a\"\n+ spec.containers[0].name: \"b\""),
            "{}",
            told[0]
        );
    }

    /// Such pods are in the stores of older releases.
    #[test]
    fn a_stored_null_is_no_change() {
        use super::super::testing::object;
        let pods = crate::resource::find("", "v1", "pods").unwrap();
        let new = object("pods", "spec: {containers: [{name: a, image: i}]}");
        let mut old = new.clone();
        old["spec"]["initContainers"] = serde_json::Value::Null;
        for (new, old) in [(&new, &old), (&old, &new), (&old, &old)] {
            let told = super::super::validate_update(pods, "", new, old);
            assert!(told.is_empty(), "{told:?}");
        }
    }

    #[test]
    fn changes_through_views() {
        use super::super::testing::object;
        let pods = crate::resource::find("", "v1", "pods").unwrap();
        let told = |view: &str, old: &str, new: &str| {
            let (old, new) = (object("pods", old), object("pods", new));
            let errors = super::super::validate_update(pods, view, &new, &old);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let with = |more: &str| {
            format!("spec: {{containers: [{{name: a, image: i}}], ephemeralContainers: [{more}]}}")
        };
        for (old, new, expected) in [
            ("", "{name: e, image: i}", ""),
            (
                "{name: e, image: i}",
                "",
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n",
            ),
            (
                "{name: e, image: i}",
                "{name: e, image: j}",
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n- e.image: \"i\"\n+ e.image: \"j\"",
            ),
            (
                "",
                "{name: a, image: i, targetContainerName: z, ports: [{containerPort: 1}]}",
                "spec.ephemeralContainers[0].name: Duplicate value: \"a\"; spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"; spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ),
        ] {
            assert_eq!(told("ephemeralcontainers", &with(old), &with(new)), expected);
        }
        let sized = |resources: &str| {
            format!(
                "spec: {{containers: [{{name: a, image: i, resources: {{requests: {{{resources}}}}}}}]}}"
            )
        };
        assert_eq!(told("resize", &sized("cpu: 1"), &sized("cpu: 2, memory: 1Mi")), "");
        assert_eq!(
            told("resize", &sized("cpu: 1"), &sized("cpu: 1, ephemeral-storage: 1Gi")),
            "spec: Forbidden: only cpu and memory resources are mutable"
        );
        assert_eq!(
            told("resize", &sized("cpu: 1, memory: 1Mi"), &sized("memory: 1Mi")),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"
        );
        let two = |first: &str, second: &str, init: &str| {
            format!(
                "spec: {{initContainers: [{{name: i, image: i, resources: {{requests: {{cpu: {init}}}}}}}], containers: [{{name: {first}, image: i}}, {{name: {second}, image: i}}]}}"
            )
        };
        assert_eq!(
            told("resize", &two("a", "b", "1"), &two("b", "a", "1")),
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize; \
             spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"
        );
        assert_eq!(
            told("resize", &two("a", "b", "1"), &two("a", "b", "2")),
            "spec: Forbidden: resources for non-sidecar init containers are immutable"
        );
        assert_eq!(
            told("resize", &two("a", "b", "1"), &sized("cpu: 1")),
            "spec.containers: Forbidden: containers may not be added or removed on resize; \
             spec.initContainers: Forbidden: initContainers may not be added or removed on resize"
        );
        assert_eq!(
            told("resize", &sized(""), &sized("cpu: 1")),
            r#"spec: Invalid value: "BestEffort": Pod QOS Class may not change as a result of resizing"#
        );
    }
}
