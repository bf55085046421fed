use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Datastore;
use super::node::Facts;
use crate::address;
use crate::config::{Common, Node, Server};
use crate::failure::{Failure, Outcome};
use crate::join::{Bring, Equal, Token};

/// The Kubernetes release whose API we serve.
const KUBERNETES: &str = "v1.36.0";

/// What `/version`, nodes and `coracle version` say.
pub fn version() -> String {
    format!("{KUBERNETES}+coracle{}", crate::upgrade::current())
}

/// The options with everything that was left open decided.
pub struct Settings {
    /// What every command was told.
    pub common: Common,
    /// What the server was told.
    pub options: Server,
    /// Where the cluster's objects are stored.
    pub datastore: Datastore,
    /// The name of this board's Node.
    pub node_name: String,
    /// The address of this board.
    pub node_ip: IpAddr,
    /// The address and port that pods and other boards reach the API server at.
    pub advertise: SocketAddr,
    /// The address of the cluster's DNS.
    pub cluster_dns: IpAddr,
}

impl Settings {
    /// Decides what was left open, and refuses what cannot work.
    pub fn new(common: Common, options: Server) -> Outcome<Self> {
        if !options.disable_agent && !nix::unistd::geteuid().is_root() {
            return Err(Failure::new("running pods needs root")
                .hint("use sudo, or --disable-agent for a server without pods"));
        }
        let (node_name, node_ip) = identity(&options.node)?;
        let advertise = options.advertise_address.unwrap_or(node_ip);
        let cluster_dns = options.cluster_dns.or_else(|| options.service_cidr.nth(10));
        let cluster_dns =
            cluster_dns.filter(|ip| options.service_cidr.contains(*ip)).ok_or_else(|| {
                Failure::new(format!("the DNS address is not among {}", options.service_cidr))
                    .hint("choose an address of the service network with --cluster-dns")
            })?;
        if options.cluster_cidr.contains(options.service_cidr.network())
            || options.service_cidr.contains(options.cluster_cidr.network())
        {
            return Err(Failure::new(format!(
                "pods ({}) and services ({}) share addresses",
                options.cluster_cidr, options.service_cidr
            ))
            .hint("choose networks apart with --cluster-cidr and --service-cidr"));
        }
        let advertise = SocketAddr::new(advertise, options.https_listen_port);
        options.vip.check(node_ip, options.bind_address)?;
        let datastore = Datastore::new(&common.data_dir, &options)?;
        Ok(Settings { common, options, datastore, node_name, node_ip, advertise, cluster_dns })
    }

    /// What every node must know of the cluster.
    pub fn facts(&self) -> Facts {
        let (node, vxlan) = (&self.options.node, net::VxlanConfig::default());
        Facts {
            vxlan_vni: node.vxlan_vni.or(Some(vxlan.vni)),
            vxlan_port: node.vxlan_port.or(Some(vxlan.port)),
            cluster_cidr: self.options.cluster_cidr,
            service_cidr: self.options.service_cidr,
            cluster_dns: self.cluster_dns,
            cluster_domain: self.options.cluster_domain.clone(),
        }
    }

    /// What this server brings to the datastore.
    pub fn bring(&self) -> Outcome<Bring> {
        Ok(Bring {
            folder: self.common.data_dir.join("server"),
            settings: Equal::of(&self.facts()),
            token: Token::of(&self.options.membership)?,
            agent_token: self.options.agent_token.clone(),
            handed: None,
            etcd: Vec::new(),
        })
    }

    /// Where manifests are dropped.
    pub fn manifests_dir(&self) -> PathBuf {
        let inside = || self.common.data_dir.join("server/manifests");
        self.options.manifests_dir.clone().unwrap_or_else(inside)
    }

    /// How this machine's own clients reach the API server.
    pub fn local_server(&self) -> String {
        let ip = match self.options.bind_address {
            ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            ip => ip,
        };
        format!("https://{}", SocketAddr::new(ip, self.options.https_listen_port))
    }

    /// Every name and address that the API server's certificate is for.
    pub fn server_names(&self) -> Vec<String> {
        let domain = &self.options.cluster_domain;
        let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("kubernetes.default.svc.{domain}"), "localhost".to_owned()])
            .chain([self.node_name.clone()])
            .chain(self.options.tls_san.iter().cloned())
            .chain(self.options.vip.vip.iter().map(|vip| vip.ip.to_string()))
            .chain(
                [
                    Some(IpAddr::from([127, 0, 0, 1])),
                    self.options.service_cidr.nth(1),
                    Some(self.node_ip),
                    Some(self.advertise.ip()),
                    Some(self.options.bind_address).filter(|ip| !ip.is_unspecified()),
                ]
                .into_iter()
                .flatten()
                .map(|ip| ip.to_string()),
            )
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The name and the address of this board's Node.
pub fn identity(node: &Node) -> Outcome<(String, IpAddr)> {
    let name = match &node.node_name {
        Some(name) => name.to_lowercase(),
        None => address::host_name()?,
    };
    if !is_node_name(&name) {
        return Err(Failure::new(format!("{name:?} cannot be a node's name"))
            .hint("letters, digits, dots and dashes can; choose one with --node-name"));
    }
    let ip = match node.node_ip {
        Some(ip) if address::is_local(ip) => ip,
        Some(ip) => {
            return Err(Failure::new(format!("no interface has the address {ip}"))
                .hint("`ip address` shows this board's addresses; name one with --node-ip"));
        }
        None => {
            let tunnel = net::VxlanConfig::default().device;
            address::node_address(&[&node.bridge, &node.dns_device, &tunnel])?
        }
    };
    Ok((name, ip))
}

/// A DNS subdomain (RFC 1123), which is what a Node's name must be.
pub fn is_node_name(name: &str) -> bool {
    let letters = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes() {
        for good in ["pi", "pi-4.home.arpa", "0"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "Pi", "pi_4", "-pi", "pi-", "a..b"] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }
}
