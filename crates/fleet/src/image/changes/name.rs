//! What a board is called.

use super::{Draft, Scene};
use crate::board;

/// Host name, the other boards' names, and an identity of its own.
pub fn changes(draft: &mut Draft<'_>, scene: &Scene<'_>) {
    let name = &scene.desired.hostname;
    draft.file("/etc/hostname", format!("{name}\n"));
    let hosts = draft.text("/etc/hosts").unwrap_or_default();
    draft.file("/etc/hosts", board::hosts::with_boards(&hosts, name, &scene.desired.hosts));
    // An empty file gets an identity at the start; a missing one, or "uninitialized", would also have
    // systemd enable units by its presets, as if nothing had been set up yet (machine-id(5)).
    if draft.layout().text("/etc/machine-id") != Some("") {
        draft.put("/etc/machine-id", "", 0o444, super::super::change::ROOT, false);
    }
    if draft.layout().text("/var/lib/dbus/machine-id").is_some() {
        draft.link("/var/lib/dbus/machine-id", "/etc/machine-id");
    }
    if let Some(zone) = &scene.desired.timezone {
        draft.link("/etc/localtime", format!("/usr/share/zoneinfo/{zone}"));
        draft.file("/etc/timezone", format!("{zone}\n"));
    }
}
