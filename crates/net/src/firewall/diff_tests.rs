//! Every difference, played to a table that is as strict as the kernel's, ends in the new table.

use std::net::SocketAddr;

use super::*;
use crate::firewall::{Family, Field, KeyType, SetData, Statement, Verdict, rule};

/// A table that refuses what nf_tables refuses.
#[derive(Clone, Debug, PartialEq)]
struct Table(Ruleset);

impl Table {
    fn new() -> Self {
        Self(Ruleset { family: Family::V4, sets: BTreeMap::new(), chains: BTreeMap::new() })
    }

    fn play(&mut self, change: &Change) {
        let Ruleset { sets, chains, .. } = &mut self.0;
        match change {
            Change::ResetTable | Change::DeleteTable => *self = Self::new(),
            Change::AddSet { name, set } => {
                assert!(set.elements.is_empty());
                assert!(sets.insert(name.clone(), set.clone()).is_none(), "{name} is there");
            }
            Change::AddChain { name, hook } => {
                let chain = Chain { hook: *hook, rules: Vec::new() };
                assert!(chains.insert(name.clone(), chain).is_none(), "{name} is there");
            }
            Change::FlushChain { name } => chains.get_mut(name).unwrap().rules.clear(),
            Change::DeleteElements { name, elements, .. } => {
                let set = sets.get_mut(name).unwrap();
                for key in elements.keys() {
                    assert!(set.elements.remove(key).is_some(), "{key:?} is not in {name}");
                }
            }
            Change::AddElements { name, elements, .. } => {
                let set = sets.get_mut(name).unwrap();
                for (key, value) in elements {
                    assert_exists(chains, value_chain(value));
                    let before = set.elements.insert(key.clone(), value.clone());
                    assert!(before.is_none(), "{key:?} is in {name}");
                }
            }
            Change::AddRule { chain, rule } => {
                for statement in &rule.0 {
                    if let Some(set) = statement_set(statement) {
                        assert!(sets.contains_key(set), "{set} is not there");
                    }
                    assert_exists(chains, statement_chain(statement));
                }
                chains.get_mut(chain).unwrap().rules.push(rule.clone());
            }
            Change::DeleteChain { name } => {
                let chain = chains.remove(name).unwrap();
                assert!(chain.rules.is_empty());
                let rules = chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.0);
                let values = sets.values().flat_map(|set| set.elements.values());
                let mut uses =
                    rules.filter_map(statement_chain).chain(values.filter_map(value_chain));
                assert!(uses.all(|used| used != name), "{name} is in use");
            }
            Change::DeleteSet { name } => {
                sets.remove(name).unwrap();
                let rules = chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.0);
                assert!(
                    rules.filter_map(statement_set).all(|used| used != name),
                    "{name} is in use"
                );
            }
        }
    }
}

fn assert_exists(chains: &BTreeMap<String, Chain>, chain: Option<&String>) {
    if let Some(chain) = chain {
        assert!(chains.contains_key(chain), "{chain} is not there");
    }
}

fn verdict_chain(verdict: &Verdict) -> Option<&String> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        Verdict::Drop => None,
    }
}

fn value_chain(value: &Value) -> Option<&String> {
    match value {
        Value::Verdict(verdict) => verdict_chain(verdict),
        _ => None,
    }
}

fn statement_chain(statement: &Statement) -> Option<&String> {
    match statement {
        Statement::Verdict(verdict) => verdict_chain(verdict),
        _ => None,
    }
}

fn statement_set(statement: &Statement) -> Option<&String> {
    match statement {
        Statement::Lookup { map, .. } | Statement::BalanceTargets { map, .. } => Some(map),
        _ => None,
    }
}

/// A table of a few chains that lead to each other, a map that leads to them, and maps of targets
/// that they use: whatever the seed says.
fn table(random: &mut fastrand::Rng) -> Ruleset {
    let mut table = Table::new().0;
    let mut entries = Set::new(&[KeyType::Port], SetData::Verdict);
    for number in 0..6u16 {
        if random.bool() {
            continue;
        }
        let name = format!("chain{number}");
        let count = random.u32(1..4);
        let map = format!("map{number}");
        let statement = if count > 1 {
            let mut targets = Set::new(&[KeyType::Index], SetData::Target);
            targets.elements = (0..count)
                .map(|index| {
                    let target = SocketAddr::from(([10, 42, 0, random.u8(1..4)], 80));
                    (vec![Atom::Index(index)], Value::Target(target))
                })
                .collect();
            table.sets.insert(map.clone(), targets);
            Statement::BalanceTargets { count, map }
        } else {
            Statement::Translate(SocketAddr::from(([10, 42, 0, random.u8(1..4)], 80)))
        };
        let mut rules = vec![rule([statement])];
        if let Some(earlier) = random.choice(table.chains.keys().cloned().collect::<Vec<_>>()) {
            rules.insert(0, rule([Statement::Verdict(Verdict::Jump(earlier))]));
        }
        table.chains.insert(name.clone(), Chain { hook: None, rules });
        let port = random.u16(1..4);
        let value = Value::Verdict(Verdict::Goto(name));
        entries.elements.insert(vec![Atom::Port(port)], value);
    }
    let lookup =
        Statement::Lookup { fields: vec![Field::DestinationPort], map: "entries".to_owned() };
    if random.u8(0..8) > 0 {
        table.sets.insert("entries".to_owned(), entries);
        let start = Chain { hook: None, rules: vec![rule([lookup])] };
        table.chains.insert("start".to_owned(), start);
    }
    table
}

#[test]
fn every_difference_is_accepted_and_ends_in_the_new_table() {
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let first = table(&mut random);
        let mut kernel = Table::new();
        replace(&first).iter().for_each(|change| kernel.play(change));
        assert_eq!(kernel.0, first, "seed {seed}");
        let mut before = first;
        for _ in 0..4 {
            let after = table(&mut random);
            diff(&before, &after).iter().for_each(|change| kernel.play(change));
            assert_eq!(kernel.0, after, "seed {seed}");
            assert!(diff(&after, &after).is_empty());
            before = after;
        }
    }
}

#[test]
fn a_set_of_another_shape_means_all_anew() {
    let mut old = Table::new().0;
    old.sets.insert("s".to_owned(), Set::new(&[KeyType::Port], SetData::None));
    let mut new = Table::new().0;
    new.sets.insert("s".to_owned(), Set::new(&[KeyType::Address], SetData::None));
    assert_eq!(diff(&old, &new)[0], Change::ResetTable);
}
