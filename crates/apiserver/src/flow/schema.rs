//! FlowSchemas and PriorityLevelConfigurations as they were read, and which of them a request is
//! sorted into (k8s.io/apiserver/pkg/util/flowcontrol/rule.go).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::defaults;
use super::queues::Level;
use crate::authn::service_account_parts;
use crate::feed::Change;
use crate::request::RequestInfo;
use crate::user::User;

/// The level of those who wait for nothing.
const EXEMPT: &str = "exempt";
/// The level of those whom no schema sorts elsewhere.
pub(super) const CATCH_ALL: &str = "catch-all";

/// All schemas and levels by their names.
#[derive(Clone, Default)]
pub(super) struct Table {
    schemas: BTreeMap<String, Arc<Schema>>,
    levels: BTreeMap<String, Arc<Configuration>>,
    /// The schemas in the order in which they are asked.
    order: Vec<Arc<Schema>>,
}

/// Where a request belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sorted<'t> {
    pub schema: &'t str,
    pub schema_uid: &'t str,
    pub level: &'t str,
    pub level_uid: &'t str,
    /// What tells its flow from others of the schema.
    pub flow: String,
}

impl Sorted<'_> {
    pub(super) fn flow_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.schema, &self.flow).hash(&mut hasher);
        hasher.finish()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    uid: String,
}

