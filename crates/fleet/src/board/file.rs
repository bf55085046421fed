/// A file of ours on a board, with all of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What it holds.
    pub content: String,
    /// What has to be done so that it counts.
    pub after: After,
}

impl File {
    /// A file that everybody may read.
    pub fn new(path: impl Into<String>, content: impl Into<String>, after: After) -> Self {
        Self { path: path.into(), mode: 0o644, content: content.into(), after }
    }

    /// A file for root only.
    pub fn private(self) -> Self {
        Self { mode: 0o600, ..self }
    }
}

/// What makes a changed file count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing: it is read when it is needed.
    Nothing,
    /// Coracle's service is started again.
    Restart,
    /// systemd reads its units, and Coracle's service is started again.
    Unit,
    /// The kernel is told.
    Sysctl,
    /// The journal is started again.
    Journald,
    /// logind reads its configuration again.
    Logind,
    /// Time synchronisation is started again.
    Timesync,
    /// dnsmasq is started again, where it is installed.
    Dnsmasq,
    /// The router's rules are put in place, where nftables is installed.
    Router,
}

impl After {
    /// The commands.
    pub fn script(self) -> &'static str {
        match self {
            After::Nothing | After::Restart => "",
            After::Unit => "systemctl daemon-reload",
            // What a container may not set is not the board's to set.
            After::Sysctl => "systemctl restart systemd-sysctl || :",
            After::Journald => "systemctl restart systemd-journald || :",
            After::Logind => "systemctl kill --signal=HUP systemd-logind || :",
            After::Timesync => "systemctl try-restart systemd-timesyncd || :",
            After::Dnsmasq => {
                "if command -v dnsmasq >/dev/null; then systemctl enable -q dnsmasq; \
                 systemctl restart dnsmasq; fi"
            }
            // The service and its rules come one after the other.
            After::Router => {
                "systemctl daemon-reload; if command -v nft >/dev/null && \
                 [ -e /etc/coracle-router.nft ] && \
                 [ -e /etc/systemd/system/coracle-router.service ]; then \
                 systemctl enable -q coracle-router; systemctl restart coracle-router; fi"
            }
        }
    }

    /// Whether Coracle's service must be started again.
    pub fn restarts(self) -> bool {
        matches!(self, After::Restart | After::Unit)
    }
}
