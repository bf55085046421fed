//! Where things are on a board.

/// The binary.
pub const BINARY: &str = "/usr/local/bin/coracle";
/// The configuration, for root only: it may hold secrets.
pub const CONFIG: &str = "/etc/coracle/config.yaml";
/// The token that the board joins with, for root only.
pub const TOKEN: &str = "/etc/coracle/token";
/// Is there from before something that the service is started with is changed until it was started
/// with it, so that the next `coracle up` starts the service again after one that was interrupted.
pub const RESTART: &str = "/etc/coracle/.restart";
/// Everything that the cluster must not forget.
pub const DATA: &str = "/var/lib/coracle";
/// Kernel settings.
pub const SYSCTL: &str = "/etc/sysctl.d/90-coracle.conf";
/// Limits of the journal.
pub const JOURNALD: &str = "/etc/systemd/journald.conf.d/coracle.conf";
/// Time servers.
pub const TIMESYNCD: &str = "/etc/systemd/timesyncd.conf.d/coracle.conf";
/// Has logind wait for pods when the board goes off.
pub const LOGIND: &str = "/etc/systemd/logind.conf.d/coracle.conf";
/// Where a Raspberry Pi's firmware may read the kernel's command line. The first that is there is the one:
/// Ubuntu since 25.10 keeps what boots in a folder of its own, and Raspberry Pi OS since Debian 12 has
/// left a note, or a link, in the old place.
pub const CMDLINES: [&str; 3] =
    ["/boot/firmware/current/cmdline.txt", "/boot/firmware/cmdline.txt", "/boot/cmdline.txt"];
/// Where units of the machine's owner lie.
pub const UNITS: &str = "/etc/systemd/system";
