//! `coracle down`: a copy of the cluster here, then nothing of Coracle on the boards.

use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use fleet::board::{Service, hosts, paths};
use fleet::ssh::{Remote, Target, Work};
use fleet::up::{Asked, Found};
use jiff::Timestamp;

use super::crew::{Asks, Crew, together};
use super::kubeconfig::Kubeconfig;
use crate::failure::{Failure, Hint, Outcome, While};
use crate::files;

/// Options of `coracle down`.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asks: Asks,
    /// Folder for the copy of the cluster
    #[arg(long, default_value = ".")]
    pub backup: PathBuf,
    /// Keep no copy
    #[arg(long, conflicts_with = "backup")]
    pub no_backup: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub kubeconfig: Kubeconfig,
}

/// Asks, saves, removes: agents first, then servers.
pub fn run(options: &Options) -> Outcome {
    let crew = options.asks.open()?;
    let all: Vec<_> = crew.cluster.boards.iter().collect();
    let found = crew.survey(&all, Asked::default());
    let there: Vec<&Found> =
        found.iter().filter(|one| one.facts.is_ok() && crew.takes(&one.board.name)).collect();
    let away = found.iter().filter(|one| crew.takes(&one.board.name));
    let failures: Vec<Failure> =
        away.filter_map(|one| one.facts.as_ref().err()).cloned().map(Failure::from).collect();
    let names: Vec<&str> = there.iter().map(|one| one.board.name.as_str()).collect();
    if names.is_empty() {
        return together("no board can be reached", failures);
    }
    println!("Coracle, all pods and all their data go for good from: {}", names.join(", "));
    options.asks.confirm("This cannot be undone.")?;
    let server = found.iter().find(|one| {
        one.board.is_server()
            && one.facts.as_ref().is_ok_and(|facts| facts.is_active(Service::Server))
    });
    let stays: Vec<&Found> = found
        .iter()
        .filter(|one| one.board.is_server() && one.facts.is_ok() && !crew.takes(&one.board.name))
        .collect();
    if !options.no_backup && stays.is_empty() {
        match has_cluster(&found) {
            true => save(&crew, server, &options.backup)?,
            false => println!("no server holds a cluster: there is nothing to save"),
        }
    }
    let (servers, others): (Vec<&Found>, Vec<&Found>) =
        there.into_iter().partition(|one| one.board.is_server());
    let whole = servers.len() == all.iter().filter(|board| board.is_server()).count();
    let mut failures = failures;
    let mut servers_stay = false;
    for group in [others, servers] {
        let failed = remove_all(&crew, &group);
        servers_stay = !failed.is_empty();
        failures.extend(failed);
        // Those that stay forget those that go.
        if let Some(keeper) = stays.first() {
            for one in group {
                let script = format!("{} board forget {}", paths::BINARY, one.board.name);
                crew.system.run(&keeper.target, &Work::new("forgetting the node", script))?;
            }
        }
    }
    if whole && !servers_stay {
        failures.extend(options.kubeconfig.take_out(&crew.cluster).err());
    }
    together("not all boards are as before", failures)
}

/// Whether there may be a cluster to save. One that was taken away before and had left something on an
/// agent is not there any more.
fn has_cluster(found: &[Found]) -> bool {
    found.iter().filter(|one| one.board.is_server()).any(|one| match &one.facts {
        Ok(facts) => facts.identity().is_some() || facts.has("holds-data"),
        Err(_) => true,
    })
}

/// Takes a snapshot, and the token without which it is of no use.
fn save(crew: &Crew, server: Option<&Found>, folder: &Path) -> Outcome {
    let Some(server) = server else {
        return Err(Failure::new("no server runs that could save the cluster")
            .hint("start one (`coracle up`), or use --no-backup"));
    };
    let script = format!(
        "set -e\n{} snapshot save before-down >&2\n\
         cd {}/server/snapshots\nfile=$(ls -t | grep '^before-down' | head -n 1)\n\
         [ -n \"$file\" ]\necho \"$file\"\nbase64 -w0 <\"$file\"\necho\ncat {}/server/token",
        paths::BINARY,
        paths::DATA,
        paths::DATA
    );
    let said = crew.system.run(&server.target, &Work::new("saving the cluster", script))?.out;
    let mut lines = said.lines();
    let (name, content, token) = (lines.next(), lines.next(), lines.next());
    let (Some(_), Some(content), Some(token)) = (name, content, token) else {
        return Err(Failure::new("the snapshot was cut short").hint("use --no-backup to go on"));
    };
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(content);
    let bytes = bytes.doing(|| "reading the snapshot".into())?;
    let stem = format!("{}-{}", crew.cluster.name, Timestamp::now().strftime("%Y%m%d-%H%M%S"));
    for (suffix, bytes) in [("snapshot", &bytes[..]), ("token", token.as_bytes())] {
        let path = folder.join(format!("{stem}.{suffix}"));
        files::make_folder(folder, false)
            .and_then(|()| files::write_atomically(&path, bytes, 0o600))
            .doing(|| format!("writing {}", path.display()))
            .hint(|| "name another folder with --backup".into())?;
        println!("saved {}", path.display());
    }
    Ok(())
}

