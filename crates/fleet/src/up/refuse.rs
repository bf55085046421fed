//! What stands in the way, found before anything is changed.

use serde_json::json;

use super::{Binaries, Found, how_to_get};
use crate::Trouble;
use crate::board::{Keys, Service, config, paths, read_config};
use crate::check::{Level, check_board, check_stack};
use crate::config::{Board, Cluster, DEFAULT_PODS, DEFAULT_SERVICES};
use crate::facts::{Facts, Identity};

/// Room that a binary's copying needs besides the binary.
const SPARE: u64 = 100 << 20;
/// Verdicts that no step of ours mends.
const HOPELESS: [&str; 3] = ["architecture", "ports", "address"];
/// Likewise, of boards beside each other.
const HOPELESS_BESIDE: [&str; 4] = ["address", "addresses", "mac", "router"];

/// What a board in a cluster cannot become: the flag, where the file says it, and what it is where
/// nothing is said. Servers refuse to start with another, and a node of another name is another node.
const LASTING: [(&str, &str, Option<&str>); 7] = [
    ("node-name", "the board's `name`", None),
    ("cluster-cidr", "`network.pods`", Some(DEFAULT_PODS)),
    ("service-cidr", "`network.services`", Some(DEFAULT_SERVICES)),
    ("cluster-domain", "`server.cluster-domain`", Some("cluster.local")),
    ("cluster-dns", "`server.cluster-dns`", None),
    ("vxlan-vni", "`server.vxlan-vni`", None),
    ("vxlan-port", "`server.vxlan-port`", None),
];

/// Everything that speaks against beginning.
pub fn refusals(
    cluster: &Cluster,
    found: &[(&Board, &Facts)],
    cluster_identity: Option<&Identity>,
    binaries: &Binaries,
) -> Vec<Trouble> {
    let mut list = Vec::new();
    for (board, facts) in found {
        list.extend(other_cluster(board, facts, cluster_identity));
        list.extend(hopeless(cluster, board, facts));
        if Service::of(board).is_some() {
            list.extend(binary(board, facts, binaries));
        }
        list.extend(other_role(board, facts));
        list.extend(lasting(cluster, board, facts));
    }
    let stack = check_stack(cluster, found).into_iter();
    let stack = stack.filter(|v| v.level == Level::Fail && HOPELESS_BESIDE.contains(&v.subject));
    list.extend(stack.map(|v| Trouble::new(format!("{}: {}", v.board, v.what), v.next)));
    list
}

/// The boards that could not be asked, and must be before anything is begun.
pub fn unanswered(found: &[Found]) -> Vec<Trouble> {
    let errors = found.iter().filter_map(|found| found.facts.as_ref().err());
    let errors = errors.filter(|error| !error.refusal.is_away());
    errors.map(|error| Trouble::new(error.to_string(), error.hint())).collect()
}

fn other_cluster(board: &Board, facts: &Facts, ours: Option<&Identity>) -> Option<Trouble> {
    let own = facts.identity()?;
    if ours.is_some_and(|ours| ours.is_of(&own)) {
        return None;
    }
    let name = &board.name;
    let what = format!("{name} is in another cluster already");
    Some(Trouble::new(what, format!("take it out there first: `coracle uninstall` on {name}")))
}

fn hopeless(cluster: &Cluster, board: &Board, facts: &Facts) -> Vec<Trouble> {
    let verdicts = check_board(&board.name, facts, Service::of(board), cluster.runs_etcd());
    let verdicts = verdicts
        .into_iter()
        .filter(|verdict| verdict.level == Level::Fail && HOPELESS.contains(&verdict.subject));
    verdicts.map(|v| Trouble::new(format!("{}: {}", v.board, v.what), v.next)).collect()
}

fn binary(board: &Board, facts: &Facts, binaries: &Binaries) -> Option<Trouble> {
    let (name, arch) = (&board.name, facts.arch());
    let Some(binary) = binaries.of(arch) else {
        let what = format!("{name} is of {arch}, and there is no binary for that here");
        return Some(Trouble::new(what, how_to_get(arch)));
    };
    if facts.get("binary") == binary.sum {
        return None;
    }
    if let Some(skew) = skew(facts.get("release"), env!("CARGO_PKG_VERSION")) {
        return Some(Trouble::new(format!("{name} {skew}"), "upgrade one minor release at a time"));
    }
    let free = root_free(facts)?;
    let needed = binary.bytes + SPARE;
    (free < needed).then(|| {
        let what = format!(
            "{name} has {} MiB free, and needs {} for the binary",
            free >> 20,
            needed >> 20
        );
        Trouble::new(what, "make room there (`journalctl --vacuum-size=16M`, `apt clean`)")
    })
}

/// Releases that servers of one cluster may not have beside each other.
fn skew(there: &str, new: &str) -> Option<String> {
    let minor = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    let ((major, old), (new_major, new_minor)) = (minor(there)?, minor(new)?);
    let far = major != new_major || old.abs_diff(new_minor) > 1;
    far.then(|| format!("runs release {there}, which is too far from {new}"))
}

fn root_free(facts: &Facts) -> Option<u64> {
    let line = facts.get("space").lines().nth(1)?;
    line.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn lasting(cluster: &Cluster, board: &Board, facts: &Facts) -> Vec<Trouble> {
    if facts.identity().is_none() {
        return Vec::new();
    }
    let before = read_config(facts.get("config"));
    let after = config(cluster, board, None, false, None);
    let trouble = |(flag, place, default): (&str, &str, Option<&str>)| {
        let default = default.map(|text| json!(text));
        let of = |keys: &Keys| keys.get(flag).cloned().or_else(|| default.clone());
        let (before, after) = (of(&before)?, of(&after)?);
        let what = format!("{} has {flag} {before} in its cluster, and not {after}", board.name);
        let hint = format!(
            "it lasts as long as that: put it back in the file ({place}), or take the board out first \
             (`coracle down`)"
        );
        (before != after).then(|| Trouble::new(what, hint))
    };
    LASTING.into_iter().filter_map(trouble).collect()
}

fn other_role(board: &Board, facts: &Facts) -> Option<Trouble> {
    let wanted = Service::of(board);
    let other = [Service::Server, Service::Agent].into_iter().find(|service| {
        Some(*service) != wanted && facts.has(&format!("active.{}", service.unit()))
    })?;
    let what = format!("{} runs {} already", board.name, other.unit());
    let hint = format!("`coracle down --board {}` takes it out of the cluster first", board.name);
    Some(Trouble::new(what, format!("{hint} ({})", paths::BINARY)))
}
