//! Which authorities a member trusts. etcd reads its leaf anew for each connection but the
//! authorities only when it starts, so members start again one after the other when these change.
//!
//! Each member says in etcd itself whom it trusts, and the one that starts again holds a turn
//! there. The Lease of the controllers was turned down for that: it needs the API, which needs the
//! member. A leaf of a new authority carries the old one's word for it, so it may be shown before
//! all members trust the new one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::sync::Notify;

use super::admin::{Admin, Member};
use super::kin;
use super::membership::Seen;
use super::place::Place;
use crate::failure::{Outcome, While};
use crate::pki::Pki;

/// How often a member looks whether it is its turn, while it waits for that.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A member, and what is known of its trust.
#[derive(Debug, Clone)]
pub struct Trusting {
    /// The member, and whether it answers.
    pub seen: Seen,
    /// The leader that it follows; 0 where it knows none.
    pub leader: u64,
    /// The digest of the authorities that it trusts, once it has said so.
    pub trusts: Option<String>,
}

/// What a member that trusts others than it should has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// Wait, for this reason.
    Wait(String),
    /// Start again.
    Restart,
}

/// Decides whether the member `own` may start again to trust `wanted`: all must be well, since
/// one is away meanwhile, and the leader comes last, since each change of it holds writes up.
fn next(own: u64, wanted: &str, members: &[Trusting]) -> Next {
    let leader = members.iter().find(|m| m.seen.member.id == own).map_or(0, |own| own.leader);
    for one in members.iter().filter(|one| one.seen.member.id != own) {
        let label = one.seen.member.label();
        if !one.seen.alive {
            return Next::Wait(format!("{label} does not answer"));
        }
        if one.seen.member.learner {
            return Next::Wait(format!("{label} is joining"));
        }
        if one.leader != leader {
            return Next::Wait(format!("{label} follows another leader"));
        }
        if leader == own && one.trusts.as_deref() != Some(wanted) {
            return Next::Wait(format!("{label} goes first"));
        }
    }
    match leader {
        0 => Next::Wait("there is no leader".into()),
        _ => Next::Restart,
    }
}

/// What tells one bundle of authorities from another.
pub fn digest_of(bundle: &[u8]) -> String {
    crate::join::token::hex(digest(&SHA256, bundle).as_ref())
}

/// The labels of those members that have not said that they trust exactly these authorities.
pub async fn not_trusting(place: &Place, bundle: &str) -> Outcome<Vec<String>> {
    let local = place.local().await?;
    let (members, said) = (local.members().await?, local.trust().await?);
    let wanted = digest_of(bundle.as_bytes());
    let missing = members.iter().filter(|member| said.of.get(&member.id) != Some(&wanted));
    Ok(missing.map(|member| member.label().to_owned()).collect())
}

/// What a server's member is told when the cluster's keys have changed.
#[derive(Clone)]
pub struct Renewal {
    pub(super) place: Place,
    pub(super) changed: Arc<Notify>,
}

impl Renewal {
    /// Makes the member's leaf anew where it is due, and has the member look whom it should trust.
    pub fn renew(&self, pki: &Pki) -> Outcome {
        self.place.certify(pki)?;
        self.changed.notify_one();
        Ok(())
    }
}

