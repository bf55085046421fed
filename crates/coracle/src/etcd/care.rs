//! The care of the cluster's etcd, by the server whose member leads it: alarms, fragments, and
//! members that never came up. It does not wait for the Lease of the controllers, since with a
//! full database no Lease can be written.

use super::admin::{Admin, Alarm, Content, Member, Status};
use super::membership::Seen;
use super::place::Place;
use crate::failure::Outcome;

/// What a database may waste before it is rewritten, in bytes. Below this, nobody gains from it.
const FRAGMENTS_MIN_BYTES: u64 = 16 << 20;
/// Writes between two looks, up to which etcd counts as idle: heartbeats alone are some 50.
const IDLE_WRITES: u64 = 600;
/// Of the quota, in percent: below this an alarm for a full database is taken back.
const ROOMY_PERCENT: u64 = 80;
/// Looks after which a member that has never come up is removed, so that others can join.
const LEARNER_LOOKS: u32 = 5;

/// What is known of the cluster's etcd at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Its members.
    pub members: Vec<(Seen, Option<Status>)>,
    /// Alarms that are on.
    pub alarms: Vec<Alarm>,
    /// The number of the leader, which is this server's.
    pub leader: u64,
    /// How much was written since the last look.
    pub writes: u64,
    /// For how many looks the same member has been without a vote and without an answer.
    pub learner_looks: u32,
    /// How large a database may be.
    pub quota: u64,
    /// The newest revision.
    pub revision: u64,
    /// The members that hold something else than the rest, where that was looked into.
    pub odd: Option<Vec<u64>>,
    /// The revision at which space was made last. Until something is deleted there is no more.
    pub spared: u64,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Forget old revisions and rewrite every database, since one is full.
    MakeSpace,
    /// Take back an alarm whose cause is gone.
    Disarm(Alarm),
    /// Rewrite the database of this member.
    Defragment(Member),
    /// Remove a member that has never come up.
    RemoveLearner(Member),
}

/// The members that hold something else than the rest: than most members, or than the leader where
/// there is no majority, which is etcd's own rule. `None` where too little is known.
pub fn odd(contents: &[(u64, Option<Content>)], leader: u64) -> Option<Vec<u64>> {
    let known = || contents.iter().filter_map(|(id, content)| Some((*id, (*content)?)));
    let holders = |of: Content| known().filter(|(_, content)| *content == of).count();
    let common = known()
        .map(|(_, content)| content)
        .find(|content| holders(*content) * 2 > contents.len())
        .or_else(|| known().find(|(id, _)| *id == leader).map(|(_, content)| content))
        .filter(|_| known().count() * 2 > contents.len())?;
    // Counted from elsewhere, checksums cannot be compared.
    let differs = |content: Content| content.compacted == common.compacted && content != common;
    Some(known().filter(|(_, content)| differs(*content)).map(|(id, _)| id).collect())
}

/// Whether a member holds what most hold. `None` where too little is known, of it or of the rest.
pub fn agrees(contents: &[(u64, Option<Content>)], leader: u64, id: u64) -> Option<bool> {
    let odd = odd(contents, leader)?;
    contents.iter().any(|(of, content)| *of == id && content.is_some()).then(|| !odd.contains(&id))
}

