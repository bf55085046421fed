//! Who may join the cluster's etcd, and what has to go first: decided from what was seen, without
//! touching anything.

use super::admin::Member;

/// A member and whether it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The member.
    pub member: Member,
    /// Whether it answers right now.
    pub alive: bool,
}

/// What a server that wants to join has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joining {
    /// Remove these, which are what is left of an earlier life of this board, then add itself.
    Add {
        /// What has to go first.
        stale: Vec<Member>,
    },
    /// Try again a little later.
    Wait(String),
    /// It cannot be.
    Refuse {
        /// Why.
        why: String,
        /// What a person can do about it.
        hint: String,
    },
}

/// Decides how the board called `name`, whose etcd will be at `peer_url`, joins.
pub fn join(name: &str, peer_url: &str, seen: &[Seen]) -> Joining {
    let own = |seen: &Seen| seen.member.name == name || seen.member.peer_url == peer_url;
    if let Some(twin) = seen.iter().find(|seen| own(seen) && seen.alive) {
        return refuse(
            format!(
                "a server called {:?} is running at {}",
                twin.member.label(),
                twin.member.peer_url
            ),
            "give this board a name and an address of its own (--node-name, --node-ip)".into(),
        );
    }
    let (voters, alive) = votes(seen);
    if alive < majority(voters) {
        return refuse(
            format!("only {alive} of the cluster's {voters} servers answer, which is no majority"),
            format!(
                "start {} first; if they are gone for good, `coracle server --cluster-reset` on \
                 one that is left",
                names(seen.iter().filter(|seen| !seen.alive))
            ),
        );
    }
    let mut others = seen.iter().filter(|seen| !own(seen) && !seen.member.learner);
    if let Some(dead) = others.find(|seen| !seen.alive) {
        let name = dead.member.label();
        return refuse(
            format!(
                "the server {name} does not answer; with one more server beside it, the cluster \
                 would stop at the next failure"
            ),
            format!("start {name}, or take it out with `kubectl delete node {name}`; then join"),
        );
    }
    let mut others = seen.iter().filter(|seen| !own(seen));
    if let Some(learner) = others.find(|seen| seen.member.learner) {
        return Joining::Wait(format!("the server {} is joining", learner.member.label()));
    }
    Joining::Add { stale: seen.iter().filter(|seen| own(seen)).map(|s| s.member.clone()).collect() }
}

/// Whether a member can go without the rest coming to a stop; else why not.
pub fn may_leave(id: u64, seen: &[Seen]) -> Result<(), String> {
    let Some(leaving) = seen.iter().find(|seen| seen.member.id == id) else { return Ok(()) };
    if leaving.member.learner {
        return Ok(());
    }
    let (voters, alive) = votes(seen);
    let (rest, rest_alive) = (voters - 1, alive - usize::from(leaving.alive));
    match rest {
        0 => Err("it is the only server".into()),
        _ if alive < majority(voters) => {
            Err(format!("only {alive} of {voters} servers answer, which is no majority"))
        }
        _ if rest_alive < majority(rest) => Err(format!(
            "of the {rest} servers that stay only {rest_alive} answer, which is no majority"
        )),
        _ => Ok(()),
    }
}

/// What a cluster of so many servers should be told.
pub fn advice(voters: usize) -> Option<String> {
    (voters > 0 && voters.is_multiple_of(2)).then(|| {
        format!(
            "the cluster has {voters} servers: it works, but an even number gains nothing; like \
             {}, it survives the loss of {}",
            voters - 1,
            (voters - 1) / 2
        )
    })
}

/// How many servers have to answer.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Those with a vote, and how many of them answer.
fn votes(seen: &[Seen]) -> (usize, usize) {
    let voters = seen.iter().filter(|seen| !seen.member.learner);
    voters.fold((0, 0), |(all, alive), seen| (all + 1, alive + usize::from(seen.alive)))
}

fn names<'a>(seen: impl Iterator<Item = &'a Seen>) -> String {
    seen.map(|seen| seen.member.label()).collect::<Vec<_>>().join(", ")
}

fn refuse(why: String, hint: String) -> Joining {
    Joining::Refuse { why, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members as words: `a` answers, `a!` does not, `a+` is a learner.
    fn seen(words: &str) -> Vec<Seen> {
        let one = |(i, word): (usize, &str)| {
            let name = word.trim_end_matches(['!', '+']);
            let (dead, learner) = (word.contains('!'), word.contains('+'));
            let member = Member {
                id: i as u64 + 1,
                name: name.to_owned(),
                peer_url: format!("https://{name}:2380"),
                client_url: None,
                learner,
            };
            Seen { member, alive: !dead }
        };
        words.split_whitespace().enumerate().map(one).collect()
    }

    fn joined(name: &str, members: &str) -> String {
        match join(name, &format!("https://{name}:2380"), &seen(members)) {
            Joining::Add { stale } if stale.is_empty() => "add".into(),
            Joining::Add { stale } => {
                format!(
                    "add after {}",
                    stale.iter().map(|m| m.label()).collect::<Vec<_>>().join(" ")
                )
            }
            Joining::Wait(why) => format!("wait: {why}"),
            Joining::Refuse { why, .. } => format!("refuse: {why}"),
        }
    }

    #[test]
    fn who_may_join() {
        let unsafe_now = "refuse: the server c does not answer; with one more server beside it, \
                          the cluster would stop at the next failure";
        for (name, members, expected) in [
            ("b", "a", "add"),
            ("d", "a b c", "add"),
            ("c", "a b c", "refuse: a server called \"c\" is running at https://c:2380"),
            ("c", "a b c!", "add after c"),
            ("d", "a b c!", unsafe_now),
            (
                "c",
                "a b! c!",
                "refuse: only 1 of the cluster's 3 servers answer, which is no majority",
            ),
            ("b", "a b!", "refuse: only 1 of the cluster's 2 servers answer, which is no majority"),
            ("c", "a b+", "wait: the server b is joining"),
            ("b", "a b+!", "add after b"),
            ("c", "a b+!", "wait: the server b is joining"),
        ] {
            assert_eq!(joined(name, members), expected, "{name} to {members}");
        }
    }

    #[test]
    fn a_board_of_another_name_takes_the_place_at_its_address() {
        let mut members = seen("a b! c");
        members[1].member.name = String::new();
        let Joining::Add { stale } = join("new", "https://b:2380", &members) else {
            panic!("it may join")
        };
        assert_eq!(stale.len(), 1);
    }

    #[test]
    fn who_may_leave() {
        for (members, expected) in [
            ("a", "it is the only server"),
            ("a b", ""),
            ("a b!", "only 1 of 2 servers answer, which is no majority"),
            ("a b c", ""),
            ("a b! c", "of the 2 servers that stay only 1 answer, which is no majority"),
            ("a! b c", ""),
            ("a+ b!", ""),
        ] {
            let decided = may_leave(1, &seen(members)).err().unwrap_or_default();
            assert_eq!(decided, expected, "a leaves {members}");
        }
    }

    #[test]
    fn an_even_number_is_advised_against() {
        assert_eq!(advice(3), None);
        let said = advice(4).expect("advice");
        assert!(said.contains("like 3, it survives the loss of 1"), "{said}");
    }
}
