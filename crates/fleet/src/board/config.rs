//! `/etc/coracle/config.yaml` of a board.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::paths::TOKEN;
use crate::config::{Board, Cluster};

/// The keys of a configuration file.
pub type Keys = BTreeMap<String, Value>;

/// Keys that a node takes when it registers. Later the API is told, and the service goes on.
const AT_REGISTRATION: [&str; 2] = ["node-label", "node-taint"];

/// What a board's configuration says. `join` is the address of a server to join, where the board does
/// not make the cluster; `token` says that it has one in a file; `endpoint` is a datastore's URL.
pub fn config(
    cluster: &Cluster,
    board: &Board,
    join: Option<&str>,
    token: bool,
    endpoint: Option<&str>,
) -> Keys {
    let is_server = board.is_server();
    let mut keys = Keys::new();
    let mut set = |key: &str, value: Value| {
        keys.insert(key.to_owned(), value);
    };
    set("node-name", json!(board.name));
    set("node-ip", json!(board.address.to_string()));
    if !board.labels.is_empty() {
        let labels = board.labels.iter().map(|(key, value)| format!("{key}={value}"));
        set("node-label", labels.collect());
    }
    if !board.taints.is_empty() {
        set("node-taint", board.taints.iter().map(String::as_str).collect());
    }
    if token {
        set("token-file", json!(TOKEN));
    }
    if let Some(server) = join {
        set("server", json!(server));
    }
    if is_server {
        match endpoint {
            Some(endpoint) => set("datastore-endpoint", json!(endpoint)),
            None if join.is_none() && cluster.runs_etcd() => set("cluster-init", json!(true)),
            None => {}
        }
        if let Some(vip) = cluster.network.vip {
            set("vip", json!(vip.to_string()));
        }
        if let Some(pods) = cluster.network.pods {
            set("cluster-cidr", json!(pods.to_string()));
        }
        if let Some(services) = cluster.network.services {
            set("service-cidr", json!(services.to_string()));
        }
    }
    let further = if is_server { &cluster.server } else { &cluster.agent };
    for (key, value) in further.iter().chain(&board.config) {
        keys.insert(key.clone(), value.clone());
    }
    keys
}

/// The file: a key a line, values as JSON, which is YAML.
pub fn render_config(keys: &Keys) -> String {
    let lines = keys.iter().map(|(key, value)| format!("{key}: {value}\n"));
    format!("# Written from cluster.yaml: change that instead.\n{}", lines.collect::<String>())
}

/// Reads what [`render_config`] wrote; lines of another hand are no keys.
pub fn read_config(text: &str) -> Keys {
    let pair = |line: &str| {
        let (key, value) = line.split_once(": ")?;
        Some((key.to_owned(), serde_json::from_str(value).ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pair).collect()
}

/// The keys that differ, and whether the service must be started again for them.
pub fn changed_keys(before: &Keys, after: &Keys) -> (Vec<String>, bool) {
    let all = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
    let differ: Vec<String> =
        all.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect();
    let restarts = differ.iter().any(|key| !AT_REGISTRATION.contains(&key.as_str()));
    (differ, restarts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str = r#"{"name": "home", "boards": [
        {"name": "a", "address": "10.0.0.1", "roles": ["server"], "labels": {"disk": "ssd"}},
        {"name": "b", "address": "10.0.0.2", "roles": ["server"], "config": {"max-pods": 30}},
        {"name": "c", "address": "10.0.0.3", "roles": ["agent"]}],
        "network": {"vip": "10.0.0.9"}, "server": {"max-pods": 50, "tls-san": ["x"]}}"#;

    fn of(board: usize, join: Option<&str>) -> String {
        let cluster: Cluster = serde_json::from_str(STACK).expect("a cluster");
        let keys = config(&cluster, &cluster.boards[board], join, join.is_some(), None);
        assert_eq!(read_config(&render_config(&keys)), keys);
        render_config(&keys).lines().skip(1).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn the_first_server_makes_the_cluster_and_others_join_it() {
        assert_eq!(
            of(0, None),
            "cluster-init: true\nmax-pods: 50\nnode-ip: \"10.0.0.1\"\nnode-label: [\"disk=ssd\"]\n\
             node-name: \"a\"\ntls-san: [\"x\"]\nvip: \"10.0.0.9\"\n"
        );
        assert_eq!(
            of(1, Some("https://10.0.0.1:6443")),
            "max-pods: 30\nnode-ip: \"10.0.0.2\"\nnode-name: \"b\"\n\
             server: \"https://10.0.0.1:6443\"\ntls-san: [\"x\"]\n\
             token-file: \"/etc/coracle/token\"\nvip: \"10.0.0.9\"\n"
        );
        assert_eq!(
            of(2, Some("https://10.0.0.9:6443")),
            "node-ip: \"10.0.0.3\"\nnode-name: \"c\"\nserver: \"https://10.0.0.9:6443\"\n\
             token-file: \"/etc/coracle/token\"\n"
        );
    }

    #[test]
    fn labels_alone_do_not_start_the_service_again() {
        let keys = |text: &str| read_config(text);
        let before = keys("node-label: [\"a=b\"]\nmax-pods: 3\n");
        let labels = keys("node-label: [\"a=c\"]\nmax-pods: 3\n");
        assert_eq!(changed_keys(&before, &labels), (vec!["node-label".to_owned()], false));
        let pods = keys("node-label: [\"a=b\"]\nmax-pods: 4\n");
        assert_eq!(changed_keys(&before, &pods), (vec!["max-pods".to_owned()], true));
    }
}