fn remove_all(crew: &Crew, group: &[&Found]) -> Vec<Failure> {
    thread::scope(|scope| {
        let removing: Vec<_> = group
            .iter()
            .map(|one| {
                scope.spawn(|| {
                    let hosts = one.facts.as_ref().map(|facts| facts.get("hosts").to_owned());
                    let outcome = remove(crew, &one.target, &hosts.unwrap_or_default());
                    if outcome.is_ok() {
                        println!("{}: nothing of Coracle is left", one.board.name);
                    }
                    outcome
                })
            })
            .collect();
        removing.into_iter().filter_map(|one| one.join().ok()?.err()).collect()
    })
}

/// What `coracle uninstall` takes away, and what `up` has put beside it. Host name, packages and the
/// data's disk stay.
fn remove(crew: &Crew, target: &Target, table: &str) -> Outcome {
    use base64::Engine;
    let hosts = hosts::without_boards(table);
    let hosts = base64::engine::general_purpose::STANDARD.encode(hosts);
    let script = format!(
        "set -e\nexec 9>/run/coracle-up.lock; flock -w 60 9\n\
         if [ -x {binary} ]; then {binary} uninstall --yes >&2; fi\n\
         for unit in coracle-router.service coracle-address.timer; do systemctl disable -q --now $unit 2>/dev/null || :; done\n\
         rm -rf {binary}.new /etc/coracle-address /etc/systemd/system/coracle-address.* {sysctl} {journald} {timesyncd} {logind} {restart} /etc/coracle-router.nft \
         /etc/systemd/system/coracle-router.service /etc/dnsmasq.d/coracle.conf \
         /etc/systemd/system/coracle.service.d /etc/systemd/system/coracle-agent.service.d\n\
         rmdir /etc/coracle 2>/dev/null || :\n\
         base64 -d >/etc/hosts.new <<'END'\n{hosts}\nEND\n\
         chmod 644 /etc/hosts.new\nmv -f /etc/hosts.new /etc/hosts\n\
         systemctl daemon-reload",
        binary = paths::BINARY,
        sysctl = paths::SYSCTL,
        journald = paths::JOURNALD,
        timesyncd = paths::TIMESYNCD,
        logind = paths::LOGIND,
        restart = paths::RESTART,
    );
    crew.system.run(target, &Work::new("removing Coracle", script))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet::config::{Cluster, Flags};
    use fleet::facts::Facts;
    use fleet::ssh::{Refusal, SshError};

    use super::*;

    #[test]
    fn a_cluster_that_was_taken_away_is_not_saved_again() {
        let text = "name: home\nboards:\n- {name: a, address: 10.0.0.1, roles: [server]}\n\
                    - {name: b, address: 10.0.0.2}\n";
        let cluster = Cluster::parse(text, "cluster.yaml", &Flags::default()).expect("fine");
        let facts = |text: &str| Ok(Facts::parse(&format!("{text}done=yes\n")).expect("facts"));
        let away = || Err(SshError::new("a", Refusal::Unreachable, "gone"));
        for (server, expected) in
            [(facts(""), false), (facts("holds-data=yes\n"), true), (away(), true)]
        {
            let all = [server, facts("holds-data=yes\n")];
            let found = cluster.boards.iter().zip(all).map(|(board, facts)| Found {
                board,
                target: Target::new(board, &cluster.ssh(board)),
                facts,
            });
            assert_eq!(has_cluster(&found.collect::<Vec<_>>()), expected);
        }
    }
}
