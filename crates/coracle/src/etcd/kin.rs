//! The other members, as this server saw them last: a server whose own data are torn or removed
//! finds the cluster again by them, and one that waits for the others can say for whom.

use std::path::{Path, PathBuf};

use base::kept;
use futures::future::join_all;

use super::admin::{Admin, Content, Member};
use super::line::TlsFiles;
use super::membership::Seen;
use crate::failure::{Outcome, While};

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("server/etcd-members.json")
}

/// The members that were seen last. A file that cannot be read is as good as none: it is written
/// anew from what the cluster says.
pub fn remembered(data_dir: &Path) -> Vec<Member> {
    let content = kept::read(&path(data_dir)).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&content).unwrap_or_default()
}

/// Remembers the members.
pub fn remember(data_dir: &Path, members: &[Member]) -> Outcome {
    let path = path(data_dir);
    let doing = || format!("writing {}", path.display());
    let content = serde_json::to_vec_pretty(members).doing(doing)?;
    kept::write(&path, &content).doing(doing)
}

/// Forgets them.
pub fn forget(data_dir: &Path) {
    // Without the file there is nothing to forget.
    let _ = kept::remove(&path(data_dir));
}

/// The URLs at which these members can be asked.
pub fn client_urls<'a>(members: impl IntoIterator<Item = &'a Member>) -> Vec<String> {
    members.into_iter().filter_map(|member| member.client_url.clone()).collect()
}

/// What each member with a vote holds up to a revision, as far as it answers.
pub async fn contents(
    members: &[Member],
    revision: u64,
    tls: &TlsFiles,
) -> Vec<(u64, Option<Content>)> {
    join_all(members.iter().filter(|member| !member.learner).map(|member| async move {
        let content = async {
            let url = member.client_url.clone()?;
            Admin::new(&[url], tls).await.ok()?.content(revision).await.ok()
        };
        (member.id, content.await)
    }))
    .await
}

/// A client of each member that answers, and how it is.
pub async fn look(
    members: Vec<Member>,
    tls: &TlsFiles,
) -> Vec<(Seen, Option<super::admin::Status>)> {
    join_all(members.into_iter().map(|member| async {
        let status = async {
            let url = member.client_url.clone()?;
            Admin::new(&[url], tls).await.ok()?.status().await.ok()
        };
        let status = status.await.filter(|status| status.id == member.id);
        (Seen { alive: status.is_some(), member }, status)
    }))
    .await
}
