//! Compare-and-swap for drivers that decide themselves: each proposal upon the ones before it.

use std::collections::HashMap;

use bytes::Bytes;

use crate::driver::{Change, Ground, Proposal, Verdict};
use crate::{Expect, Key, Revision};

/// An object as far as a decision needs it.
#[derive(Clone)]
struct Mark {
    created: Revision,
    revision: Revision,
    value: Bytes,
}

/// Decides a batch upon `ground`: the changes to make, and a verdict each as if they were made.
/// Counts on from `last`.
pub(crate) fn decide(
    batch: Vec<Proposal>,
    ground: &dyn Ground,
    last: &mut Revision,
) -> (Vec<Change>, Vec<Verdict>) {
    let mut marks: HashMap<Key, Option<Mark>> = HashMap::new();
    let mut changes = Vec::with_capacity(batch.len());
    let mut verdicts = Vec::with_capacity(batch.len());
    for Proposal { key, expect, value } in batch {
        let mark = marks.entry(key.clone()).or_insert_with(|| {
            ground.entry(&key).map(|e| Mark {
                created: e.created,
                revision: e.revision,
                value: e.value.clone(),
            })
        });
        if let Err(refused) = judge(mark.as_ref(), expect, value.is_some()) {
            verdicts.push(refused);
            continue;
        }
        *last += 1;
        let revision = *last;
        let created = mark.as_ref().map_or(revision, |m| m.created);
        let made = value.clone().map(|value| Mark { created, revision, value });
        let before = std::mem::replace(mark, made);
        changes.push(Change { key: key.clone(), created, revision, value: value.clone() });
        let value = value.or(before.map(|b| b.value));
        verdicts.push(Verdict::Applied(Change { key, created, revision, value }));
    }
    (changes, verdicts)
}

/// Whether a proposal may go ahead.
fn judge(mark: Option<&Mark>, expect: Expect, put: bool) -> Result<(), Verdict> {
    match (mark, expect) {
        (None, _) if !put => Err(Verdict::NotFound),
        (None, Expect::Revision(_)) | (Some(_), Expect::Absent) => Err(Verdict::Conflict),
        (Some(mark), Expect::Revision(r)) if mark.revision != r => Err(Verdict::Conflict),
        _ => Ok(()),
    }
}
