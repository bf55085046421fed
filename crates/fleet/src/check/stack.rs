use std::collections::BTreeMap;

use super::{Level, Verdict, Verdicts, link};
use crate::config::{Board, Cluster};
use crate::facts::Facts;

/// What names and packets of VXLAN leave of an ordinary Ethernet's 1500 is still enough.
const MTU_MIN: u32 = 1280;

/// Looks at boards beside each other: what must be each one's own, and what must be the same.
pub fn check_stack(cluster: &Cluster, boards: &[(&Board, &Facts)]) -> Vec<Verdict> {
    let mut list = Vec::new();
    for (board, facts) in boards {
        let mut links = Verdicts::of(&board.name);
        link::check(&mut links, cluster, board, facts);
        list.extend(links.list);
        list.extend(own_address(cluster, board, facts));
        list.push(names(cluster, board, facts));
        list.extend(mtu(board, facts));
    }
    list.extend(twice(
        boards,
        "machine id",
        |facts| vec![facts.get("machine-id").trim().to_owned()],
        "`rm /etc/machine-id && systemd-machine-id-setup` on one of them, and reboot it",
    ));
    list.extend(twice(
        boards,
        "addresses",
        |facts| {
            // A virtual address is on two servers for a moment, and is no board's own.
            let vip = cluster.network.vip;
            let own = facts.addresses().into_iter().filter(|(device, address)| {
                Some(*address) != vip && !device.starts_with("coracle") && !is_link_local(*address)
            });
            own.map(|(_, address)| address.to_string()).collect()
        },
        "give each board an address of its own",
    ));
    list
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn verdict(
    board: &str,
    subject: &'static str,
    level: Level,
    what: impl Into<String>,
    next: impl Into<String>,
) -> Verdict {
    Verdict { board: board.into(), subject, level, what: what.into(), next: next.into() }
}

/// A router gets its inner address from its own service, and is set up where it can be reached.
fn own_address(cluster: &Cluster, board: &Board, facts: &Facts) -> Option<Verdict> {
    let own = facts.addresses();
    if board.is_router() && cluster.network.router.is_some() {
        return None;
    }
    if own.is_empty() || own.iter().any(|(_, address)| *address == board.address) {
        return None;
    }
    let has: Vec<String> = own.iter().map(|(_, address)| address.to_string()).collect();
    let what = format!("has {}, and not {}", has.join(", "), board.address);
    let next = "correct `address`, or the reservation in the router";
    Some(verdict(&board.name, "address", Level::Fail, what, next))
}

fn names(cluster: &Cluster, board: &Board, facts: &Facts) -> Verdict {
    let wrong: Vec<&str> = cluster
        .boards
        .iter()
        .filter(|other| other.name != board.name)
        .filter(|other| {
            let found = facts.get(&format!("resolves.{}", other.name));
            !found.split_whitespace().any(|word| word.parse() == Ok(other.address))
        })
        .map(|other| other.name.as_str())
        .collect();
    match wrong.is_empty() {
        true => verdict(&board.name, "names", Level::Ok, "all other boards are found by name", ""),
        false => {
            let what = format!("does not find {} by name", wrong.join(", "));
            verdict(&board.name, "names", Level::Warn, what, "`coracle up` writes /etc/hosts")
        }
    }
}

fn mtu(board: &Board, facts: &Facts) -> Option<Verdict> {
    let mtu = facts.mtu(board.address)?;
    let what = format!("packets of {mtu} bytes");
    Some(match mtu < MTU_MIN {
        true => {
            let what = format!("{what}: too small for what pods send");
            verdict(
                &board.name,
                "MTU",
                Level::Fail,
                what,
                "see the interface's and the switch's MTU",
            )
        }
        false => verdict(&board.name, "MTU", Level::Ok, what, ""),
    })
}

/// What only one board may have.
fn twice(
    boards: &[(&Board, &Facts)],
    subject: &'static str,
    of: impl Fn(&Facts) -> Vec<String>,
    next: &str,
) -> Vec<Verdict> {
    let mut owners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (board, facts) in boards {
        for value in of(facts).into_iter().filter(|value| !value.is_empty()) {
            let names = owners.entry(value).or_default();
            if !names.contains(&board.name.as_str()) {
                names.push(&board.name);
            }
        }
    }
    let shared = owners.into_iter().filter(|(_, names)| names.len() > 1);
    let verdicts = shared.flat_map(|(value, names)| {
        let names_of = names.clone();
        names.into_iter().map(move |name| {
            let others: Vec<&str> =
                names_of.iter().copied().filter(|other| *other != name).collect();
            let what = format!("{value} is {}'s too", others.join("'s and "));
            verdict(name, subject, Level::Fail, what, next)
        })
    });
    verdicts.collect()
}
