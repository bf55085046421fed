//! Settings of the kernel that pods may ask for: those that a namespace has for itself, and of them
//! those that cannot harm others.

/// What keeps a setting from being the whole machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Of communication between processes.
    Ipc,
    /// Of the network.
    Net,
}

/// Beginnings of names that belong to a namespace.
const NAMESPACED: &[(&str, Namespace)] = &[
    ("kernel.sem", Namespace::Ipc),
    ("kernel.shm", Namespace::Ipc),
    ("kernel.msg", Namespace::Ipc),
    ("fs.mqueue.", Namespace::Ipc),
    ("net.", Namespace::Net),
];

/// The namespace that a setting, or each that a pattern `net.ipv4.*` stands for, belongs to.
pub fn namespace(name: &str) -> Option<Namespace> {
    let name = name.trim_end_matches('*');
    NAMESPACED.iter().find(|(start, _)| name.starts_with(start)).map(|(_, namespace)| *namespace)
}

/// The minor release since which everybody may set it; none: its node has to allow it.
pub fn safe_since(name: &str) -> Option<u32> {
    match name {
        "kernel.shm_rmid_forced"
        | "net.ipv4.ip_local_port_range"
        | "net.ipv4.ip_unprivileged_port_start"
        | "net.ipv4.ping_group_range"
        | "net.ipv4.tcp_syncookies" => Some(0),
        "net.ipv4.ip_local_reserved_ports" => Some(27),
        "net.ipv4.tcp_fin_timeout"
        | "net.ipv4.tcp_keepalive_intvl"
        | "net.ipv4.tcp_keepalive_probes"
        | "net.ipv4.tcp_keepalive_time" => Some(29),
        "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => Some(32),
        _ => None,
    }
}

/// The name with dots between its parts: it may have slashes there, and dots within them.
pub fn normalized(name: &str) -> String {
    match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some("/") => swapped(name),
        _ => name.to_owned(),
    }
}

/// Dots for slashes and the other way round: a normalized name as a path.
pub fn swapped(name: &str) -> String {
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_namespaces() {
        assert_eq!(normalized("net/ipv4/conf/eth0.1/rp_filter"), "net.ipv4.conf.eth0/1.rp_filter");
        assert_eq!(normalized("net.ipv4.conf.eth0/1.rp_filter"), "net.ipv4.conf.eth0/1.rp_filter");
        assert_eq!(namespace("net.core.*"), Some(Namespace::Net));
        assert_eq!(namespace("kernel.msgmax"), Some(Namespace::Ipc));
        assert_eq!(namespace("kernel.panic"), None);
        assert_eq!(namespace("kernel.*"), None);
        assert_eq!(namespace("*"), None);
    }
}
