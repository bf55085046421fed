use std::fmt::Write;

use super::{Ground, Host};

/// The hosts as `boards:` of a `cluster.yaml`, with what they said as comments. Hosts without SSH are
/// only mentioned: nothing could be done with them.
pub fn boards(ground: &Ground, hosts: &[Host]) -> String {
    let (boards, others): (Vec<&Host>, Vec<&Host>) =
        hosts.iter().partition(|host| host.ssh.is_some());
    let mut text = format!(
        "# On {} ({}): {} with SSH, {} without.\n",
        ground.subnet,
        ground.device,
        boards.len(),
        others.len()
    );
    if boards.is_empty() {
        return text + "boards: []\n";
    }
    text += "# Take out what is no board; give one board, or three, `roles: [server]`.\nboards:\n";
    let names = names(&boards);
    for (host, name) in boards.iter().zip(names) {
        let sort = if host.raspberry_pi { "a Raspberry Pi, " } else { "" };
        let banner = host.ssh.as_deref().unwrap_or_default();
        _ = writeln!(text, "  # {sort}{banner}\n  - name: {name}\n    address: {}", host.address);
        if let Some(mac) = &host.mac {
            _ = writeln!(text, "    mac: {mac}");
        }
    }
    text
}

/// Names that can be host names and are unique: those that hosts say, or numbered ones.
pub(super) fn names(hosts: &[&Host]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for host in hosts {
        let said = host.name.as_deref().map(label).filter(|name| !name.is_empty());
        let wanted = said.unwrap_or_else(|| format!("board-{}", host.address.octets()[3]));
        let mut name = wanted.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        names.push(name);
    }
    names
}

/// The first part of a name, with what host names cannot have left out.
fn label(name: &str) -> String {
    let first = name.split('.').next().unwrap_or_default().to_lowercase();
    let kept: String = first
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .collect();
    kept.trim_matches('-').chars().take(50).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host(last: u8, name: Option<&str>, ssh: bool) -> Host {
        let mac = format!("dc:a6:32:00:00:{last:02x}");
        Host {
            address: Ipv4Addr::new(192, 168, 1, last),
            name: name.map(str::to_owned),
            mac: Some(mac).filter(|_| last != 13),
            raspberry_pi: last != 13,
            ssh: ssh.then(|| "SSH-2.0-OpenSSH_9.2p1".to_owned()),
        }
    }

    #[test]
    fn boards_are_written_as_cluster_yaml_takes_them() {
        let ground = Ground {
            device: "eth0".into(),
            own: Ipv4Addr::new(192, 168, 1, 2),
            subnet: "192.168.1.0/24".parse().expect("a network"),
            gateway: None,
        };
        let hosts = [
            host(1, Some("fritz.box"), false),
            host(11, Some("raspberrypi"), true),
            host(12, Some("raspberrypi"), true),
            host(13, None, true),
        ];
        let text = boards(&ground, &hosts);
        let expected = "\
# On 192.168.1.0/24 (eth0): 3 with SSH, 1 without.
# Take out what is no board; give one board, or three, `roles: [server]`.
boards:
  # a Raspberry Pi, SSH-2.0-OpenSSH_9.2p1
  - name: raspberrypi
    address: 192.168.1.11
    mac: dc:a6:32:00:00:0b
  # a Raspberry Pi, SSH-2.0-OpenSSH_9.2p1
  - name: raspberrypi-2
    address: 192.168.1.12
    mac: dc:a6:32:00:00:0c
  # SSH-2.0-OpenSSH_9.2p1
  - name: board-13
    address: 192.168.1.13
";
        assert_eq!(text, expected);
    }
}
