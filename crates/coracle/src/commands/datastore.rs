//! `coracle datastore`: where the cluster's objects are, how that fares, and moving them.

use std::time::{Duration, Instant};

use crate::cli::DatastoreCommand;
use crate::config::{self, Common};
use crate::etcd::{self, Alarm, Member, Seen, Status};
use crate::failure::{Failure, Outcome, While};
use crate::server::{self, Datastore, Lock, Settings, Target, moving};

/// Runs a command.
pub async fn run(common: Common, command: DatastoreCommand) -> Outcome {
    crate::tls::install_provider();
    match command {
        DatastoreCommand::Move { to } => move_to(common, to).await,
        DatastoreCommand::Status => status(common).await,
        DatastoreCommand::Forget => {
            for folder in moving::forget(&common.data_dir)? {
                println!("removed {}", folder.display());
            }
            Ok(())
        }
    }
}

/// What the server of this board was told.
fn settings(common: Common) -> Outcome<Settings> {
    let mut options = config::server_options(&common)?;
    // Neither command runs pods or goes on as a server does.
    options.disable_agent = true;
    options.datastore.cluster_init = false;
    options.membership.server = None;
    Settings::new(common, options)
}

async fn move_to(common: Common, to: Target) -> Outcome {
    let _lock = Lock::take(&common.data_dir, "moving the datastore")?;
    moving::finish(&common.data_dir)?;
    let settings = settings(common)?;
    let begin = Instant::now();
    let moved = moving::run(&settings, &to).await?;
    println!(
        "moved {} objects in {:.1} s; revisions go on above {}",
        moved.objects,
        begin.elapsed().as_secs_f32(),
        moved.revision
    );
    if let Some(aside) = moved.aside {
        println!("the old data are kept in {}", aside.display());
        println!("      `coracle datastore forget` removes them when all is well");
    }
    if let Target::External(_) = to {
        println!("next: put the URL into the configuration as `datastore-endpoint`");
    } else if matches!(settings.datastore, Datastore::External(_)) {
        println!("next: take `datastore-endpoint` out of the configuration");
    }
    println!("next: start this server (`systemctl start coracle`, or `coracle server`)");
    Ok(())
}

async fn status(common: Common) -> Outcome {
    let settings = settings(common)?;
    let data_dir = &settings.common.data_dir;
    match &settings.datastore {
        Datastore::Sqlite => {
            let folder = data_dir.join("server/db");
            println!("engine      sqlite");
            println!("folder      {}", folder.display());
            for entry in
                std::fs::read_dir(&folder).doing(|| format!("reading {}", folder.display()))?
            {
                let entry = entry.doing(|| format!("reading {}", folder.display()))?;
                let size = entry.metadata().map_or(0, |metadata| metadata.len());
                println!("file        {} ({})", entry.file_name().display(), bytes(size));
            }
            Ok(())
        }
        Datastore::External(endpoint) => {
            let engine = settings.options.datastore.elsewhere(endpoint, data_dir)?;
            let begin = Instant::now();
            let store = server::open_store(&engine).await?;
            println!("engine      {engine}");
            println!("loaded in   {}", millis(begin.elapsed()));
            let begin = Instant::now();
            let revision = store.barrier().await.doing(|| format!("asking {engine}"))?;
            println!("latency     {}", millis(begin.elapsed()));
            println!("revision    {revision}");
            let objects: usize = store.counts().iter().map(|count| count.objects).sum();
            println!("objects     {objects}");
            store.close().await.doing(|| format!("closing {engine}"))
        }
        Datastore::Etcd(_) => etcd_status(&settings).await,
    }
}

async fn etcd_status(settings: &Settings) -> Outcome {
    let place = server::place(settings)?;
    let local = place.local().await?;
    let (members, reached) = match local.members().await {
        Ok(members) => (members, true),
        Err(_) => (etcd::remembered(&place.data_dir), false),
    };
    if members.is_empty() {
        return Err(Failure::new(
            "etcd does not answer on this board, and no other member is known",
        )
        .hint("start the server; its log says what is in the way"));
    }
    let alarms = local.alarms().await.unwrap_or_default();
    let refuses = !alarms.is_empty();
    let seen = etcd::look(members, &place.tls).await;
    println!("engine      etcd, supervised by this server");
    let voters = seen.iter().filter(|(seen, _)| !seen.member.learner).count();
    let alive = seen.iter().filter(|(seen, _)| !seen.member.learner && seen.alive).count();
    let needed = voters / 2 + 1;
    println!("members     {alive} of {voters} answer, {needed} are needed");
    if !reached {
        println!("this board  its etcd does not answer; the list is what was seen last");
    }
    if let Some(advice) = etcd::advice(voters) {
        println!("advice      {advice}");
    }
    println!();
    println!(
        "{:<16} {:<9} {:>10} {:>10} {:>6} {:>10} {:>8}  ADDRESS",
        "NAME", "ROLE", "SIZE", "IN USE", "FRAG", "REVISION", "LATENCY"
    );
    for (seen, status) in &seen {
        println!("{}", line(seen, status.as_ref()));
    }
    for alarm in alarms {
        let (what, id) = match alarm {
            Alarm::NoSpace(id) => ("the database is full", id),
            Alarm::Corrupt(id) => ("holds something else than the others", id),
        };
        let name = seen.iter().find(|(seen, _)| seen.member.id == id);
        println!(
            "alarm       {}: {what}",
            name.map_or("a member", |(seen, _)| seen.member.label())
        );
    }
    match (alive < needed, refuses) {
        (true, _) => Err(Failure::new("too few members answer: nothing can be written").hint(
            "start the servers that do not answer; if they are lost for good, \
                   `coracle server --cluster-reset` on one that is left",
        )),
        (false, true) => Err(Failure::new("an alarm is on: nothing can be written").hint(
            "the servers see to it by themselves within a minute; where a database stays full, \
             delete what is not needed, or restart all servers with a larger --etcd-quota",
        )),
        (false, false) => Ok(()),
    }
}

fn line(Seen { member, .. }: &Seen, status: Option<&Status>) -> String {
    let Member { peer_url, .. } = member;
    let Some(status) = status else {
        return format!("{:<16} {:<9} {:>58}{peer_url}", member.label(), "away", "");
    };
    let role = match (member.learner, status.leader == status.id) {
        (true, _) => "learner",
        (false, true) => "leader",
        (false, false) => "follower",
    };
    let fragmented = 100 * status.size.saturating_sub(status.used) / status.size.max(1);
    format!(
        "{:<16} {:<9} {:>10} {:>10} {:>5}% {:>10} {:>8}  {peer_url}",
        member.label(),
        role,
        bytes(status.size),
        bytes(status.used),
        fragmented,
        status.revision,
        millis(status.took)
    )
}

fn bytes(count: u64) -> String {
    format!("{:.1} MiB", count as f64 / f64::from(1 << 20))
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
