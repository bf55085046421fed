//! Swap, which the kubelet's promises about memory do not go with and which wears cards out.

use super::{Draft, Scene};
use crate::board::fstab;

/// Services that make swap on Raspberry Pi OS up to Debian 12, on Ubuntu, and elsewhere.
const MAKERS: [&str; 4] = [
    "dphys-swapfile.service",
    "zram-config.service",
    "zramswap.service",
    "rpi-setup-loop@var-swap.service",
];

/// No swap, wherever the image has it from.
pub fn changes(draft: &mut Draft<'_>, scene: &Scene<'_>) {
    if scene.desired.swap {
        return;
    }
    draft.edit("/etc/fstab", fstab::without_swap);
    for unit in MAKERS {
        draft.mask(unit);
    }
    // Raspberry Pi OS from Debian 13 on.
    if draft.layout().has("/etc/rpi/swap.conf") || draft.layout().has("/etc/rpi/swap.conf.d") {
        draft.file("/etc/rpi/swap.conf.d/90-coracle.conf", "[Main]\nMechanism=none\n");
    }
    // An empty file switches the generator off.
    let zram = "/etc/systemd/zram-generator.conf";
    if draft.layout().text(zram).is_some() {
        draft.file(zram, "");
    }
}
