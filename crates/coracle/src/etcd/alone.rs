//! Getting a member going again whose files are damaged and that has no others to fetch them from:
//! by what the files still hold. The old ones are kept, and what is lost is said.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::line::Start;
use super::place::{self, Aside, Place};
use super::torn::{self, Files, Mend};
use crate::failure::{Failure, Hint, Outcome, While};

/// Where a member is made of what is left of another, in the server's folder.
const MAKING: &str = "server/etcd.mending";
/// The programs that make a member of a database, the one of newer releases first.
const TOOLS: [&str; 2] = ["etcdutl", "etcdctl"];

/// Mends the files of a member without others; `what` is what is wrong with them.
pub async fn mend(place: &Place, what: &str) -> Outcome<Start> {
    let folder = &place.folder;
    let doing = || format!("mending etcd's data in {}", folder.display());
    let files = Files::look(folder).doing(doing)?;
    let Some(mend) = files.mend() else { return Err(beyond_help(place, what)) };
    let kept = keep(place).doing(doing).hint(|| {
        "the damaged files are copied first: make room on the disk, then start again".into()
    })?;
    match mend {
        Mend::Shorten(last) => {
            files.shorten(folder).doing(doing)?;
            tracing::error!(
                "etcd's log goes on from entry {last}, the last whole one; what was written after \
                 it is lost (the files as they were: {kept})"
            );
        }
        Mend::Replay => {
            Files::replay(folder).doing(doing)?;
            tracing::error!(
                "etcd's database is made anew from its log, which holds everything since the \
                 beginning: nothing is lost (the files as they were: {kept})"
            );
        }
        Mend::Rebuild(applied) => {
            rebuild(place, what).await?;
            tracing::error!(
                "etcd goes on with its database alone, which has everything up to entry \
                 {applied}; what was written in the last seconds may be lost (the files as they \
                 were: {kept})"
            );
        }
    }
    Ok(Start::Again)
}

/// What is said where neither is of use.
pub fn beyond_help(place: &Place, what: &str) -> Failure {
    Failure::new(format!(
        "etcd's data in {} are damaged ({what}), its log and its database are of no use without \
         each other, and there is no other server to fetch them from",
        place.folder.display()
    ))
    .hint(
        "`coracle snapshot list` names the snapshots there are; `coracle snapshot restore \
         --replace` goes back to the newest one, which is the state of its time, and keeps what \
         is here",
    )
}

/// Copies the member's files, since mending them changes them.
fn keep(place: &Place) -> io::Result<String> {
    let kept = Aside::Damaged.folder(&place.data_dir);
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
    }
    copy(&place.folder, &kept)?;
    Ok(kept.display().to_string())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// Makes a member of the database by etcd's own program.
async fn rebuild(place: &Place, what: &str) -> Outcome {
    let folder = &place.folder;
    let tool = TOOLS.iter().find_map(|tool| place::find(tool)).ok_or_else(|| {
        Failure::new(format!(
            "etcd's log in {} is damaged ({what}), but its database is not",
            folder.display()
        ))
        .hint(
            "`apt install etcd-client`, then start again: a new member is made of the database; \
             without it, `coracle snapshot restore --replace` goes back to the newest snapshot",
        )
    })?;
    let making = place.data_dir.join(MAKING);
    let doing = || format!("making a new member of {}", torn::database(folder).display());
    if making.exists() {
        fs::remove_dir_all(&making).doing(doing)?;
    }
    let peer = place.peer_url();
    let out = Command::new(&tool)
        .env("ETCDCTL_API", "3")
        .args(["snapshot", "restore", "--skip-hash-check", "--name", &place.name])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("{}={peer}", place.name)])
        .arg("--data-dir")
        .arg(&making)
        .arg(torn::database(folder))
        .stdin(Stdio::null())
        .output()
        .await
        .doing(doing)?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let said = said.lines().last().unwrap_or_default().to_owned();
        return Err(Failure::new(format!("{}: {} says: {said}", doing(), tool.display()))
            .hint("`coracle snapshot restore --replace` goes back to the newest snapshot"));
    }
    // It is a copy of what is kept aside already.
    fs::remove_dir_all(folder).doing(doing)?;
    fs::rename(&making, folder).doing(doing)
}
