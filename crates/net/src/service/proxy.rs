//! The proxy itself: keeps what is loaded, sends differences.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::flows::UdpFlows;
use super::plan::plan;
use super::{Endpoint, EndpointState, Protocol, Service, ServiceModel, ServicePort, TrafficPolicy};
use crate::Cidr;
use crate::firewall::{Change, Family, Ruleset, diff, replace};
use crate::linux::firewall::{Firewall, Kernel, Tracked, remember_connections};

/// How the proxy is set up.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The nftables table that holds everything of the proxy. Default `coracle`.
    pub table: String,
    /// Addresses of this board that node ports listen on; empty means every local address but
    /// loopback.
    pub node_port_addresses: Vec<Cidr>,
    /// The address blocks of all pods of the cluster: traffic from elsewhere to a service is
    /// masqueraded so that answers come back this way.
    pub cluster_cidrs: Vec<Cidr>,
    /// The bit of the packet mark that says "masquerade this". Default `0x4000`.
    pub masquerade_mark: u32,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            table: "coracle".to_owned(),
            node_port_addresses: Vec::new(),
            cluster_cidrs: Vec::new(),
            masquerade_mark: 0x4000,
        }
    }
}

/// Why the proxy could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Without a mark nothing could be masqueraded.
    #[error("the masquerade mark must not be 0")]
    NoMark,
    /// The kernel does not have what services are made of, or does not let us.
    #[error(
        "trying out nftables; hint: services take root and a kernel with nf_tables and its parts \
         nat, masq, fib, numgen, reject and ct (CONFIG_NFT_*)"
    )]
    Unsupported(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{action} in nftables table {table:?}")]
    Firewall {
        /// What was being done.
        action: &'static str,
        /// To which table.
        table: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// The service proxy of one board.
pub struct ServiceProxy {
    config: ProxyConfig,
    firewall: Box<dyn Firewall>,
    /// What the kernel holds, per family; absent while that is not known.
    loaded: BTreeMap<Family, Ruleset>,
    /// `None` before the first model: whatever an earlier process left may be stale.
    udp: Option<UdpFlows>,
}

impl ServiceProxy {
    /// Makes sure that the kernel can do it, and takes over the table: what an earlier process left in it is replaced by the first
    /// [`ServiceProxy::apply`], in the same transaction, so that services keep working between.
    pub async fn open(config: ProxyConfig) -> Result<Self, ProxyError> {
        if config.masquerade_mark == 0 {
            return Err(ProxyError::NoMark);
        }
        let proxy = Self::with_firewall(config, Box::new(Kernel));
        proxy.try_out().await.map_err(ProxyError::Unsupported)?;
        // The trial has loaded what tracks connections.
        remember_connections();
        Ok(proxy)
    }

    /// Loads and removes one of everything in a single transaction, which changes nothing: what
    /// the kernel lacks shows now, not when the first service comes.
    async fn try_out(&self) -> Result<(), std::io::Error> {
        let table = format!("{}-trial", self.config.table);
        let mut changes = replace(&plan(&specimen(), &self.config, Family::V4));
        changes.push(Change::DeleteTable);
        self.firewall.commit(&table, Family::V4, &changes).await
    }

    fn with_firewall(config: ProxyConfig, firewall: Box<dyn Firewall>) -> Self {
        Self { config, firewall, loaded: BTreeMap::new(), udp: None }
    }

    /// Makes the kernel serve exactly `model`, which must be complete: what it leaves out stops
    /// being served. It happens in one atomic transaction per address family
    /// (IPv6 only once a service has an IPv6 address). After an error the kernel still serves
    /// the model before; the next call sends everything again.
    pub async fn apply(&mut self, model: &ServiceModel) -> Result<(), ProxyError> {
        for family in [Family::V4, Family::V6] {
            if family == Family::V4 || self.loaded.contains_key(&family) || has_v6(model) {
                self.load(plan(model, &self.config, family)).await?;
            }
        }
        self.forget_stale_udp(UdpFlows::of(model)).await;
        Ok(())
    }

    /// Sends the difference. When the kernel does not take it (somebody touched our table), all
    /// of it is sent again.
    async fn load(&mut self, wanted: Ruleset) -> Result<(), ProxyError> {
        let family = wanted.family;
        if let Some(loaded) = self.loaded.remove(&family) {
            let changes = diff(&loaded, &wanted);
            if changes.is_empty() {
                self.loaded.insert(family, loaded);
                return Ok(());
            }
            match self.firewall.commit(&self.config.table, family, &changes).await {
                Ok(()) => {
                    self.loaded.insert(family, wanted);
                    return Ok(());
                }
                Err(error) => tracing::warn!(
                    table = self.config.table,
                    %error,
                    "the service table is not as we left it; loading all of it again"
                ),
            }
        }
        let changes = replace(&wanted);
        let sent = self.firewall.commit(&self.config.table, family, &changes).await;
        sent.map_err(|source| self.error("loading services", source))?;
        self.loaded.insert(family, wanted);
        Ok(())
    }

    /// A failure here (a kernel without the module for it) is no reason to call the services
    /// unserved: new flows go right, and old ones end when their clients fall silent.
    async fn forget_stale_udp(&mut self, now: UdpFlows) {
        if self.udp.as_ref() == Some(&now) {
            return;
        }
        let before = self.udp.clone().unwrap_or_default();
        let stale = |tracked: &Tracked| now.makes_stale(&before, tracked);
        for family in self.loaded.keys() {
            match self.firewall.forget_udp(*family, &stale).await {
                Ok(count) => tracing::debug!(count, "forgot UDP flows of endpoints that are gone"),
                Err(error) => {
                    tracing::warn!(%error, "cannot forget UDP flows; trying again with the next change");
                    return;
                }
            }
        }
        self.udp = Some(now);
    }

    fn error(&self, action: &'static str, source: std::io::Error) -> ProxyError {
        ProxyError::Firewall { action, table: self.config.table.clone(), source }
    }

    /// Removes the table. Connections that are open keep their translation until they end.
    pub async fn uninstall(self) -> Result<(), ProxyError> {
        for family in [Family::V4, Family::V6] {
            let removed = self.firewall.remove(&self.config.table, family).await;
            removed.map_err(|source| self.error("removing services", source))?;
        }
        Ok(())
    }
}

/// A model whose table has every kind of rule.
fn specimen() -> ServiceModel {
    let endpoint = |last| Endpoint {
        address: (Ipv4Addr::new(192, 0, 2, last), 80).into(),
        local: true,
        state: EndpointState::Ready,
    };
    let port = |protocol, endpoints| ServicePort {
        name: String::new(),
        protocol,
        port: 80,
        node_port: Some(30000),
        endpoints,
    };
    let both = vec![endpoint(1), endpoint(2)];
    let plain = Service {
        cluster_ips: vec![Ipv4Addr::new(192, 0, 2, 3).into()],
        external_policy: TrafficPolicy::Local,
        ports: vec![port(Protocol::Tcp, both), port(Protocol::Udp, Vec::new())],
        ..Service::new("trial", "plain")
    };
    let sticky = Service {
        affinity: Some(Duration::from_secs(1)),
        name: "sticky".to_owned(),
        ..plain.clone()
    };
    ServiceModel { services: vec![plain, sticky], host_ports: Vec::new() }
}

fn has_v6(model: &ServiceModel) -> bool {
    let services = model.services.iter().any(|service| {
        [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips]
            .into_iter()
            .flatten()
            .any(|ip| ip.is_ipv6())
    });
    services || model.host_ports.iter().any(|port| port.target.is_ipv6())
}

impl std::fmt::Debug for ServiceProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceProxy").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
