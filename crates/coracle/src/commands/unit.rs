//! The systemd unit of a server or an agent, and systemd itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Hint, Outcome, While};

/// Where units of this machine lie.
const UNITS: &str = "/etc/systemd/system";

/// What a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `coracle server`.
    Server,
    /// `coracle agent`.
    Agent,
}

impl Role {
    /// All there are.
    pub const ALL: [Role; 2] = [Role::Server, Role::Agent];

    /// The command's name.
    pub fn command(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Agent => "agent",
        }
    }

    /// Where the unit is put unless told otherwise; the names are as k3s gives them.
    pub fn unit(self) -> PathBuf {
        Path::new(UNITS).join(match self {
            Role::Server => "coracle.service",
            Role::Agent => "coracle-agent.service",
        })
    }
}

/// The unit.
pub fn unit(binary: &Path, role: Role, arguments: &[String]) -> String {
    fleet::board::unit::unit(&binary.display().to_string(), role.command(), arguments)
}

/// A unit's name.
pub fn name(unit: &Path) -> String {
    unit.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The file that has logind wait for pods when the machine goes off; none for a unit that lies
/// where systemd does not look.
pub fn logind_conf(unit: &Path) -> Option<PathBuf> {
    let folder = unit.parent().filter(|folder| folder.ends_with("system"))?;
    Some(folder.with_file_name("logind.conf.d").join("coracle.conf"))
}

/// Has logind read its configuration again; without logind nothing happens.
pub fn reload_logind() {
    // What kubelet does: logind takes it over without losing anybody's session.
    let _ = systemctl(&["kill", "--signal=HUP", "systemd-logind.service"]);
}

/// Runs systemctl.
pub fn systemctl(arguments: &[&str]) -> Outcome {
    let doing = || format!("systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl").args(arguments).output().doing(doing).hint(|| {
        "this machine has no systemd: run `coracle server` or `coracle agent` under its own supervisor"
            .into()
    })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Failure::new(format!("{}: {said}", doing()))
                .hint("`journalctl -u 'coracle*'` may say more; --no-start only writes the files"))
        }
    }
}