/// Decides what to do next; at most one thing, so that at most one member is busy with it.
pub fn decide(view: &View) -> Option<Act> {
    let statuses = || view.members.iter().filter_map(|(_, status)| status.as_ref());
    for alarm in &view.alarms {
        let done = match alarm {
            Alarm::NoSpace(_) => {
                statuses().all(|status| status.size < view.quota / 100 * ROOMY_PERCENT)
            }
            Alarm::Corrupt(_) => view.odd.as_ref().is_some_and(Vec::is_empty),
        };
        match (done, alarm) {
            (true, _) => return Some(Act::Disarm(*alarm)),
            (false, Alarm::NoSpace(_)) if view.revision != view.spared => {
                return Some(Act::MakeSpace);
            }
            (false, Alarm::NoSpace(_)) => {}
            // The member's own server rebuilds it.
            (false, Alarm::Corrupt(_)) => {}
        }
    }
    let away = view.members.iter().find(|(seen, _)| seen.member.learner && !seen.alive);
    if let Some((away, _)) = away.filter(|_| view.learner_looks >= LEARNER_LOOKS) {
        return Some(Act::RemoveLearner(away.member.clone()));
    }
    let calm = view.writes <= IDLE_WRITES && view.members.iter().all(|(seen, _)| seen.alive);
    if !calm {
        return None;
    }
    let fragmented = |status: &Status| {
        let wasted = status.size.saturating_sub(status.used);
        wasted >= FRAGMENTS_MIN_BYTES && wasted >= status.used
    };
    // The leader last: while it is busy, nobody writes.
    let mut order: Vec<_> = view.members.iter().collect();
    order.sort_by_key(|(seen, _)| seen.member.id == view.leader);
    let (seen, _) =
        order.into_iter().find(|(_, status)| status.as_ref().is_some_and(fragmented))?;
    Some(Act::Defragment(seen.member.clone()))
}

/// Does it.
pub async fn act(act: Act, view: &View, place: &Place, local: &Admin) -> Outcome {
    match act {
        Act::MakeSpace => {
            tracing::error!(
                "etcd's database is full: old revisions are removed; until there is space again, \
                 nothing can be written"
            );
            local.compact(local.status().await?.revision).await?;
            for (seen, _) in &view.members {
                defragment(&seen.member, place).await?;
            }
            let size = local.status().await?.size;
            if size >= view.quota / 100 * ROOMY_PERCENT {
                tracing::error!(
                    "etcd's database still takes {} MiB of {}, and {} is what it may to be written to \
                     again: delete what is not needed (old ConfigMaps, Secrets, Jobs), or restart \
                     all servers with a larger --etcd-quota",
                    size >> 20,
                    view.quota >> 20,
                    (view.quota / 100 * ROOMY_PERCENT) >> 20
                );
            }
            Ok(())
        }
        Act::Disarm(alarm) => {
            tracing::warn!(?alarm, "etcd's alarm is taken back: its cause is gone");
            local.disarm(alarm).await
        }
        Act::Defragment(member) => defragment(&member, place).await,
        Act::RemoveLearner(member) => {
            tracing::warn!("{} has not come up and is removed from etcd", member.label());
            local.remove(&member).await
        }
    }
}

