//! Service addresses that this machine answers itself.

use std::net::IpAddr;

use super::links::{Kernel, Links, address_device};

/// Why a service address could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{action} {device}")]
pub struct AddressError {
    /// What was being done.
    action: &'static str,
    /// To which device.
    device: String,
    /// What the kernel said.
    #[source]
    source: std::io::Error,
}

/// A device of ours that carries service addresses, so that a server of this machine (cluster
/// DNS) binds them like any other address. Pods reach them through their default gateway. This
/// needs no address translation, works before any service is loaded, and several instances live
/// side by side in network namespaces. The alternative, translating the service's address to the
/// bridge's, would have cluster DNS depend on the service proxy.
#[derive(Debug)]
pub struct ServiceAddress {
    device: String,
}

impl ServiceAddress {
    /// Makes `device` (at most 15 bytes; `coracle-dns` is customary) or adopts it, and gives it
    /// exactly `addresses`.
    pub async fn open(device: &str, addresses: &[IpAddr]) -> Result<Self, AddressError> {
        let made = address_device(device, addresses).await;
        made.map_err(|source| error("putting service addresses on", device, source))?;
        Ok(Self { device: device.to_owned() })
    }

    /// The device's name.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Removes the device. Dropping leaves it, so that a restart finds it.
    pub async fn uninstall(self) -> Result<(), AddressError> {
        Self::purge(&self.device).await
    }

    /// Removes a device that no process has open; harmless when there is none.
    pub async fn purge(device: &str) -> Result<(), AddressError> {
        let removed = Kernel.remove(device).await;
        removed.map_err(|source| error("removing", device, source))
    }
}

fn error(action: &'static str, device: &str, source: std::io::Error) -> AddressError {
    AddressError { action, device: device.to_owned(), source }
}
