//! `coracle install` and `coracle uninstall`: the systemd service, and the way back.

use std::fs;
use std::io::{self, BufRead, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli;
use crate::config::Common;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;
use crate::server;

/// Copies the binary, writes the unit, and starts the service. Done again, it changes only what
/// differs.
pub fn install(common: &Common, options: &cli::Install) -> Outcome {
    must_be_root("installing the service")?;
    copy_self(&options.binary)?;
    let unit = unit(common, options);
    files::make_folder(options.unit.parent().unwrap_or(Path::new("/")), false)
        .and_then(|()| files::write_atomically(&options.unit, unit.as_bytes(), 0o644))
        .doing(|| format!("writing {}", options.unit.display()))?;
    println!("installed {} and {}", options.binary.display(), options.unit.display());
    if options.no_start {
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", &unit_name(&options.unit)])?;
    systemctl(&["restart", &unit_name(&options.unit)])?;
    println!("started {}", unit_name(&options.unit));
    println!("kubectl: coracle kubeconfig > ~/.kube/config");
    println!("so that pods may end in peace when this machine is shut down (logind waits 5 s):");
    println!("  InhibitDelayMaxSec=30 below [Login] in /etc/systemd/logind.conf.d/coracle.conf");
    Ok(())
}

fn copy_self(target: &Path) -> Outcome {
    let doing = || format!("putting the binary to {}", target.display());
    let this = std::env::current_exe().doing(doing)?;
    if fs::canonicalize(target).is_ok_and(|present| present == this) {
        return Ok(());
    }
    // Reading through /proc works also where the file has been replaced meanwhile.
    let content = fs::read("/proc/self/exe").doing(doing)?;
    files::make_folder(target.parent().unwrap_or(Path::new("/")), false).doing(doing)?;
    files::write_atomically(target, &content, 0o755).doing(doing)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755)).doing(doing)
}

/// The unit. `KillMode=process` leaves the pods alone when the server is restarted or fails, and
/// `Delegate` gives us our own part of the control groups.
fn unit(common: &Common, options: &cli::Install) -> String {
    let mut arguments = vec!["server".to_owned()];
    for (flag, given, default) in [
        ("--data-dir", &common.data_dir, "/var/lib/coracle"),
        ("--run-dir", &common.run_dir, "/run/coracle"),
        ("--config", &common.config, "/etc/coracle/config.yaml"),
    ] {
        if given != Path::new(default) {
            arguments.push(format!("{flag}={}", given.display()));
        }
    }
    arguments.extend(options.server_arguments.iter().cloned());
    let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!(
        "[Unit]\n\
         Description=Coracle: Kubernetes for small boards\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         EnvironmentFile=-/etc/default/coracle\n\
         ExecStartPre=-/sbin/modprobe overlay\n\
         ExecStart={} {}\n\
         KillMode=process\n\
         Delegate=yes\n\
         Restart=always\n\
         RestartSec=2s\n\
         RestartPreventExitStatus={}\n\
         TimeoutStartSec=0\n\
         LimitNOFILE=1048576\n\
         LimitNPROC=infinity\n\
         LimitCORE=infinity\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-999\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        quoted(&options.binary.display().to_string()),
        arguments.join(" "),
        crate::failure::REMOVED
    )
}

/// A word of a unit's command line (systemd.service(5), "Command lines").
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=/.,:@+".contains(c));
    if plain { escaped } else { format!("\"{}\"", escaped.replace('$', "$$")) }
}

/// Stops the service, ends its pods, and removes what Coracle has put on this machine.
pub async fn uninstall(common: Common, options: cli::Uninstall) -> Outcome {
    must_be_root("removing Coracle")?;
    let unit = unit_name(&options.unit);
    let everything = [&common.data_dir, &common.run_dir];
    if !options.yes && !confirmed(&everything)? {
        return Err(Failure::new("nothing was removed").hint("answer yes, or use --yes"));
    }
    if options.unit.exists() {
        systemctl(&["disable", "--now", &unit])?;
        remove(&options.unit)?;
        systemctl(&["daemon-reload"])?;
    }
    server::must_be_stopped(&common.data_dir, "removing Coracle")?;
    server::remove_node_state(&common, &options).await?;
    for path in everything {
        remove(path)?;
    }
    remove(&options.write_kubeconfig)?;
    remove(&common.config)?;
    remove_if_empty(common.config.parent());
    remove_if_empty(options.write_kubeconfig.parent());
    remove(&options.binary)?;
    println!("removed: nothing of Coracle is left on this machine");
    Ok(())
}

fn confirmed(folders: &[&PathBuf]) -> Outcome<bool> {
    println!("This ends all pods on this machine and removes for good:");
    folders.iter().for_each(|folder| println!("  {}", folder.display()));
    print!("Type yes to go on: ");
    let mut answer = String::new();
    io::stdout()
        .flush()
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .doing(|| "asking".into())?;
    Ok(answer.trim() == "yes")
}

fn remove(path: &Path) -> Outcome {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)
            .doing(|| format!("removing {}", path.display()))
            .hint(|| "see what uses it (`fuser -vm`), end that, and run the command again".into()),
        _ => Ok(()),
    }
}

fn remove_if_empty(folder: Option<&Path>) {
    if let Some(folder) = folder {
        // A folder that holds something else is somebody else's.
        let _ = fs::remove_dir(folder);
    }
}

fn unit_name(unit: &Path) -> String {
    unit.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn must_be_root(what: &str) -> Outcome {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(format!("{what} needs root")).hint("use sudo")),
    }
}

fn systemctl(arguments: &[&str]) -> Outcome {
    let doing = || format!("systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl").args(arguments).output().doing(doing).hint(|| {
        "this machine has no systemd: run `coracle server` under its own supervisor".into()
    })?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Failure::new(format!("{}: {said}", doing()))
                .hint("`journalctl -u coracle` may say more; --no-start only writes the files"))
        }
    }
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