/// A FlowSchema.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Schema {
    metadata: Metadata,
    spec: SchemaSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SchemaSpec {
    priority_level_configuration: Named,
    matching_precedence: i64,
    distinguisher_method: Option<Distinguisher>,
    rules: Option<Vec<Rule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Distinguisher {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Option<Vec<ResourceRule>>,
    non_resource_rules: Option<Vec<PathRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

/// A PriorityLevelConfiguration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Configuration {
    metadata: Metadata,
    spec: LevelSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LevelSpec {
    #[serde(rename = "type")]
    kind: String,
    limited: Limited,
    exempt: Shares,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shares {
    nominal_concurrency_shares: usize,
    lendable_percent: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limited {
    nominal_concurrency_shares: Option<usize>,
    lendable_percent: usize,
    borrowing_limit_percent: Option<usize>,
    limit_response: LimitResponse,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LimitResponse {
    #[serde(rename = "type")]
    kind: String,
    queuing: Queuing,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl Default for Queuing {
    fn default() -> Self {
        Queuing { queues: 64, hand_size: 8, queue_length_limit: 50 }
    }
}

/// Queues of one level that are not made any more; upstream allows ten million.
const QUEUES_MAX: usize = 1024;
/// What a level's shares are where it says nothing.
const SHARES: usize = 30;

impl Table {
    /// Takes a change of a schema (true) or of a level in.
    pub(super) fn change(&mut self, schema: bool, change: Change) {
        match (schema, change) {
            (true, Change::Reset(entries)) => {
                self.schemas = entries.iter().filter_map(|entry| read(&entry.value)).collect();
            }
            (false, Change::Reset(entries)) => {
                self.levels = entries.iter().filter_map(|entry| read(&entry.value)).collect();
            }
            (true, Change::Put(entry)) => self.schemas.extend(read(&entry.value)),
            (false, Change::Put(entry)) => self.levels.extend(read(&entry.value)),
            (true, Change::Gone(entry)) => drop(self.schemas.remove(&*entry.key.name)),
            (false, Change::Gone(entry)) => drop(self.levels.remove(&*entry.key.name)),
        }
        // A schema whose level is not there sorts nothing.
        let there = self.schemas.values().filter(|schema| {
            self.levels.contains_key(&schema.spec.priority_level_configuration.name)
        });
        self.order = there.cloned().collect();
        self.order.sort_by_key(|one| (one.spec.matching_precedence, one.metadata.name.clone()));
    }

    /// Where a request belongs: the first schema that fits, else the mandatory ones.
    pub(super) fn sort<'t>(&'t self, info: &RequestInfo, user: &User) -> Sorted<'t> {
        let uid =
            |name: &str| self.levels.get(name).map_or("", |level| level.metadata.uid.as_str());
        if let Some(schema) = self.order.iter().find(|schema| schema.fits(info, user)) {
            let level = schema.spec.priority_level_configuration.name.as_str();
            return Sorted {
                schema: &schema.metadata.name,
                schema_uid: &schema.metadata.uid,
                level,
                level_uid: uid(level),
                flow: schema.flow(info, user),
            };
        }
        // Not even the mandatory ones are there, or they do not fit yet.
        let level = if user.in_group(crate::user::MASTERS) { EXEMPT } else { CATCH_ALL };
        Sorted {
            schema: level,
            schema_uid: "",
            level,
            level_uid: uid(level),
            flow: user.name.clone(),
        }
    }

    /// The levels with their seats of all there are; the mandatory ones are always among them.
    pub(super) fn levels(&self, total: usize) -> Vec<(String, Level)> {
        let mut all = self.levels.clone();
        for object in defaults::levels().filter(|object| {
            [EXEMPT, CATCH_ALL].contains(&object["metadata"]["name"].as_str().unwrap_or_default())
        }) {
            if let Some((name, level)) = parse::<Configuration>(object) {
                all.entry(name).or_insert(level);
            }
        }
        let shares: usize = all.values().map(|level| level.spec.shares().0).sum();
        all.iter().map(|(name, level)| (name.clone(), level.spec.level(total, shares))).collect()
    }
}

trait HasName: for<'de> Deserialize<'de> {
    fn name(&self) -> &str;
}

impl HasName for Schema {
    fn name(&self) -> &str {
        &self.metadata.name
    }
}

impl HasName for Configuration {
    fn name(&self) -> &str {
        &self.metadata.name
    }
}

fn read<T: HasName>(value: &[u8]) -> Option<(String, Arc<T>)> {
    let object: T = serde_json::from_slice(value).ok()?;
    Some((object.name().to_owned(), Arc::new(object)))
}

fn parse<T: HasName>(object: Value) -> Option<(String, Arc<T>)> {
    let object: T = serde_json::from_value(object).ok()?;
    Some((object.name().to_owned(), Arc::new(object)))
}

impl LevelSpec {
    /// Its shares, and the part of its seats that others may use.
    fn shares(&self) -> (usize, usize) {
        if self.kind == "Exempt" {
            (self.exempt.nominal_concurrency_shares, self.exempt.lendable_percent)
        } else {
            let shares = self.limited.nominal_concurrency_shares.unwrap_or(SHARES);
            (shares, self.limited.lendable_percent)
        }
    }

    fn level(&self, total: usize, all_shares: usize) -> Level {
        let (shares, lendable) = self.shares();
        let nominal = (total * shares).div_ceil(all_shares.max(1));
        let part = |percent: usize| (nominal * percent + 50) / 100;
        let response = &self.limited.limit_response;
        let queuing = &response.queuing;
        let queues = if response.kind == "Queue" { queuing.queues.clamp(1, QUEUES_MAX) } else { 0 };
        Level {
            exempt: self.kind == "Exempt",
            nominal,
            lendable: part(lendable.min(100)),
            borrowing: self.limited.borrowing_limit_percent.map_or(usize::MAX, part),
            queues,
            hand: queuing.hand_size.clamp(1, queues.max(1)),
            queue_length: queuing.queue_length_limit,
        }
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == "*" || item == value)
}

impl Schema {
    fn fits(&self, info: &RequestInfo, user: &User) -> bool {
        self.spec.rules.iter().flatten().any(|rule| rule.fits(info, user))
    }

    fn flow(&self, info: &RequestInfo, user: &User) -> String {
        match self.spec.distinguisher_method.as_ref().map(|method| method.kind.as_str()) {
            Some("ByUser") => user.name.clone(),
            Some("ByNamespace") => info.namespace.clone(),
            _ => String::new(),
        }
    }
}

impl Rule {
    fn fits(&self, info: &RequestInfo, user: &User) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && if info.is_resource {
                self.resource_rules.iter().flatten().any(|rule| rule.fits(info))
            } else {
                self.non_resource_rules.iter().flatten().any(|rule| rule.fits(info))
            }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self.kind.as_str() {
            "User" => matches!(self.user.name.as_str(), name if name == "*" || name == user.name),
            "Group" => self.group.name == "*" || user.in_group(&self.group.name),
            "ServiceAccount" => {
                let own = service_account_parts(&user.name);
                own.is_some_and(|(namespace, name)| {
                    namespace == self.service_account.namespace
                        && (self.service_account.name == "*" || self.service_account.name == name)
                })
            }
            _ => false,
        }
    }
}

impl ResourceRule {
    fn fits(&self, info: &RequestInfo) -> bool {
        let place = if info.namespace.is_empty() {
            self.cluster_scope
        } else {
            has(&self.namespaces, &info.namespace)
        };
        place
            && has(&self.verbs, &info.verb)
            && has(&self.api_groups, &info.group)
            && has(&self.resources, &info.resource_path())
    }
}

impl PathRule {
    fn fits(&self, info: &RequestInfo) -> bool {
        has(&self.verbs, &info.verb)
            && self.urls.iter().any(|url| {
                url == "*"
                    || *url == info.path
                    || url.strip_suffix('*').is_some_and(|start| {
                        info.path.trim_start_matches('/').starts_with(start.trim_start_matches('/'))
                    })
            })
    }
}

/// Whether a schema's level is there: the condition `Dangling` with upstream's words.
pub(super) fn dangling(schema: &Value, levels: &dyn Fn(&str) -> bool) -> Value {
    let name = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let what =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {name:?}");
    if levels(name) {
        json!({"type": "Dangling", "status": "False", "reason": "Found",
            "message": format!("{what} and it exists")})
    } else {
        json!({"type": "Dangling", "status": "True", "reason": "NotFound",
            "message": format!("{what} but there is no such object")})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn table() -> Table {
        let mut table = Table {
            levels: defaults::levels().filter_map(parse).collect(),
            schemas: defaults::schemas().filter_map(parse).collect(),
            order: Vec::new(),
        };
        table.change(true, Change::Reset(Vec::new()));
        table.schemas = defaults::schemas().filter_map(parse).collect();
        table.order = table.schemas.values().cloned().collect();
        table.order.sort_by_key(|one| (one.spec.matching_precedence, one.metadata.name.clone()));
        table
    }

    #[test]
    fn requests_are_sorted_as_upstreams_defaults_sort_them() {
        let table = table();
        let account = User::service_account("kube-system", "x");
        for (user, method, uri, expected) in [
            (&User::admin(), "GET", "/api/v1/pods", "exempt exempt "),
            (&User::anonymous(), "GET", "/livez", "probes exempt "),
            (
                &User::anonymous(),
                "GET",
                "/version",
                "global-default global-default system:anonymous",
            ),
            (
                &User::node("a"),
                "PUT",
                "/api/v1/nodes/a/status",
                "system-node-high node-high system:node:a",
            ),
            (&User::node("a"), "GET", "/api/v1/pods", "system-nodes system system:node:a"),
            (
                &User::component("system:kube-scheduler"),
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l",
                "system-leader-election leader-election system:kube-scheduler",
            ),
            (
                &User::component("system:kube-scheduler"),
                "POST",
                "/api/v1/namespaces/n/pods/p/binding",
                "kube-scheduler workload-high n",
            ),
            (
                &account,
                "GET",
                "/api/v1/namespaces/n/pods",
                "kube-system-service-accounts workload-high n",
            ),
            (
                &User::service_account("n", "x"),
                "GET",
                "/api/v1/namespaces/n/pods",
                "service-accounts workload-low system:serviceaccount:n:x",
            ),
            (&User::new("ann", []), "GET", "/api/v1/pods", "global-default global-default ann"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let info = RequestInfo::parse(&method, &uri.parse().unwrap()).unwrap();
            let sorted = table.sort(&info, user);
            let line = format!("{} {} {}", sorted.schema, sorted.level, sorted.flow);
            assert_eq!(line, expected, "{uri}");
        }
    }

    #[test]
    fn seats_are_shared_out_by_shares() {
        let levels = table().levels(600);
        let nominal = |name: &str| {
            let level = &levels.iter().find(|(level, _)| level == name).unwrap().1;
            (level.nominal, level.lendable, level.queues)
        };
        assert_eq!(nominal("workload-low"), (245, 221, 128));
        assert_eq!(nominal("catch-all"), (13, 0, 0));
        assert_eq!(nominal("exempt"), (0, 0, 0));
        let alone = Table::default().levels(600);
        assert_eq!(alone.len(), 2, "the mandatory levels are always there");
    }
}
