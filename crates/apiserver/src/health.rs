//! `/livez`, `/readyz` and `/healthz`, worded as upstream words them.

use std::sync::{PoisonError, RwLock};

use api::status::go_quote;
use http::StatusCode;

use crate::request::Response;
use crate::response;

/// A check: an error says what is wrong.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

struct Named {
    name: String,
    /// Whether liveness depends on it, too: a failure then has the process restarted.
    live: bool,
    check: Check,
}

/// Upstream's names for the parts of a start, where the same thing holds here once
/// [`bootstrap`](crate::ApiServer::bootstrap) has ended: objects are written, tables are read from
/// the datastore, tasks have begun, documents are made when they are asked for. Each is live, as
/// upstream's are. Where nothing here does what upstream's part does (tracking old tokens, reading a
/// proxy's keys again), the name is left out: it would say nothing.
pub(crate) const STARTED: [&str; 23] = [
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
];
/// Another such name, which is no matter of liveness upstream.
pub(crate) const SYNCED: &str = "informer-sync";

/// All health checks in the order in which they were added.
#[derive(Default)]
pub(crate) struct Health {
    checks: RwLock<Vec<Named>>,
}

impl Health {
    /// Adds a check to `/readyz` and `/healthz`, and with `live` to `/livez`.
    pub(crate) fn add(
        &self,
        name: &str,
        live: bool,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let named = Named { name: name.to_owned(), live, check: Box::new(check) };
        self.checks.write().unwrap_or_else(PoisonError::into_inner).push(named);
    }

    /// All health paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        let mut paths = Vec::new();
        for root in ["healthz", "livez", "readyz"] {
            paths.push(format!("/{root}"));
            let shown = checks.iter().filter(|check| root != "livez" || check.live);
            paths.extend(shown.map(|check| format!("/{root}/{}", check.name)));
        }
        paths
    }

    /// Answers a health path, `None` for any other.
    pub(crate) fn answer(&self, path: &str, query: &str) -> Option<Response> {
        let path = path.trim_start_matches('/').trim_end_matches('/');
        let (root, single) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
        if !matches!(root, "livez" | "readyz" | "healthz") {
            return None;
        }
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
        let mut shown = checks.iter().filter(|check| root != "livez" || check.live);
        Some(match single {
            None => report(root, shown, query),
            Some(name) => match shown.find(|check| check.name == name) {
                None => response::not_found(),
                Some(check) => match (check.check)() {
                    Ok(()) => response::text(StatusCode::OK, "ok"),
                    Err(why) => response::text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        format!("internal server error: {why}\n"),
                    ),
                },
            },
        })
    }
}

fn report<'a>(root: &str, checks: impl Iterator<Item = &'a Named>, query: &str) -> Response {
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let mut excluded: Vec<&str> = pairs
        .iter()
        .filter(|(key, _)| key == "exclude")
        .flat_map(|(_, value)| value.split(','))
        .collect();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for check in checks {
        let name = check.name.as_str();
        if excluded.contains(&name) {
            excluded.retain(|other| *other != name);
            lines += &format!("[+]{name} excluded: ok\n");
            continue;
        }
        match (check.check)() {
            Ok(()) => lines += &format!("[+]{name} ok\n"),
            Err(why) => {
                lines += &format!("[-]{name} failed: reason withheld\n");
                failed.push(format!("{name}: {why}"));
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| go_quote(name)).collect();
        let names = names.join(", ");
        lines += &format!("warn: some health checks cannot be excluded: no matches for {names}\n");
    }
    if !failed.is_empty() {
        // The page is public: the reasons are for the log only.
        tracing::warn!(checks = failed.join("; "), "{root} check failed");
        let text = format!("{lines}{root} check failed\n");
        return response::text(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    if !pairs.iter().any(|(key, _)| key == "verbose") {
        return response::text(StatusCode::OK, "ok");
    }
    response::text(StatusCode::OK, format!("{lines}{root} check passed\n"))
}
