use super::{Binary, Node, NodeChange, Step, TokenKind, address, disk, wireless};
use crate::board::{
    After, Desired, changed_keys, cmdline, fstab, hosts, paths, read_config, render_config,
};
use crate::config::Board;
use crate::facts::Facts;

/// The token that a board should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub kind: TokenKind,
    /// Its checksum, where it is known already.
    pub sum: Option<String>,
}

/// What has to be done so that a board is what it should be; nothing where it is. An error is a disk
/// that cannot be had.
pub fn difference(
    board: &Board,
    desired: &Desired,
    facts: &Facts,
    binary: &Binary,
    token: Option<&Token>,
    node: Option<&Node>,
) -> Result<Vec<Step>, String> {
    let mut steps = system(desired, facts)?;
    let Some(service) = desired.service else { return Ok(steps) };
    if facts.get("binary") != binary.sum {
        steps.push(Step::Binary {
            arch: facts.arch().to_owned(),
            sum: binary.sum.clone(),
            from: facts.get("release").to_owned(),
        });
    }
    let is_active = facts.is_active(service);
    let boots = steps.iter().any(|step| matches!(step, Step::Flags { .. }));
    let lacks = cmdline::CONTROLLERS.iter().any(|name| !facts.controls(name));
    let (fixed, keep) = address::wanted(desired.address.as_ref(), facts).unzip();
    let fixed = fixed.flatten();
    // Flags that stand there already wait for a start of the board.
    let boots = boots || fixed.is_some() || (lacks && facts.has("boot"));
    steps.extend(fixed);
    if boots {
        steps.push(Step::Reboot);
    }
    steps.extend(keep);
    steps.extend(config(desired, facts));
    if let Some(token) = token
        && token.sum.as_deref() != Some(facts.token(paths::TOKEN))
    {
        steps.push(Step::Token(token.kind));
    }
    let changed = steps.iter().any(needs_restart);
    if changed || facts.has("restart") || !is_active || !facts.is_enabled(service) {
        steps.push(Step::Service { service, again: is_active });
    }
    steps.extend(node_change(board, node));
    Ok(steps)
}

/// Whether the service must be started again after this.
fn needs_restart(step: &Step) -> bool {
    match step {
        Step::File { file, .. } => file.after.restarts(),
        Step::Config { restart, .. } => *restart,
        Step::Binary { .. } | Step::Token(_) => true,
        _ => false,
    }
}

/// What has nothing to do with Coracle.
pub fn system(desired: &Desired, facts: &Facts) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    if facts.get("hostname") != desired.hostname {
        let (from, to) = (facts.get("hostname").to_owned(), desired.hostname.clone());
        steps.push(Step::Hostname { from, to });
    }
    let names = hosts::with_boards(facts.get("hosts"), &desired.hostname, &desired.hosts);
    if names != facts.get("hosts") {
        steps.push(Step::Hosts(names));
    }
    steps.extend(keys(desired, facts));
    steps.extend(swap(desired, facts));
    if let Some(zone) = &desired.timezone
        && !facts.get("timezone").ends_with(&format!("zoneinfo/{zone}"))
    {
        steps.push(Step::Timezone(zone.clone()));
    }
    if !facts.has("timesync") && !facts.is_container() {
        steps.push(Step::TimeSync);
    }
    // Packages may come by it.
    steps.extend(wireless::wanted(desired.uplink.as_ref(), facts));
    let files = desired.files.iter().filter(|file| {
        let sum = super::binaries::sum(&file.content);
        facts.file(&file.path) != Some((file.mode, sum.as_str()))
    });
    for file in files {
        let replaces = facts.file(&file.path).is_some();
        steps.push(Step::File { file: file.clone(), replaces });
    }
    let missing: Vec<String> =
        desired.packages.iter().filter(|name| !facts.has_package(name)).cloned().collect();
    if !missing.is_empty() {
        steps.push(Step::Packages { names: missing, masked: desired.masked.clone() });
        // Their own files are read by what they start, and what is theirs may start only now.
        let late = desired.files.iter().filter(|file| {
            file.after == After::Router
                && !steps
                    .iter()
                    .any(|step| matches!(step, Step::File { file: f, .. } if f == *file))
        });
        let late: Vec<Step> =
            late.map(|file| Step::File { file: file.clone(), replaces: true }).collect();
        steps.extend(late);
        move_behind(&mut steps);
    }
    if let Some(data) = &desired.data {
        steps.extend(disk::wanted(data, facts)?);
    }
    let lacks = cmdline::CONTROLLERS.iter().any(|name| !facts.controls(name));
    let boot = facts.get("boot-cmdline");
    let added = cmdline::missing(boot);
    if lacks && facts.has("boot") && !added.is_empty() {
        let content = cmdline::with_flags(boot);
        steps.push(Step::Flags { path: facts.get("boot").to_owned(), content, added });
    }
    Ok(steps)
}

