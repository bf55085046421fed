use std::fmt::Write;

use super::{Given, NewBoard};
use crate::config::Addressing;

/// A `cluster.yaml` with comments that say what else there is.
pub(super) fn write(given: &Given) -> String {
    let mut text = String::from(
        "\
# A stack of boards: `coracle plan` says what it will be, `coracle image prepare` writes its cards,
# `coracle up` brings it about. docs/cluster-yaml.md has all keys; editors complete them with the
# schema that `coracle config schema > cluster.schema.json` writes:
# yaml-language-server: $schema=cluster.schema.json

",
    );
    _ = writeln!(text, "name: {}", given.name.as_deref().unwrap_or("home"));
    text += &network(given);
    text += &ssh(given);
    text += "
# What all boards have in common; a board may say otherwise.
defaults:
  # What is written to, for `coracle plan`: sd-card, endurance-sd-card, usb-stick, ssd, nvme ...
  storage: {kind: sd-card, size: 32GB}
  # A disk for images, containers and the cluster's data, instead of the card:
  # data: {device: /dev/sda, format: true}

# Boards join with a token that the first server makes, unless you bring one (chmod 600):
# token: {file: token}

# In the order in which they are set up. A server runs the control plane, and pods.
boards:
";
    let servers = given.servers.unwrap_or(1);
    for (position, board) in given.boards.iter().enumerate() {
        text += &entry(board, position < servers, given.model.as_deref());
    }
    text += "
# What `coracle plan` reckons power and cost with:
# power:
#   supplies: [{name: charger, watts: 60, ports: 6, wattsPerPort: 12}]   # boards: poweredBy: charger
#   pricePerKwh: 0.30
";
    text
}

fn network(given: &Given) -> String {
    let mut lines = Vec::new();
    lines.extend(given.subnet.map(|subnet| format!("subnet: {subnet}")));
    lines.extend(given.gateway.map(|gateway| format!("gateway: {gateway}")));
    match given.addressing {
        Some(Addressing::Static) => lines.push("addressing: static".into()),
        _ => lines.push("addressing: dhcp   # your router reserves the boards' addresses".into()),
    }
    if let Some(vip) = given.vip {
        lines.push("# Always on one server; keep it out of your router's DHCP range.".into());
        lines.push(format!("vip: {vip}"));
    }
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("\nnetwork:\n{lines}")
}

fn ssh(given: &Given) -> String {
    match &given.user {
        Some(user) => format!(
            "\nssh:\n  user: {user}\n  \
             # Where sudo asks for a password (chmod 600):\n  # sudoPassword: {{file: password}}\n"
        ),
        None => "\n# Boards are reached as this machine's ssh reaches them; otherwise:\n\
                 # ssh: {user: pi}\n"
            .into(),
    }
}

fn entry(board: &NewBoard, is_server: bool, model: Option<&str>) -> String {
    let mut text = format!("  - name: {}\n", board.name);
    let role = if is_server { "server" } else { "agent" };
    _ = writeln!(text, "    roles: [{role}]\n    address: {}", board.address);
    if let Some(mac) = &board.mac {
        _ = writeln!(text, "    mac: {mac}");
    }
    if let Some(model) = model {
        _ = writeln!(text, "    model: {model}");
    }
    text
}
