//! `/etc/hosts`, `/etc/resolv.conf` and the host name of a pod. Pure texts.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::view::spec;

/// Longest host name that the kernel takes, in bytes.
const MAX_HOSTNAME_BYTES: usize = 63;
/// Longest full name that the kernel takes as a host name, in bytes.
const MAX_FQDN_BYTES: usize = 64;
/// Name servers that the C library reads at most.
const MAX_NAMESERVERS: usize = 3;
/// Search domains that upstream lets through at most.
const MAX_SEARCH_DOMAINS: usize = 32;

/// Host name and domain of a pod.
pub fn names(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = spec(pod);
    if let Some(name) = spec.hostname_override.as_ref().filter(|n| !n.is_empty()) {
        return (name.clone(), String::new());
    }
    let own = pod.metadata.name.clone().unwrap_or_default();
    let hostname = spec.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| {
        let cut = &own[..own.floor_char_boundary(MAX_HOSTNAME_BYTES)];
        cut.trim_end_matches(['-', '.']).to_owned()
    });
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{namespace}.svc.{cluster_domain}"),
        None => String::new(),
    };
    (hostname, domain)
}

/// The host name that the kernel tells in the pod: the full one where the pod wants that (KEP-1797),
/// which may be too long.
pub fn kernel_name(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (hostname, domain) = names(pod, cluster_domain);
    if domain.is_empty() || spec(pod).set_hostname_as_fqdn != Some(true) {
        return Ok(hostname);
    }
    let full = format!("{hostname}.{domain}");
    match full.len() {
        0..=MAX_FQDN_BYTES => Ok(full),
        length => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long \
             ({MAX_FQDN_BYTES} characters is the max, {length} characters requested)"
        )),
    }
}

/// The pod's `/etc/hosts`; with the host's network, the host's own file and the aliases.
pub fn hosts_file(
    pod: &Pod,
    ips: &[IpAddr],
    cluster_domain: &str,
    host_file: Option<&str>,
) -> String {
    let mut out = match host_file {
        Some(host) => format!("# Kubernetes-managed hosts file (host network).\n{host}"),
        None => {
            let mut out = String::from(
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
                 ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                 fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
            );
            let (hostname, domain) = names(pod, cluster_domain);
            for ip in ips {
                match domain.as_str() {
                    "" => out.push_str(&format!("{ip}\t{hostname}\n")),
                    _ => out.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
                }
            }
            out
        }
    };
    let aliases = spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            out.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    out
}

/// What a resolver file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    /// Reads a resolver file; of several search lines the last holds.
    pub fn parse(text: &str) -> Resolver {
        let mut out = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let words_left = |words: std::str::SplitWhitespace| words.map(str::to_owned).collect();
            match words.next() {
                Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
                Some("search") => out.searches = words_left(words),
                Some("options") => out.options = words_left(words),
                _ => {}
            }
        }
        out
    }

    fn print(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            out.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        out
    }

    fn merge(&mut self, pod: &Pod) {
        let Some(config) = &spec(pod).dns_config else { return };
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut self.servers, &config.nameservers);
        add(&mut self.searches, &config.searches);
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            self.options.retain(|o| o.split(':').next() != Some(name));
            self.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
        self.servers.truncate(MAX_NAMESERVERS);
        self.searches.truncate(MAX_SEARCH_DOMAINS);
    }
}

/// The pod's `/etc/resolv.conf` by its DNS policy.
pub fn resolv_conf(
    pod: &Pod,
    host: &Resolver,
    dns: Option<IpAddr>,
    cluster_domain: &str,
) -> String {
    let spec = spec(pod);
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !host_network,
        _ => false,
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut resolver = match (policy, dns.filter(|_| cluster)) {
        ("None", _) => Resolver::default(),
        (_, Some(dns)) => {
            let svc = format!("svc.{cluster_domain}");
            let mut searches = vec![format!("{namespace}.{svc}"), svc, cluster_domain.to_owned()];
            searches.extend(host.searches.iter().filter(|s| *s != ".").cloned());
            Resolver { servers: vec![dns.to_string()], searches, options: vec!["ndots:5".into()] }
        }
        _ => host.clone(),
    };
    resolver.merge(pod);
    resolver.print()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let meta = json!({"name": "web-0", "namespace": "ns"});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    #[test]
    fn four_policies() {
        let host = Resolver::parse("search lan\nnameserver 192.168.1.1\n");
        let text = |spec| {
            let dns = Some("10.43.0.10".parse().unwrap());
            resolv_conf(&pod(spec), &host, dns, "cluster.local").replace('\n', "|")
        };
        let cluster = "search ns.svc.cluster.local svc.cluster.local cluster.local lan|\
                       nameserver 10.43.0.10|options ndots:5|";
        let own = "search lan|nameserver 192.168.1.1|";
        assert_eq!(text(json!({"containers": []})), cluster);
        assert_eq!(text(json!({"containers": [], "hostNetwork": true})), own);
        let with_net =
            json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        assert_eq!(text(with_net), cluster);
        assert_eq!(text(json!({"containers": [], "dnsPolicy": "Default"})), own);
        let none = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(text(none), "nameserver 1.1.1.1|options ndots:2 edns0|");
        let more =
            json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}});
        assert!(text(more).ends_with("options ndots:2|"));
    }

    #[test]
    fn host_files() {
        let pod = pod(json!({"containers": [], "subdomain": "db",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts_file(&pod, &["10.42.0.2".parse().unwrap()], "cluster.local", None);
        assert!(text.contains("10.42.0.2\tweb-0.db.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }
    #[test]
    fn a_pod_may_want_its_full_name() {
        let name = |subdomain: &str, full: bool| {
            let spec = json!({"containers": [], "subdomain": subdomain, "setHostnameAsFQDN": full});
            kernel_name(&pod(spec), "cluster.local")
        };
        assert_eq!(name("db", false), Ok("web-0".into()));
        assert_eq!(name("db", true), Ok("web-0.db.ns.svc.cluster.local".into()));
        assert_eq!(name("", true), Ok("web-0".into()));
        let long = name(&"d".repeat(40), true).expect_err("too long");
        assert!(long.ends_with("(64 characters is the max, 67 characters requested)"), "{long}");
    }
}
