//! The systemd unit of a server or an agent.

/// Exit code of a server that was removed from its cluster: its service is not started again by
/// itself.
pub const REMOVED: u8 = 78;

/// The unit. `KillMode=process` leaves the pods alone when the service is restarted or fails, and
/// `Delegate` gives us our own part of the control groups.
pub fn unit(binary: &str, command: &str, arguments: &[String]) -> String {
    let words = [binary.to_owned(), command.to_owned()];
    let line: Vec<String> = words.iter().chain(arguments).map(|word| quoted(word)).collect();
    format!(
        "[Unit]\n\
         Description=Coracle {command}: Kubernetes for small boards\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         EnvironmentFile=-/etc/default/coracle\n\
         ExecStartPre=-/sbin/modprobe overlay\n\
         ExecStart={}\n\
         KillMode=process\n\
         Delegate=yes\n\
         Restart=always\n\
         RestartSec=2s\n\
         RestartPreventExitStatus={REMOVED}\n\
         TimeoutStartSec=0\n\
         LimitNOFILE=1048576\n\
         LimitNPROC=infinity\n\
         LimitCORE=infinity\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-999\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        line.join(" "),
    )
}

/// Has logind wait this long for pods when the board goes off.
pub fn logind(seconds: u64) -> String {
    format!("[Login]\nInhibitDelayMaxSec={seconds}\n")
}

/// A word of a unit's command line (systemd.service(5), "Command lines").
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=/.,:@+".contains(c));
    if plain { escaped } else { format!("\"{}\"", escaped.replace('$', "$$")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("--node-label=a=b"), "--node-label=a=b");
        assert_eq!(quoted("50% \"x\""), "\"50%% \\\"x\\\"\"");
    }
}
