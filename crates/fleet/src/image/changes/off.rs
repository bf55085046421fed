//! What the image would set up at its first start by itself. Everything of it is decided here
//! already, and two that set up the same thing undo each other's work.

use super::Draft;

/// Asks for an account on the console and renames the one there is (Raspberry Pi OS).
const WIZARD: [&str; 2] = ["userconfig.service", "rpi-first-boot-wizard.service"];
/// Take what was put beside the firmware for them, or make the root larger while the partition that we
/// put behind it is in the way.
const OWN: [&str; 4] = [
    "rpi-resize.service",
    "resize2fs_once.service",
    "rpi-resizerootfs.service",
    "rpi-set-sysconf.service",
];

/// Switches them off.
pub fn changes(draft: &mut Draft<'_>) {
    for unit in WIZARD.into_iter().chain(OWN) {
        draft.mask(unit);
    }
    // Refuses logins until that wizard is through.
    draft.remove("/etc/ssh/sshd_config.d/rename_user.conf");
    // Host keys, which it makes too, come from the first start.
    if draft.layout().has("/etc/cloud") || draft.layout().has_program("cloud-init") {
        draft.file("/etc/cloud/cloud-init.disabled", "");
        // This would be looked for first.
        draft.remove("/etc/cloud/cloud-init.enabled");
    }
}
