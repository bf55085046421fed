//! One write: a transaction that compares the key's revision, and the truth about it when
//! its answer is lost.
//!
//! A request without an answer may still be carried out later, by a member that hangs and
//! comes back. So every write also compares the fence. Whoever must know writes the fence:
//! from then on what was under way is done or never will be, and reading tells which. Done
//! and written over by others in between is told by the watch, which shows each state of
//! each key; the mark behind a value says whose it is.

use std::time::Instant;

use bytes::Bytes;
use etcd_client::{
    Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use super::Core;
use super::layout::Mark;
use super::members::{Member, RETRY_PAUSE, Trouble};
use crate::driver::{Proposal, Verdict};
use crate::{Change, DriverError, Expect};

/// The state of a key, in etcd's revisions.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) created: i64,
    pub(super) modified: i64,
    pub(super) value: Bytes,
}

/// What a transaction came to.
enum Attempt {
    /// Done at this revision.
    Done(i64),
    /// The key was not as compared but like this, at this revision.
    Found(Option<Known>, i64),
}

/// What became of a write, and the revision that the index must reach to show why.
pub(super) struct Written {
    pub(super) verdict: Verdict,
    pub(super) seen: i64,
    /// Whether it is a deletion.
    pub(super) deleted: bool,
}

impl Core {
    /// Carries out one proposal. `known` is the key's state as far as it is known before, and
    /// is it after.
    pub(super) async fn write(
        &self,
        proposal: &Proposal,
        known: &mut Option<Known>,
        until: Instant,
    ) -> Written {
        let written = self.try_write(proposal, known, until).await;
        written.unwrap_or_else(|verdict| Written { verdict, seen: 0, deleted: false })
    }

    async fn try_write(
        &self,
        proposal: &Proposal,
        known: &mut Option<Known>,
        until: Instant,
    ) -> Result<Written, Verdict> {
        let path = self.layout.path(&proposal.key);
        let deletes = proposal.value.is_none();
        loop {
            let compared = match (proposal.expect, &known) {
                (Expect::Revision(revision), _) => self.to_etcd(revision),
                (Expect::Any, Some(known)) => known.modified,
                (Expect::Any, None) | (Expect::Absent, _) => 0,
            };
            // The index may be behind: what is to be replaced or deleted must be known.
            let at_hand = known.as_ref().map_or(0, |k| k.modified) == compared;
            let look = if compared == 0 { deletes } else { !at_hand };
            let attempt = if look {
                let (now, at, _) = self.look(&path, until).await.map_err(failed)?;
                let found = now.as_ref().map_or(0, |n| n.modified);
                *known = now.clone();
                if found == compared && found != 0 {
                    continue;
                }
                Attempt::Found(now, at)
            } else {
                self.attempt(&path, compared, proposal.value.as_ref(), until).await?
            };
            match attempt {
                Attempt::Done(at) => return Ok(self.done(proposal, known, at)),
                Attempt::Found(now, at) => {
                    let seen = now.as_ref().map_or(at, |n| n.modified);
                    *known = now;
                    if deletes && known.is_none() {
                        return Ok(Written { verdict: Verdict::NotFound, seen, deleted: true });
                    }
                    if !matches!(proposal.expect, Expect::Any) {
                        return Ok(Written { verdict: Verdict::Conflict, seen, deleted: deletes });
                    }
                }
            }
            if Instant::now() >= until {
                return Err(failed(self.overtaken()));
            }
        }
    }

    /// Notes what a write has made of the key.
    fn done(&self, proposal: &Proposal, known: &mut Option<Known>, at: i64) -> Written {
        let before = known.take().filter(|_| !matches!(proposal.expect, Expect::Absent));
        let created = before.as_ref().map_or(at, |b| b.created);
        let made = |value| Known { created, modified: at, value };
        *known = proposal.value.clone().map(made);
        let value = proposal.value.clone().or(before.map(|b| b.value));
        let (created, revision) = (self.to_revision(created), self.to_revision(at));
        let change = Change { key: proposal.key.clone(), created, revision, value };
        let deleted = proposal.value.is_none();
        Written { verdict: Verdict::Applied(change), seen: at, deleted }
    }

