//! Nodes and members of etcd, kept in step: a server's Node cannot go before its member has, so
//! that `kubectl delete node` takes a server out of the cluster, whoever leads at that moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::Informers;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::etcd::{self, Place, Seen};
use crate::failure::{Outcome, While};

/// What holds a Node until its member is gone.
const FINALIZER: &str = "coracle.internal/etcd-member";
/// How often members are looked at where no Node changes: a server may join without a Node.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// A Node, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    name: String,
    held: bool,
    deleting: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    /// Mark the Node as one with a member.
    Hold(String),
    /// Remove the member.
    Remove(etcd::Member),
    /// Let the Node go, or forget that it had a member.
    Release(String),
    /// Say why a member cannot go.
    Refuse(String, String),
}

/// Decides what to do. A Node that is let go has no member left at that moment; where a member is
/// removed, the next look does that.
fn plan(nodes: &[Holder], seen: &[Seen]) -> Vec<Act> {
    let act = |node: &Holder| {
        let member = seen.iter().find(|seen| seen.member.name == node.name);
        match (member, node.deleting) {
            (Some(_), false) if !node.held => Some(Act::Hold(node.name.clone())),
            (Some(seen_member), true) if node.held => {
                Some(match etcd::may_leave(seen_member.member.id, seen) {
                    Ok(()) => Act::Remove(seen_member.member.clone()),
                    Err(why) => Act::Refuse(node.name.clone(), why),
                })
            }
            (None, _) if node.held => Some(Act::Release(node.name.clone())),
            _ => None,
        }
    };
    let mut acts: Vec<Act> = nodes.iter().filter_map(act).collect();
    // One member at a time: whether the next may go has to be looked at anew.
    let mut removals = 0;
    acts.retain(|act| {
        removals += usize::from(matches!(act, Act::Remove(_)));
        !matches!(act, Act::Remove(_)) || removals == 1
    });
    acts
}

/// Keeps them in step until `stop`. Without an etcd of ours, Nodes that are still held from
/// before a move are let go.
pub async fn keep(place: Option<Place>, informers: Informers, stop: CancellationToken) {
    let nodes = informers.of::<Node>();
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    nodes.on_change(move |_| notify.notify_one());
    if stop.run_until_cancelled(nodes.synced()).await.is_none() {
        return;
    }
    let api: Api<Node> = Api::all(informers.client().clone());
    let mut said = BTreeMap::new();
    loop {
        let holders: Vec<Holder> = nodes.list().iter().map(|node| holder(node)).collect();
        let again = match step(place.as_ref(), &api, &holders, &mut said).await {
            Ok(true) => Some(RETRY),
            Ok(false) => place.is_some().then_some(LOOK_AGAIN),
            Err(failure) => {
                tracing::debug!(error = %base::chain(&failure), "nodes and members not compared");
                Some(RETRY)
            }
        };
        let pause = async {
            match again {
                Some(again) => tokio::time::sleep(again).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = pause => {}
            () = stop.cancelled() => return,
        }
    }
}

fn holder(node: &Node) -> Holder {
    Holder {
        name: node.name_any(),
        held: node.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
        deleting: node.metadata.deletion_timestamp.is_some(),
    }
}

/// One look. Whether there is more to do soon.
async fn step(
    place: Option<&Place>,
    api: &Api<Node>,
    holders: &[Holder],
    said: &mut BTreeMap<String, String>,
) -> Outcome<bool> {
    if place.is_none() && !holders.iter().any(|holder| holder.held) {
        return Ok(false);
    }
    let seen = match place {
        Some(place) => {
            let members = place.local().await?.members().await?;
            etcd::look(members, &place.tls).await.into_iter().map(|(seen, _)| seen).collect()
        }
        None => Vec::new(),
    };
    let acts = plan(holders, &seen);
    let more = !acts.is_empty();
    for act in acts {
        match act {
            Act::Hold(name) => mark(api, &name, true).await?,
            Act::Release(name) => mark(api, &name, false).await?,
            Act::Remove(member) => {
                tracing::info!("the node {} is deleted: its etcd member goes", member.name);
                if let Some(place) = place {
                    place.local().await?.remove(&member).await?;
                }
            }
            Act::Refuse(name, why) => {
                if said.insert(name.clone(), why.clone()).as_ref() != Some(&why) {
                    tracing::warn!("the node {name} cannot leave the cluster yet: {why}");
                }
            }
        }
    }
    Ok(more)
}

async fn mark(api: &Api<Node>, name: &str, held: bool) -> Outcome {
    let doing = || format!("marking the node {name}");
    let Some(node) = api.get_opt(name).await.doing(doing)? else { return Ok(()) };
    let mut finalizers = node.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if held {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": {
        "resourceVersion": node.resource_version(),
        "finalizers": finalizers,
    } });
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes as words: `a` has a member's mark, `a-` has none, `a~` is marked and deleted.
    fn nodes(words: &str) -> Vec<Holder> {
        let one = |word: &str| Holder {
            name: word.trim_end_matches(['-', '~']).to_owned(),
            held: !word.ends_with('-'),
            deleting: word.ends_with('~'),
        };
        words.split_whitespace().map(one).collect()
    }

    fn seen(words: &str) -> Vec<Seen> {
        let one = |(i, word): (usize, &str)| Seen {
            alive: !word.ends_with('!'),
            member: etcd::Member {
                id: i as u64 + 1,
                name: word.trim_end_matches('!').to_owned(),
                peer_url: String::new(),
                client_url: None,
                learner: false,
            },
        };
        words.split_whitespace().enumerate().map(one).collect()
    }

    fn planned(node_words: &str, members: &str) -> String {
        let shown = |act: Act| match act {
            Act::Hold(name) => format!("hold {name}"),
            Act::Release(name) => format!("release {name}"),
            Act::Remove(member) => format!("remove {}", member.name),
            Act::Refuse(name, why) => format!("refuse {name}: {why}"),
        };
        let acts = plan(&nodes(node_words), &seen(members));
        acts.into_iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_node_goes_after_its_member() {
        for (nodes, members, expected) in [
            ("a b c", "a b c", ""),
            ("a- agent-", "a", "hold a"),
            ("a b c~", "a b c", "remove c"),
            ("a b c~", "a b c!", "remove c"),
            ("a b c~", "a b", "release c"),
            ("a b~ c~", "a b c", "remove b"),
            ("a~", "a", "refuse a: it is the only server"),
            (
                "a b~ c",
                "a b c!",
                "refuse b: of the 2 servers that stay only 1 answer, which is no majority",
            ),
            ("a b", "", "release a, release b"),
        ] {
            assert_eq!(planned(nodes, members), expected, "{nodes} with {members}");
        }
    }
}
