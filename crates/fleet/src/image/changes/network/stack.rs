use super::super::super::layout::Layout;

/// What sets up the network of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// Raspberry Pi OS since Debian 12, and desktops.
    NetworkManager,
    /// Ubuntu, and Debian's images for clouds since 12.
    Netplan,
    /// systemd's own.
    Networkd,
    /// Raspberry Pi OS before Debian 12.
    Dhcpcd,
    /// Debian's images for boards, and Debian as it is installed.
    Ifupdown,
}

impl Stack {
    /// Several may be installed: the first that is in charge.
    pub fn of(layout: &Layout) -> Option<Self> {
        let all = [
            (Stack::NetworkManager, layout.starts("NetworkManager.service")),
            (Stack::Netplan, layout.has_program("netplan")),
            (Stack::Networkd, layout.starts("systemd-networkd.service")),
            (Stack::Dhcpcd, layout.starts("dhcpcd.service") && layout.has("/etc/dhcpcd.conf")),
            (Stack::Ifupdown, layout.has_program("ifup")),
            // It is part of every systemd and only has to be switched on.
            (Stack::Networkd, layout.has_unit("systemd-networkd.service")),
        ];
        all.into_iter().find_map(|(stack, here)| here.then_some(stack))
    }
}
