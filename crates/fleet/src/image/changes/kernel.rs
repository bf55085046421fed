//! The kernel's command line, in the places where the image's boot loader reads it and where the
//! distribution makes that file anew from.

use super::account::with_line;
use super::{Draft, Scene};
use crate::board::{cmdline, paths};

/// Words by which images have themselves grown or set up at their first start, which is done here and
/// by the board's first start instead. A script that Raspberry Pi Imager has left is started by a target
/// that nothing else is started with; `cloud-init=` would beat the file that switches cloud-init off.
const OWN_FIRST_STARTS: [&str; 3] =
    ["resize", "firstboot", "systemd.unit=kernel-command-line.target"];
const OWN_FIRST_STARTS_WITH: [&str; 5] = [
    "init=/usr/lib/raspberrypi-sys-mods/firstboot",
    "init=/usr/lib/raspi-config/init_resize.sh",
    "systemd.run",
    "ds=nocloud",
    "cloud-init=",
];
const EXTLINUX: &str = "/boot/extlinux/extlinux.conf";
/// What Debian's tool for extlinux, and others, make the kernel's command line of, where it is there.
const KERNEL_CMDLINE: &str = "/etc/kernel/cmdline";
const GRUB: &str = "/boot/grub/grub.cfg";

/// Flags for the control groups and for Wi-Fi.
pub fn changes(draft: &mut Draft<'_>, scene: &Scene<'_>) {
    let mut flags: Vec<String> = cmdline::FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    if let Some(wifi) = &scene.settings.wifi {
        flags.push(format!("cfg80211.ieee80211_regdom={}", wifi.country));
    }
    if scene.network.names_interfaces_by_kernel(draft.layout()) {
        flags.push("net.ifnames=0".into());
    }
    let words = flags.join(" ");
    let mut found = false;
    if let Some(path) = paths::CMDLINES.into_iter().find(|at| draft.layout().text(at).is_some()) {
        found = true;
        draft.edit(path, |text| with_flags(&cmdline::with_flags(text), &flags));
    }
    // Debian's package for the Pi's firmware writes cmdline.txt anew with each kernel.
    if draft.layout().has("/etc/kernel/postinst.d/z50-raspi-firmware") {
        let extra = draft.text("/etc/default/raspi-extra-cmdline").unwrap_or_default();
        draft.file("/etc/default/raspi-extra-cmdline", with_flags(&extra, &flags));
    }
    if draft.layout().text(EXTLINUX).is_some() {
        found = true;
        draft.edit(EXTLINUX, |text| on_lines(text, &["append"], &flags));
        extlinux_from(draft, &flags);
    }
    if draft.layout().text(GRUB).is_some() {
        found = true;
        draft.edit(GRUB, |text| on_lines(text, &["linux", "linuxefi"], &flags));
        let text = format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {words}\"\n");
        draft.file("/etc/default/grub.d/90-coracle.cfg", text);
    }
    if !found {
        draft.warn(format!(
            "no boot loader configuration that is known here: if memory limits do not work, boot \
             with {words}"
        ));
    }
}

/// What Debian's `u-boot-update` makes extlinux.conf of with each kernel. Parameters of its own file, a
/// piece of shell, are taken instead of the kernel's command line in `/etc`, and that instead of "ro quiet".
fn extlinux_from(draft: &mut Draft<'_>, flags: &[String]) {
    const FILE: &str = "/etc/default/u-boot";
    let words = flags.join(" ");
    let parameters = match draft.layout().text(KERNEL_CMDLINE) {
        Some(_) => format!("${{U_BOOT_PARAMETERS:+$U_BOOT_PARAMETERS {words}}}"),
        None => format!("${{U_BOOT_PARAMETERS:-ro quiet}} {words}"),
    };
    draft.edit(KERNEL_CMDLINE, |text| with_flags(text, flags));
    let text = draft.text(FILE).unwrap_or_default();
    draft.file(FILE, with_line(&text, &format!("U_BOOT_PARAMETERS=\"{parameters}\"")));
}

/// One line with all flags, and without the image's own first start.
fn with_flags(line: &str, flags: &[String]) -> String {
    let own = |word: &str| {
        OWN_FIRST_STARTS.contains(&word)
            || OWN_FIRST_STARTS_WITH.iter().any(|begin| word.starts_with(begin))
    };
    let mut words: Vec<&str> = line.split_whitespace().filter(|word| !own(word)).collect();
    for flag in flags {
        if !words.contains(&flag.as_str()) {
            words.push(flag);
        }
    }
    words.join(" ") + "\n"
}

/// Adds the flags to lines that begin with one of the words.
fn on_lines(text: &str, begin: &[&str], flags: &[String]) -> String {
    let edited = text.split_inclusive('\n').map(|line| {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !begin.iter().any(|word| first.eq_ignore_ascii_case(word)) {
            return line.to_owned();
        }
        let bare = line.trim_end_matches(['\n', '\r']);
        let missing =
            flags.iter().filter(|flag| !line.split_whitespace().any(|word| word == *flag));
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        let gap = if missing.is_empty() { "" } else { " " };
        format!("{bare}{gap}{}{}", missing.join(" "), &line[bare.len()..])
    });
    edited.collect()
}
