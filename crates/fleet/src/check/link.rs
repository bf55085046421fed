use super::Verdicts;
use crate::config::{Addressing, Board, Cluster, Router, mac};
use crate::facts::Facts;

/// Whether the interfaces that the cluster's description speaks of are the board's: a router with its two
/// sides confused would give addresses to the world, and cut off the boards.
pub(super) fn check(verdicts: &mut Verdicts, cluster: &Cluster, board: &Board, facts: &Facts) {
    let interfaces = facts.interfaces();
    if interfaces.is_empty() {
        return;
    }
    hardware(verdicts, cluster, board, &interfaces);
    if let Some(router) = cluster.network.router.as_ref().filter(|_| board.is_router()) {
        sides(verdicts, router, board, facts, &interfaces);
    }
}

fn sides(
    verdicts: &mut Verdicts,
    router: &Router,
    board: &Board,
    facts: &Facts,
    interfaces: &[(String, String)],
) {
    let names: Vec<&str> = interfaces.iter().map(|(name, _)| name.as_str()).collect();
    for (key, named) in [("uplink", &router.uplink), ("inside", &router.inside)] {
        if !names.contains(&named.as_str()) {
            let what = format!("has no interface {named}, only {}", names.join(", "));
            verdicts.fail("router", what, format!("plug it in, or correct `network.router.{key}`"));
        }
    }
    let own = facts.addresses().into_iter().find(|(_, address)| *address == board.address);
    if let Some((device, address)) = own.filter(|(device, _)| *device != router.inside) {
        let what = format!("has {address} on {device}, and not on its inside, {}", router.inside);
        verdicts.fail("router", what, "correct `network.router`, or the board's `address`");
    }
}

/// A router board knows the others by their hardware addresses: with a wrong one a board loses its address.
fn hardware(
    verdicts: &mut Verdicts,
    cluster: &Cluster,
    board: &Board,
    interfaces: &[(String, String)],
) {
    let Some(named) = board.mac.as_deref().and_then(mac) else { return };
    if interfaces.iter().any(|(_, own)| *own == named) {
        return;
    }
    let own: Vec<&str> = interfaces.iter().map(|(_, own)| own.as_str()).collect();
    let what = format!("is not {named}, but {}", own.join(", "));
    let is_reserved = cluster.router().is_some_and(|router| router.name != board.name)
        && cluster.network.addressing == Addressing::Dhcp;
    match is_reserved {
        true => verdicts.fail("mac", what, "correct `mac`: the router board reserves by it"),
        false => verdicts.warn("mac", what, "correct `mac`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;
    use crate::config::Flags;

    const STACK: &str = "
name: home
network: {subnet: 10.0.0.0/24, router: {uplink: wlan0, inside: eth0}}
boards:
  - {name: gate, address: 10.0.0.1, roles: [router]}
  - {name: a, address: 10.0.0.2, roles: [server], mac: 'DC-A6-32-00-00-0A'}
";
    const LINKS: &str = "1: lo: <UP> mtu 65536 link/loopback 00:00:00:00:00:00 brd 0\n\
         2: eth0@if7: <UP> mtu 1500 qdisc x\\    link/ether dc:a6:32:00:00:0a brd f\n\
         3: wlan0: <UP> mtu 1500 qdisc x\\    link/ether dc:a6:32:00:00:0b brd f\n";

    /// What is found wanting on a board of these addresses.
    fn found(stack: &str, which: usize, addresses: &str) -> String {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let text =
            format!("links:={}\naddresses:={}\ndone=yes\n", encode(LINKS), encode(addresses));
        let facts = Facts::parse(&text).expect("facts");
        let cluster = Cluster::parse(stack, "", &Flags::default()).expect("a cluster");
        let board = &cluster.boards[which];
        let mut verdicts = Verdicts::of(&board.name);
        check(&mut verdicts, &cluster, board, &facts);
        let list = verdicts.list.iter();
        list.map(|v| format!("{}{}", if v.level == Level::Fail { "" } else { "warn " }, v.what))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn a_router_with_its_sides_confused_is_found() {
        let inside = "2: eth0 inet 10.0.0.1/24 x\n3: wlan0 inet 192.168.1.7/24 x\n";
        assert_eq!(found(STACK, 0, inside), "");
        // It gets its inner address when it is set up.
        assert_eq!(found(STACK, 0, "3: wlan0 inet 192.168.1.7/24 x\n"), "");
        let confused = STACK.replace("uplink: wlan0, inside: eth0", "uplink: eth0, inside: wlan0");
        assert_eq!(
            found(&confused, 0, inside),
            "has 10.0.0.1 on eth0, and not on its inside, wlan0"
        );
        let other = STACK.replace("wlan0", "wlan1");
        assert_eq!(found(&other, 0, inside), "has no interface wlan1, only eth0, wlan0");
    }

    #[test]
    fn a_wrong_hardware_address_is_found() {
        assert_eq!(found(STACK, 1, ""), "");
        let wrong = STACK.replace("00-0A", "00-0C");
        let said = "is not dc:a6:32:00:00:0c, but dc:a6:32:00:00:0a, dc:a6:32:00:00:0b";
        assert_eq!(found(&wrong, 1, ""), said);
        let fixed = wrong.replace("subnet", "addressing: static, subnet");
        assert_eq!(found(&fixed, 1, ""), format!("warn {said}"));
    }
}
