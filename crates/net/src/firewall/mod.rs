//! nftables rules as data: what a table should hold, printed as text, and the difference between
//! two such tables. Nothing here talks to the kernel; `linux::firewall` does.

mod diff;
mod ruleset;

pub(crate) use diff::{Change, diff, replace};
pub(crate) use ruleset::{
    Atom, Chain, Family, Field, Hook, HookKind, HookPoint, KeyType, Rule, Ruleset, Set, SetData,
    Statement, Value, Verdict, rule,
};