/// The router's rules come after the package that loads them.
fn move_behind(steps: &mut Vec<Step>) {
    let late = |step: &Step| matches!(step, Step::File { file, .. } if file.after == After::Router);
    let (behind, mut before): (Vec<Step>, Vec<Step>) = steps.drain(..).partition(late);
    before.extend(behind);
    *steps = before;
}

fn keys(desired: &Desired, facts: &Facts) -> Option<Step> {
    let there: Vec<&str> = facts.get("authorized").lines().map(str::trim).collect();
    let keys = desired.authorized_keys.iter();
    let add: Vec<String> = keys.filter(|key| !there.contains(&key.as_str())).cloned().collect();
    if add.is_empty() || !facts.has("home") {
        return None;
    }
    Some(Step::AuthorizedKeys { home: facts.get("home").to_owned(), add })
}

fn swap(desired: &Desired, facts: &Facts) -> Option<Step> {
    if desired.swap || facts.is_container() {
        return None;
    }
    let services = facts.get("swap-service");
    if facts.swaps().is_empty() && !facts.fstab_swaps() && services.is_empty() {
        return None;
    }
    let fstab = facts.fstab_swaps().then(|| fstab::without_swap(facts.get("fstab")));
    Some(Step::Swap { services: services.split_whitespace().map(str::to_owned).collect(), fstab })
}

fn config(desired: &Desired, facts: &Facts) -> Option<Step> {
    let content = render_config(&desired.config);
    let sum = super::binaries::sum(&content);
    if facts.file(paths::CONFIG) == Some((0o600, sum.as_str())) {
        return None;
    }
    let before = read_config(facts.get("config"));
    let (mut keys, mut restart) = changed_keys(&before, &desired.config);
    if !facts.has("config") {
        keys = vec![format!("{} keys", desired.config.len())];
        restart = true;
    } else if keys.is_empty() {
        keys = vec!["its form".into()];
        restart = false;
    }
    Some(Step::Config { content, keys, restart })
}

/// What the Node should be told; nothing where it is so already.
fn node_change(board: &Board, node: Option<&Node>) -> Option<Step> {
    let labels = board.labels.clone();
    let empty = Node::default();
    let node = node.unwrap_or(&empty);
    let remove_labels: Vec<String> =
        node.managed_labels.iter().filter(|key| !labels.contains_key(*key)).cloned().collect();
    let remove_taints: Vec<String> =
        node.managed_taints.iter().filter(|taint| !board.taints.contains(taint)).cloned().collect();
    let is_so = labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && board.taints.iter().all(|taint| node.taints.contains(taint))
        && labels.keys().all(|key| node.managed_labels.contains(key))
        && board.taints.iter().all(|taint| node.managed_taints.contains(taint))
        && remove_labels.is_empty()
        && remove_taints.is_empty();
    if is_so {
        return None;
    }
    let taints = board.taints.clone();
    let change = NodeChange { labels, remove_labels, taints, remove_taints };
    Some(Step::Node { name: board.name.clone(), change })
}