    /// Tries to write a key that is at revision `compared` (0: absent).
    async fn attempt(
        &self,
        path: &str,
        compared: i64,
        value: Option<&Bytes>,
        until: Instant,
    ) -> Result<Attempt, Verdict> {
        let mut marked = true;
        loop {
            let fence = self.fence();
            let open = self.ledger.begin();
            let mark = marked.then(|| open.mark());
            let txn = self.transaction(path, (compared, fence), value, mark);
            let answer = self.members.request("write to", |m| async move { m.kv().txn(txn).await });
            let error = match answer.await {
                Ok(answer) => {
                    self.feed().alive();
                    match self.read(&answer, compared) {
                        Some(attempt) => return Ok(attempt),
                        None => continue,
                    }
                }
                Err(Trouble::TooLarge) => return Err(Verdict::TooLarge),
                // In a full database nothing is written beside a deletion, or none were possible.
                Err(Trouble::Full(_)) if value.is_none() && marked => {
                    marked = false;
                    continue;
                }
                Err(Trouble::Refused(error) | Trouble::Full(error)) => return Err(failed(error)),
                Err(Trouble::NotTaken(error)) => error,
                Err(Trouble::Open(error)) if !marked => {
                    self.feed().failing(&error);
                    return Err(Verdict::Unresolved(error.into()));
                }
                Err(Trouble::Open(error)) => {
                    self.feed().failing(&error);
                    match self.settle(path, (compared, fence), open.mark(), until).await {
                        Ok(Some(at)) => return Ok(Attempt::Done(at)),
                        Ok(None) => error,
                        Err(unknown) => return Err(Verdict::Unresolved(unknown.into())),
                    }
                }
            };
            if Instant::now() + RETRY_PAUSE >= until {
                return Err(failed(error));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Reads a transaction's answer; `None` if nothing but the fence was in the way.
    fn read(&self, answer: &TxnResponse, compared: i64) -> Option<Attempt> {
        let at = answer.header().map_or(0, |h| h.revision());
        if answer.succeeded() {
            return Some(Attempt::Done(at));
        }
        let mut states = answer.op_responses().into_iter().filter_map(|response| match response {
            TxnOpResponse::Get(get) => Some(get.kvs().first().map(|kv| state(kv).0)),
            _ => None,
        });
        let now = states.next().flatten();
        self.set_fence(states.next().flatten().map_or(0, |fence| fence.modified));
        let found = now.as_ref().map_or(0, |n| n.modified);
        (found != compared).then_some(Attempt::Found(now, at))
    }

    fn transaction(
        &self,
        path: &str,
        (compared, fence): (i64, i64),
        value: Option<&Bytes>,
        mark: Option<Mark>,
    ) -> Txn {
        let noted = |mark: Mark| TxnOp::put(&*self.layout.deleted, mark.to_string(), None);
        let operations: Vec<TxnOp> = match value {
            Some(value) => {
                let plain = || value.to_vec();
                let value = mark.map_or_else(plain, |mark| mark.put_behind(value));
                vec![TxnOp::put(path, value, None)]
            }
            None => [TxnOp::delete(path, None)].into_iter().chain(mark.map(noted)).collect(),
        };
        let fenced = Compare::mod_revision(&*self.layout.fence, CompareOp::Equal, fence);
        Txn::new()
            .when([Compare::mod_revision(path, CompareOp::Equal, compared), fenced])
            .and_then(operations)
            .or_else([TxnOp::get(path, None), TxnOp::get(&*self.layout.fence, None)])
    }

    /// Finds out whether an attempt without an answer was carried out: its revision, or
    /// `None` if it was not and never will be.
    async fn settle(
        &self,
        path: &str,
        (compared, fence): (i64, i64),
        mark: Mark,
        until: Instant,
    ) -> Result<Option<i64>, DriverError> {
        let epoch = self.epoch();
        self.write_fence(fence, until).await?;
        let (now, _, found) = self.look(path, until).await?;
        if found == Some(mark) {
            return Ok(now.map(|n| n.modified));
        }
        if compared != 0 && now.is_some_and(|n| n.modified == compared) {
            return Ok(None);
        }
        // Only the history tells whether it was there for a while.
        self.watched(self.fence(), until).await?;
        match self.ledger.seen(mark) {
            Some(at) => Ok(Some(at)),
            None if self.epoch() == epoch => Ok(None),
            None => Err(self.history_lost()),
        }
    }

    /// Writes the fence unless somebody has since `fence`.
    async fn write_fence(&self, fence: i64, until: Instant) -> Result<(), DriverError> {
        let _turn = self.fencing.lock().await;
        if self.fence() != fence {
            return Ok(());
        }
        let put = |m: Member| async move {
            m.kv().put(&*self.layout.fence, "", None::<PutOptions>).await
        };
        let answer = self.members.repeat("fence off writes to", until, put).await?;
        self.set_fence(answer.header().map_or(0, |h| h.revision()));
        Ok(())
    }

    /// The state of a key at this moment, which revision that is, and whose the state is.
    async fn look(
        &self,
        path: &str,
        until: Instant,
    ) -> Result<(Option<Known>, i64, Option<Mark>), DriverError> {
        let get = |m: Member| async move { m.kv().get(path, None).await };
        let answer = self.members.repeat("read from", until, get).await?;
        let at = answer.header().map_or(0, |h| h.revision());
        let (known, mark) = answer.kvs().first().map(state).unzip();
        Ok((known, at, mark.flatten()))
    }
}

fn failed(error: DriverError) -> Verdict {
    Verdict::Failed(error.into())
}

/// The state that a key was read in, and whose it is.
fn state(kv: &KeyValue) -> (Known, Option<Mark>) {
    let (value, mark) = super::layout::unmarked(Bytes::copy_from_slice(kv.value()));
    (Known { created: kv.create_revision(), modified: kv.mod_revision(), value }, mark)
}
