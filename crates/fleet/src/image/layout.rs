use std::collections::BTreeMap;

use super::error::ImageError;
use super::files::{Files, Node};
use crate::program::Machine;

/// Files whose content decides something.
const READ: &[&str] = &[
    "/boot/extlinux/extlinux.conf",
    "/boot/firmware/cmdline.txt",
    "/boot/firmware/current/cmdline.txt",
    "/boot/cmdline.txt",
    "/boot/grub/grub.cfg",
    "/etc/default/raspi-extra-cmdline",
    "/etc/default/u-boot",
    "/etc/dhcpcd.conf",
    "/etc/fstab",
    "/etc/group",
    "/etc/gshadow",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/kernel/cmdline",
    "/etc/machine-id",
    "/etc/network/interfaces",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/skel/.bash_logout",
    "/etc/skel/.bashrc",
    "/etc/skel/.profile",
    "/etc/ssh/sshd_config",
    "/etc/systemd/zram-generator.conf",
    "/etc/wpa_supplicant/wpa_supplicant.conf",
    "/usr/lib/os-release",
    "/var/lib/NetworkManager/NetworkManager.state",
    "/var/lib/dbus/machine-id",
];

/// Folders whose names decide something.
const LISTED: &[&str] = &[
    "/boot",
    "/boot/firmware",
    "/etc",
    "/etc/NetworkManager/system-connections",
    "/etc/netplan",
    "/etc/network/interfaces.d",
    "/etc/rpi",
    "/etc/ssh",
    "/etc/ssh/sshd_config.d",
    "/etc/sudoers.d",
    "/etc/systemd/system",
    "/etc/systemd/system/getty@tty1.service.d",
    "/etc/systemd/system/multi-user.target.wants",
    "/etc/systemd/system/sockets.target.wants",
    "/etc/systemd/system/ssh.service.requires",
    "/lib/systemd/system",
    "/usr/bin",
    "/usr/lib/systemd/system",
    "/usr/sbin",
    "/sbin",
    "/var/lib/systemd/rfkill",
];

/// Folders whose files' contents decide something, too.
const LISTED_AND_READ: &[&str] = &["/etc/network/interfaces.d"];

/// The program that tells for which machine the image is.
const SHELL: &str = "/bin/sh";

/// What there is in an image, as far as it decides about changes: plain data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    nodes: BTreeMap<String, Node>,
    machine: Option<Machine>,
}

impl Layout {
    /// Reads an image. `further` are paths that the cluster's description names.
    pub fn gather(files: &Files, further: &[String]) -> Result<Self, ImageError> {
        let mut layout = Layout::default();
        let paths = READ.iter().chain(LISTED).map(|path| (*path).to_owned());
        for path in paths.chain(further.iter().cloned()) {
            layout.take(files, path)?;
        }
        for folder in LISTED_AND_READ {
            for name in layout.names(folder).to_vec() {
                layout.take(files, format!("{folder}/{name}"))?;
            }
        }
        if let Some(Node::File { bytes, .. }) = files.behind(SHELL)? {
            layout.machine = Machine::of(&bytes);
        }
        Ok(layout)
    }

    fn take(&mut self, files: &Files, path: String) -> Result<(), ImageError> {
        if let Some(node) = files.behind(&path)? {
            self.nodes.insert(path, node);
        }
        Ok(())
    }

    /// The processor that its programs are for.
    pub fn machine(&self) -> Option<Machine> {
        self.machine
    }

    /// What the distribution calls itself.
    pub fn system(&self) -> &str {
        let release =
            ["/etc/os-release", "/usr/lib/os-release"].into_iter().find_map(|p| self.text(p));
        let name = release.unwrap_or_default().lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
        name.unwrap_or("an unnamed system").trim_matches('"')
    }

    /// A file's text; empty where it is none.
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.nodes.get(path)? {
            Node::File { bytes, .. } => Some(std::str::from_utf8(bytes).unwrap_or_default()),
            _ => None,
        }
    }

    /// A file's permissions and owner.
    pub fn rights(&self, path: &str) -> Option<(u16, (u32, u32))> {
        match self.nodes.get(path)? {
            Node::File { mode, owner, .. } | Node::Folder { mode, owner, .. } => {
                Some((*mode, *owner))
            }
            _ => None,
        }
    }

    /// What is in a folder.
    pub fn names(&self, folder: &str) -> &[String] {
        match self.nodes.get(folder) {
            Some(Node::Folder { names, .. }) => names,
            _ => &[],
        }
    }

    /// Whether something is there, of what is looked at or stands in a folder that is.
    pub fn has(&self, path: &str) -> bool {
        let listed = || {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            self.names(folder).iter().any(|found| found == name)
        };
        self.nodes.contains_key(path) || listed()
    }

    /// Whether a program is installed.
    pub fn has_program(&self, name: &str) -> bool {
        ["/usr/sbin", "/usr/bin", "/sbin"].iter().any(|f| self.names(f).iter().any(|n| n == name))
    }

    /// Whether systemd knows a unit.
    pub fn has_unit(&self, unit: &str) -> bool {
        ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"]
            .iter()
            .any(|folder| self.names(folder).iter().any(|name| name == unit))
    }

    /// Whether systemd starts a unit by itself.
    pub fn starts(&self, unit: &str) -> bool {
        ["multi-user.target.wants", "sockets.target.wants"].iter().any(|wants| {
            let names = self.names(&format!("/etc/systemd/system/{wants}"));
            names.iter().any(|name| name == unit)
        })
    }
}

impl Layout {
    /// A layout of texts by path: of a board that runs, and for tests. A path that ends with a slash is
    /// an empty folder. The folders of what there is are listed.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut layout = Layout::default();
        for (path, text) in files {
            let Some((folder, name)) = path.trim_end_matches('/').rsplit_once('/') else {
                continue;
            };
            let empty = |names| Node::Folder { names, mode: 0o755, owner: (0, 0) };
            if path.ends_with('/') {
                layout.nodes.insert(path.trim_end_matches('/').into(), empty(vec![]));
            } else {
                let bytes = text.as_bytes().to_vec();
                layout
                    .nodes
                    .insert((*path).into(), Node::File { bytes, mode: 0o644, owner: (0, 0) });
            }
            let listed = layout.nodes.entry(folder.into()).or_insert_with(|| empty(vec![]));
            if let Node::Folder { names, .. } = listed {
                names.push(name.into());
            }
        }
        layout
    }

    /// The same for 64-bit ARM.
    #[cfg(test)]
    pub(crate) fn of_arm64(files: &[(&str, &str)]) -> Self {
        Self { machine: Some(Machine::Arm64), ..Self::of(files) }
    }
}