async fn defragment(member: &Member, place: &Place) -> Outcome {
    let Some(url) = member.client_url.clone() else { return Ok(()) };
    let begin = std::time::Instant::now();
    Admin::new(&[url], &place.tls).await?.defragment().await?;
    let took = begin.elapsed().as_secs_f32();
    tracing::info!("rewrote the database of {} in {took:.1} s", member.label());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Members as (words, size, used): number 1 leads; `!` does not answer, `+` is a learner.
    fn view(members: &[(&str, u64, u64)]) -> View {
        let one = |(i, (word, size, used)): (usize, &(&str, u64, u64))| {
            let id = i as u64 + 1;
            let member = Member {
                id,
                name: word.trim_end_matches(['!', '+']).to_owned(),
                peer_url: String::new(),
                client_url: None,
                learner: word.contains('+'),
            };
            let alive = !word.contains('!');
            let (size, used, took) = (size * MIB, used * MIB, Duration::ZERO);
            let status =
                Status { id, leader: 1, size, used, revision: 9, learner: member.learner, took };
            (Seen { member, alive }, alive.then_some(status))
        };
        View {
            members: members.iter().enumerate().map(one).collect(),
            alarms: Vec::new(),
            leader: 1,
            writes: 50,
            learner_looks: 0,
            quota: 100 * MIB,
            revision: 9,
            odd: None,
            spared: 0,
        }
    }

    fn shown(view: &View) -> String {
        match decide(view) {
            None => "nothing".into(),
            Some(Act::MakeSpace) => "make space".into(),
            Some(Act::Disarm(alarm)) => format!("disarm {alarm:?}"),
            Some(Act::Defragment(member)) => format!("defragment {}", member.name),
            Some(Act::RemoveLearner(member)) => format!("remove {}", member.name),
        }
    }

    #[test]
    fn fragments_are_removed_one_member_at_a_time_and_the_leader_last() {
        for (members, expected) in [
            ([("a", 40, 10), ("b", 40, 10), ("c", 12, 10)], "defragment b"),
            ([("a", 40, 10), ("b", 12, 10), ("c", 12, 10)], "defragment a"),
            ([("a", 40, 10), ("b", 40, 10), ("c!", 0, 0)], "nothing"),
            ([("a", 14, 1), ("b", 14, 1), ("c", 14, 1)], "nothing"),
            ([("a", 70, 50), ("b", 70, 50), ("c", 70, 50)], "nothing"),
        ] {
            assert_eq!(shown(&view(&members)), expected, "{members:?}");
        }
        let mut busy = view(&[("a", 40, 10), ("b", 40, 10)]);
        busy.writes = 10_000;
        assert_eq!(shown(&busy), "nothing");
    }

    #[test]
    fn alarms() {
        let mut full = view(&[("a", 99, 90), ("b", 60, 50)]);
        full.alarms = vec![Alarm::NoSpace(1)];
        assert_eq!(shown(&full), "make space");
        full.spared = full.revision;
        assert_eq!(shown(&full), "nothing", "until something is deleted");
        let mut roomy = view(&[("a", 30, 20), ("b", 60, 50)]);
        roomy.alarms = vec![Alarm::NoSpace(1)];
        assert_eq!(shown(&roomy), "disarm NoSpace(1)");
        let mut corrupt = view(&[("a", 9, 9), ("b", 9, 9)]);
        corrupt.alarms = vec![Alarm::Corrupt(2)];
        assert_eq!(shown(&corrupt), "nothing", "nobody has looked");
        corrupt.odd = Some(vec![2]);
        assert_eq!(shown(&corrupt), "nothing", "its own server rebuilds it");
        corrupt.odd = Some(Vec::new());
        assert_eq!(shown(&corrupt), "disarm Corrupt(2)");
    }

    #[test]
    fn who_holds_something_else_is_found_by_the_majority() {
        // What each member holds, from number 1 on, who leads: `a2` is another content than `b2`,
        // both counted from revision 2.
        for (held, leader, expected) in [
            ("a2 a2 a2", 1, Some(vec![])),
            ("a2 a2 b2", 1, Some(vec![3])),
            ("b2 a2 a2", 1, Some(vec![1])),
            ("a2 a2 ?", 1, Some(vec![])),
            ("a2 ? ?", 1, None),
            ("? a2 a2", 2, Some(vec![])),
            ("a2 b2 ?", 2, Some(vec![1])),
            ("a2 b2", 1, Some(vec![2])),
            ("a2 a2 b3", 1, Some(vec![])),
            ("a2", 1, Some(vec![])),
        ] {
            let content = |word: &str| {
                let (hash, compacted) = (word.as_bytes()[0], word[1..].parse().ok()?);
                Some(Content { hash: hash.into(), compacted })
            };
            let words = held.split_whitespace().zip(1..);
            let contents: Vec<_> = words.map(|(word, id)| (id, content(word))).collect();
            assert_eq!(odd(&contents, leader), expected, "{held}, {leader} leads");
            let first = content(held.split_whitespace().next().unwrap_or_default());
            let agreed = expected.filter(|_| first.is_some()).map(|odd| !odd.contains(&1));
            assert_eq!(agrees(&contents, leader, 1), agreed, "{held}, {leader} leads");
        }
    }

    #[test]
    fn a_member_that_never_came_up_makes_room() {
        let mut waiting = view(&[("a", 9, 9), ("b+!", 0, 0)]);
        assert_eq!(shown(&waiting), "nothing");
        waiting.learner_looks = LEARNER_LOOKS;
        assert_eq!(shown(&waiting), "remove b");
    }
}
