use serde::Serialize;

use super::Finding;
use crate::config::{Cluster, Datastore};

/// How many servers there are, how many must agree, and how many may fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quorum {
    /// Their names.
    pub servers: Vec<String>,
    /// Boards that only run pods.
    pub agents: usize,
    /// What keeps the cluster's objects.
    pub datastore: &'static str,
    /// How many servers must be up for the API to take writes.
    pub majority: usize,
    /// How many servers may be down at once.
    pub may_fail: usize,
    /// What one server more would change.
    pub one_more: String,
}

impl Quorum {
    pub(super) fn of(cluster: &Cluster, findings: &mut Vec<Finding>) -> Quorum {
        let servers: Vec<String> = cluster.servers().map(|board| board.name.clone()).collect();
        let count = servers.len();
        let external = matches!(cluster.datastore, Datastore::External(_));
        let (datastore, majority) = match (external, cluster.runs_etcd()) {
            (true, _) => ("external", 1),
            (false, true) => ("etcd", majority(count)),
            (false, false) => ("SQLite", 1),
        };
        let quorum = Quorum {
            agents: cluster.agents().count(),
            datastore,
            majority,
            may_fail: count.saturating_sub(majority),
            one_more: one_more(count, datastore),
            servers,
        };
        quorum.judge(cluster, findings);
        quorum
    }

    fn judge(&self, cluster: &Cluster, findings: &mut Vec<Finding>) {
        let count = self.servers.len();
        if self.datastore == "etcd" && count.is_multiple_of(2) {
            let fail = self.may_fail;
            let reason = match count {
                2 => {
                    "two servers need each other: when either is down the API takes no writes, so \
                      it is away twice as often as with one"
                        .to_owned()
                }
                _ => format!(
                    "of {count} servers {fail} may fail, as of {}: the last one gains nothing, and \
                     is one more that can",
                    count - 1
                ),
            };
            let advice = format!("make it {} or {} servers", count - 1, count + 1);
            findings.push(Finding::warning("cluster", reason, advice));
        }
        if self.datastore == "etcd" && count > MANY {
            let reason = format!("every write waits for {} of {count} servers", self.majority);
            let advice = "five servers bear two failures; let the others be agents";
            findings.push(Finding::warning("cluster", reason, advice));
        }
        if count > 1 && cluster.network.vip.is_none() {
            let reason = "clients and agents know one server's address; when that board is down \
                          kubectl finds nobody, though the others work";
            let advice = "give `network.vip` a free address outside of DHCP's range";
            findings.push(Finding::warning("cluster", reason, advice));
        }
        if self.datastore == "SQLite" && cluster.boards.len() > 2 {
            let reason = format!(
                "all of the cluster is on {}: pods go on without it, the API does not",
                self.servers.first().map_or("one server", String::as_str)
            );
            let advice = "make three boards servers, or keep snapshots elsewhere (docs/backup.md)";
            findings.push(Finding::warning("cluster", reason, advice));
        }
    }
}

/// More servers than this make writes slower and gain little.
const MANY: usize = 5;

/// How many of `count` are more than half.
fn majority(count: usize) -> usize {
    count / 2 + 1
}

fn one_more(count: usize, datastore: &str) -> String {
    let may_fail = |count: usize| count - majority(count);
    match datastore {
        "external" => "bears one more failure of a server; the datastore is its own matter".into(),
        _ if count == 1 => {
            "nothing: two servers need each other; three servers bear one failure".into()
        }
        _ if may_fail(count + 1) > may_fail(count) => {
            format!("of {} servers {} may fail", count + 1, may_fail(count + 1))
        }
        _ => format!("nothing: of {} servers {} may fail, too", count + 1, may_fail(count + 1)),
    }
}