/// Says whom this member trusts, which it took in when it started, and returns when it is its
/// turn to start again with others.
pub async fn until_restart(place: &Place, trusted: &[u8], changed: &Notify) {
    let trusted = digest_of(trusted);
    let mut said = String::new();
    loop {
        match look(place, &trusted).await {
            Ok(None) => {
                changed.notified().await;
                continue;
            }
            Ok(Some(Next::Restart)) => return,
            Ok(Some(Next::Wait(why))) if why != said => {
                tracing::info!("etcd waits to take the cluster's new authorities: {why}");
                said = why;
            }
            Ok(Some(Next::Wait(_))) => {}
            Err(failure) => {
                tracing::debug!(error = %base::chain(&failure), "etcd's trust was not looked at");
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// One look: `None` where everything is as it should be, and said.
async fn look(place: &Place, trusted: &str) -> Outcome<Option<Next>> {
    let file = |path: &Path| std::fs::read(path).doing(|| format!("reading {}", path.display()));
    let bundle = file(&place.tls.ca)?;
    let wanted = digest_of(&bundle);
    let local = place.local().await?;
    let own = local.status().await?.id;
    if wanted == trusted {
        let leaf = file(&place.tls.cert)?;
        let [leaf, bundle] = [leaf, bundle].map(|pem| String::from_utf8_lossy(&pem).into_owned());
        // Who confirms the new authority has to show a leaf of it, too: the old one may end.
        if !crate::pki::is_issued_by(&leaf, &bundle) {
            return Ok(Some(Next::Wait("the certificate is made anew first".into())));
        }
        confirm(&local, own, trusted).await?;
        return Ok(None);
    }
    let next = decide(&local, place, own, &wanted).await?;
    if next != Next::Restart {
        return Ok(Some(next));
    }
    if !local.take_turn(own).await? {
        return Ok(Some(Next::Wait("another server starts again".into())));
    }
    // Another may have had its turn since the look above.
    let next = decide(&local, place, own, &wanted).await?;
    if next != Next::Restart {
        local.end_turn(own).await?;
    }
    Ok(Some(next))
}

/// Says whom the member trusts, once it serves: its turn ends with that.
async fn confirm(local: &Admin, own: u64, trusted: &str) -> Outcome {
    let said = local.trust().await?;
    if said.of.get(&own).map(String::as_str) != Some(trusted) {
        local.say_trust(own, trusted).await?;
    }
    if said.turn == Some(own) {
        local.end_turn(own).await?;
    }
    Ok(())
}

async fn decide(local: &Admin, place: &Place, own: u64, wanted: &str) -> Outcome<Next> {
    let members: Vec<Member> = local.members().await?;
    let mut said: BTreeMap<u64, String> = local.trust().await?.of;
    let seen = kin::look(members, &place.tls).await;
    let trusting = seen.into_iter().map(|(seen, status)| Trusting {
        leader: status.map_or(0, |status| status.leader),
        trusts: said.remove(&seen.member.id),
        seen,
    });
    Ok(next(own, wanted, &trusting.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members as words, numbered from 1: `a` trusts the new, `a-` the old, `a?` has not said;
    /// `!` does not answer, `+` is a learner, `~` knows no leader.
    fn members(words: &str, leader: u64) -> Vec<Trusting> {
        let one = |(i, word): (usize, &str)| Trusting {
            leader: if word.contains(['~', '!']) { 0 } else { leader },
            trusts: (!word.contains('?'))
                .then(|| if word.contains('-') { "old" } else { "new" }.to_owned()),
            seen: Seen {
                alive: !word.contains('!'),
                member: Member {
                    id: i as u64 + 1,
                    name: word[..1].to_owned(),
                    peer_url: String::new(),
                    client_url: None,
                    learner: word.contains('+'),
                },
            },
        };
        words.split_whitespace().enumerate().map(one).collect()
    }

    /// What each member that trusts the old would do, in the members' order.
    fn all(words: &str, leader: u64) -> String {
        let members = members(words, leader);
        let stale = members.iter().filter(|one| one.trusts.as_deref() != Some("new"));
        let shown = stale.map(|one| match next(one.seen.member.id, "new", &members) {
            Next::Restart => format!("{} restarts", one.seen.member.name),
            Next::Wait(why) => format!("{}: {why}", one.seen.member.name),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn members_start_again_while_all_are_well_and_the_leader_last() {
        for (words, leader, expected) in [
            ("a-", 1, "a restarts"),
            ("a-", 0, "a: there is no leader"),
            // Who of those that may is the one is settled by the turn that it takes.
            ("a- b- c-", 1, "a: b goes first, b restarts, c restarts"),
            ("a- b c-", 1, "a: c goes first, c restarts"),
            ("a- b c?", 1, "a: c goes first, c restarts"),
            ("a- b c", 1, "a restarts"),
            ("a- b c", 2, "a restarts"),
            ("a b- c!", 1, "b: c does not answer"),
            ("a b- c-!", 1, "b: c does not answer, c: a follows another leader"),
            ("a b- c~", 1, "b: c follows another leader"),
            ("a b- c+", 1, "b: c is joining"),
            ("a b c", 1, ""),
        ] {
            assert_eq!(all(words, leader), expected, "{words:?} led by {leader}");
        }
    }
}
