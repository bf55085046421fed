//! Strategic merges against a model that is written from the specification as plainly as it can
//! be: it computes the result from its parts, member by member, and cares for nothing else.

use super::*;
use crate::arbitrary::{Arbitrary, cases, keys, seed, shrink, smaller};
use crate::schema::{Type, Types};
use std::collections::BTreeSet;
use std::panic::catch_unwind;

/// The model's answer; that it refuses is enough to know.
type Answer<T> = Result<T, ()>;

/// A type with everything that a strategic merge can meet.
const SMALL: &str = r#"["a.Root","",[],[["atomic",["[]",1]],["items",["[]",1],{"p":"key","s":"merge"}],["map",["{}","string"]],["maps",["{}",1]],["replaced",1,{"s":"replace"}],["retained",1,{"s":"retainKeys"}],["set",["[]","string"],{"s":"merge"}],["text","string"],["union",["[]",1],{"p":"key","s":"merge,retainKeys"}],["words",["[]","string"]]]]
["b.Item","",[],[["items",["[]",1],{"p":"key","s":"merge"}],["key","string"],["map",["{}","string"]],["numbers",["[]","int32"],{"s":"merge"}],["value","int32"]]]
"#;

/// An object merged with a patch that is an object too.
fn object(schema: Option<Schema<'_>>, own: &Value, patch: &Value) -> Answer<Value> {
    match patch.get("$patch") {
        None => {}
        Some(what) if what == "delete" => return Ok(json!({})),
        Some(what) if what == "replace" => return Ok(without_directives(patch)),
        Some(_) => return Err(()),
    }
    let (own, patch) = (own.as_object().unwrap(), patch.as_object().unwrap());
    let plain = |name: &&String| !name.starts_with('$');
    let retained = patch.get("$retainKeys").map(|names| names.as_array().ok_or(())).transpose()?;
    if let Some(retained) = retained
        && patch.iter().any(|(n, v)| plain(&n) && !v.is_null() && !retained.contains(&json!(n)))
    {
        return Err(());
    }
    let named = patch.keys().filter_map(|name| name.split_once('/')).map(|(_, name)| name);
    let names: BTreeSet<&str> =
        own.keys().chain(patch.keys().filter(plain)).map(String::as_str).chain(named).collect();
    let mut result = Map::new();
    for name in names {
        let says = |directive: &str| patch.get(&format!("${directive}/{name}"));
        let own = own.get(name).filter(|_| retained.is_none_or(|r| r.contains(&json!(name))));
        let below = schema.and_then(|schema| schema.member(name));
        let mut value = match says("setElementOrder") {
            Some(order) => ordered(below, own, patch.get(name), order)?,
            None => member(below, own, patch.get(name))?,
        };
        if let Some(gone) = says("deleteFromPrimitiveList") {
            let gone = gone.as_array().ok_or(())?;
            if let Some(Value::Array(items)) = &mut value {
                items.retain(|item| !gone.contains(item));
            }
        }
        result.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(Value::Object(result))
}

/// One member, without an order of its own.
fn member(
    schema: Option<Schema<'_>>,
    own: Option<&Value>,
    patch: Option<&Value>,
) -> Answer<Option<Value>> {
    let strategy = |wanted: &str| {
        schema.is_some_and(|s| match wanted {
            "merge" => s.patch_merges(),
            _ => s.patch_replaces(),
        })
    };
    Ok(match (own, patch) {
        (own, None) => own.cloned(),
        (_, Some(Value::Null)) => None,
        (Some(Value::Object(_)), Some(Value::Object(_))) if strategy("replace") => patch.cloned(),
        (Some(own @ Value::Object(_)), Some(patch @ Value::Object(_))) => {
            Some(object(schema, own, patch)?)
        }
        (Some(Value::Array(own)), Some(Value::Array(patch))) if strategy("merge") => {
            Some(list(schema.unwrap(), own, patch)?)
        }
        (Some(Value::Array(_)), Some(Value::Array(_))) => patch.cloned(),
        (_, Some(Value::Object(new))) if new.contains_key("$patch") => None,
        (_, Some(new)) => Some(without_directives(new)),
    })
}

fn ordered(
    schema: Option<Schema<'_>>,
    own: Option<&Value>,
    patch: Option<&Value>,
    order: &Value,
) -> Answer<Option<Value>> {
    let order = order.as_array().ok_or(())?;
    if [own, patch].into_iter().flatten().any(|list| !list.is_array()) {
        return Err(());
    }
    let key = schema.and_then(|schema| schema.patch_merge_key());
    let in_patch: Vec<Value> = patch.iter().flat_map(|p| p.as_array().unwrap()).cloned().collect();
    let kept = in_patch.iter().filter(|item| item.get("$patch").is_none());
    let (patched, named) = (identities(key, kept)?, identities(key, order.iter())?);
    // What the patch has is a part of the order, in the same order.
    let mut at = 0;
    for one in patched.iter().filter(|_| !order.is_empty()) {
        let found = named[at..].iter().position(|other| other == one).ok_or(())?;
        at += found + 1;
    }
    let Some(merged) = member(schema, own, patch)? else { return Ok(None) };
    let own = own.and_then(Value::as_array).cloned().unwrap_or_default();
    let merged = merged.as_array().unwrap();
    Ok(Some(Value::Array(arranged(key, merged, &named, &identities(key, own.iter())?)?)))
}

/// Two lists that merge.
fn list(schema: Schema<'_>, own: &[Value], patch: &[Value]) -> Answer<Value> {
    let kinds: BTreeSet<u8> = own.iter().chain(patch).map(kind).collect();
    if kinds.len() > 1 || kinds.contains(&LIST) {
        return Err(());
    }
    let key = schema.patch_merge_key();
    let Some(key_name) = key else {
        if kinds.contains(&OBJECT) {
            return Err(());
        }
        let mut all = own.to_vec();
        all.extend(patch.iter().filter(|value| !own.contains(value)).cloned());
        return Ok(Value::Array(arranged(None, &all, patch, own)?));
    };
    let (special, plain): (Vec<&Value>, Vec<&Value>) =
        patch.iter().partition(|item| item.get("$patch").is_some());
    let says = |item: &Value, what: &str| item["$patch"] == what;
    let deleted: Vec<&Value> = special.iter().copied().filter(|i| says(i, "delete")).collect();
    let deleted = identities(key, deleted.into_iter())?;
    if special.iter().any(|item| !says(item, "delete") && !says(item, "replace")) {
        return Err(());
    }
    if special.iter().any(|item| says(item, "replace")) {
        let new: Vec<Value> = plain.into_iter().map(without_directives).collect();
        return identities(key, new.iter()).map(|_| Value::Array(new));
    }
    let mut all: Vec<Value> = own.to_vec();
    all.retain(|item| !deleted.contains(&item[key_name]));
    let before = identities(key, all.iter())?;
    for item in &plain {
        let name = item.get(key_name).ok_or(())?;
        match all.iter_mut().find(|own| own[key_name] == *name) {
            Some(own) => *own = object(schema.items(), own, item)?,
            None => all.push(without_directives(item)),
        }
    }
    let order = identities(key, plain.into_iter())?;
    Ok(Value::Array(arranged(key, &all, &order, &before)?))
}

/// The items that `order` names, as it names them, and each of the others put in among them: as
/// early as the others before it allow, before the first that stood after it.
fn arranged(
    key: Option<&str>,
    all: &[Value],
    order: &[Value],
    before: &[Value],
) -> Answer<Vec<Value>> {
    let name = |item: &Value| key.map_or_else(|| item.clone(), |key| item[key].clone());
    identities(key, all.iter())?;
    let place = |list: &[Value], item: &Value| list.iter().position(|one| *one == name(item));
    let mut result: Vec<Value> = Vec::new();
    let first = |(at, one): &(usize, &Value)| !order[..*at].contains(one);
    for (_, one) in order.iter().enumerate().filter(first) {
        result.extend(all.iter().filter(|item| name(item) == *one).cloned());
    }
    let mut others: Vec<&Value> = all.iter().filter(|item| place(order, item).is_none()).collect();
    others.sort_by_key(|item| place(before, item).unwrap_or(usize::MAX));
    let mut from = 0;
    for other in others {
        let was = place(before, other);
        let later = |item: &Value| was.is_some() && place(before, item) > was;
        let at = result[from..].iter().position(later).map_or(result.len(), |at| from + at);
        result.insert(at, other.clone());
        from = at + 1;
    }
    Ok(result)
}

fn identities<'v>(key: Option<&str>, items: impl Iterator<Item = &'v Value>) -> Answer<Vec<Value>> {
    let name = |item: &Value| match key {
        None => Some(item.clone()),
        Some(key) => item.as_object()?.get(key).cloned(),
    };
    items.map(|item| name(item).ok_or(())).collect()
}

/// What a patch sets where nothing was.
fn without_directives(value: &Value) -> Value {
    let stays = |value: &&Value| value.get("$patch").is_none();
    match value {
        Value::Object(members) => {
            let set =
                members.iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            let set = set.filter(|(_, value)| stays(value));
            Value::Object(set.map(|(name, v)| (name.clone(), without_directives(v))).collect())
        }
        Value::Array(items) => {
            Value::Array(items.iter().filter(stays).map(without_directives).collect())
        }
        other => other.clone(),
    }
}

const OBJECT: u8 = 5;
const LIST: u8 = 4;

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(number) => 2 + 4 * u8::from(number.is_f64()),
        Value::String(_) => 3,
        Value::Array(_) => LIST,
        Value::Object(_) => OBJECT,
    }
}

impl Arbitrary {
    /// A patch for an object.
    fn patch(&mut self, schema: Schema<'_>, own: &Value, depth: usize) -> Value {
        let mut patch = Map::new();
        match self.random.u8(..) {
            0..8 => return json!({"$patch": "delete"}),
            8..16 => {
                patch.insert("$patch".to_owned(), "replace".into());
            }
            16 => return json!({"$patch": "merge"}),
            17 => return json!({"$patch": "x"}),
            _ => {}
        }
        let members: Vec<(String, Schema<'_>)> = match schema.additional() {
            Some(below) => {
                let names = own.as_object().into_iter().flat_map(Map::keys).cloned();
                names.chain([self.word().to_owned()]).map(|name| (name, below)).collect()
            }
            None => schema.fields().map(|(name, field)| (name.to_owned(), field)).collect(),
        };
        for (name, field) in members {
            let own = own.get(&name).unwrap_or(&Value::Null);
            let wanted = if own.is_null() { self.density / 2 } else { self.density.max(90) };
            if depth > 0 && self.chance(wanted) {
                self.patch_member(&mut patch, &name, field, own, depth - 1);
            }
        }
        if self.chance(20) {
            let mut names: BTreeSet<String> =
                patch.keys().filter(|n| !n.starts_with('$')).cloned().collect();
            names.extend(own.as_object().and_then(|own| own.keys().next()).cloned());
            if self.chance(20) {
                names.pop_first();
            }
            patch.insert("$retainKeys".to_owned(), names.into_iter().collect());
        }
        Value::Object(patch)
    }

    fn patch_member(
        &mut self,
        patch: &mut Map<String, Value>,
        name: &str,
        schema: Schema<'_>,
        own: &Value,
        depth: usize,
    ) {
        let value = match (schema.kind(), self.random.u8(..)) {
            (_, 0..24) => Some(Value::Null),
            (_, 24..27) => Some(
                [json!({"a": null}), json!([{}]), json!(1), json!("x")][self.random.usize(..4)]
                    .clone(),
            ),
            (Type::Object | Type::Map, _) => Some(self.patch(schema, own, depth)),
            (Type::List, _) if schema.patch_merges() => {
                return self.patch_list(patch, name, schema, own, depth);
            }
            _ => self.value(schema, depth),
        };
        patch.extend(value.map(|value| (name.to_owned(), value)));
    }

    fn patch_list(
        &mut self,
        patch: &mut Map<String, Value>,
        name: &str,
        schema: Schema<'_>,
        own: &Value,
        depth: usize,
    ) {
        let own = own.as_array().cloned().unwrap_or_default();
        let mut list = self.items(schema, depth);
        let key = schema.patch_merge_key();
        if let Some(key) = key {
            for item in &own {
                // What is deleted is not added in the same breath: upstream's order of the result
                // depends on where its copies of the list lie in memory then.
                let is_new = !list.iter().any(|other| other[key] == item[key]);
                match self.random.u8(..) {
                    0..40 if is_new => list.push(json!({key: item[key], "$patch": "delete"})),
                    40..160 => {
                        let items = schema.items().unwrap();
                        let Value::Object(mut below) = self.patch(items, item, depth) else {
                            continue;
                        };
                        if below.contains_key("$patch") {
                            continue;
                        }
                        below.insert(key.to_owned(), item[key].clone());
                        list.push(Value::Object(below));
                    }
                    _ => {}
                }
            }
            if self.chance(16) {
                list.extend(list.first().cloned());
            }
            if self.chance(8) {
                list.push(json!({"$patch": "replace"}));
            }
            if self.chance(3) {
                list.push(json!({"x": 1}));
            }
        } else if self.chance(100) {
            let gone: Vec<Value> = own.iter().filter(|_| self.random.bool()).cloned().collect();
            patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone.into());
        }
        self.random.shuffle(&mut list);
        if self.chance(100) {
            let order = self.order(key, &own, &list);
            patch.insert(format!("$setElementOrder/{name}"), order.into());
        }
        if self.chance(200) {
            patch.insert(name.to_owned(), list.into());
        }
    }

    /// The items of a patch in its order, and some of those that are there among them.
    fn order(&mut self, key: Option<&str>, own: &[Value], list: &[Value]) -> Vec<Value> {
        let short = |item: &Value| match key {
            Some(key) => json!({key: item[key]}),
            None => item.clone(),
        };
        let mut order: Vec<Value> =
            list.iter().filter(|item| item.get("$patch").is_none()).map(short).collect();
        for item in own {
            if !order.contains(&short(item)) && self.random.bool() {
                order.insert(self.random.usize(..=order.len()), short(item));
            }
        }
        if self.chance(10) {
            order.pop();
        }
        // An order of nothing leaves new items where upstream's sort happens to put them.
        if order.is_empty() {
            order.push(key.map_or_else(|| json!("e"), |key| json!({key: "e"})));
        }
        order
    }
}

/// What is wrong with the merge of a case, if anything.
fn difference(schema: Schema<'_>, (own, patch): &(Value, Value)) -> Option<String> {
    let expected = object(Some(schema), own, patch);
    let found = catch_unwind(|| {
        let (Value::Object(mut own), Value::Object(patch)) = (own.clone(), patch.clone()) else {
            return Ok(own.clone());
        };
        merge_object(Some(schema), &mut own, &patch).map(|()| Value::Object(own))
    });
    match (found, expected) {
        (Ok(Ok(found)), Ok(expected)) if found == expected => None,
        (Ok(Err(_)), Err(())) => None,
        (found, expected) => Some(format!("expected {expected:?}\nfound    {found:?}")),
    }
}

fn agrees(name: &str, schema: Schema<'_>, density: u8, depth: usize, count: u64) {
    let seed = seed();
    let mut refused = 0;
    for number in 0..cases(count) {
        let mut arbitrary = Arbitrary::new(seed.wrapping_add(number), density);
        let own = arbitrary.value(schema, depth).unwrap();
        let patch = arbitrary.patch(schema, &own, depth);
        let case = (own, patch);
        refused += u64::from(object(Some(schema), &case.0, &case.1).is_err());
        if difference(schema, &case).is_none() {
            continue;
        }
        let ways = |(own, patch): &(Value, Value)| -> Vec<(Value, Value)> {
            let less_own = smaller(own).into_iter().map(|own| (own, patch.clone()));
            less_own.chain(smaller(patch).into_iter().map(|patch| (own.clone(), patch))).collect()
        };
        let sound = |own: &Value| lists_are_sound(schema, own);
        let fails = |case: &(Value, Value)| sound(&case.0) && difference(schema, case).is_some();
        let (own, patch) = shrink(case, ways, fails);
        let what = difference(schema, &(own.clone(), patch.clone())).unwrap();
        panic!("{name}, CORACLE_SEED={}:\n{own}\n{patch}\n{what}", seed.wrapping_add(number));
    }
    assert!(refused < cases(count) / 2, "{name}: {refused} patches of {count} were refused");
}

/// Whether the items of all lists have their keys, as those of stored objects do.
fn lists_are_sound(schema: Schema<'_>, value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().all(|(name, member)| {
            schema.member(name).is_none_or(|below| lists_are_sound(below, member))
        }),
        Value::Array(items) => items.iter().all(|item| {
            let keyed = keys(schema).iter().all(|key| item.get(key).is_some());
            keyed && schema.items().is_none_or(|below| lists_are_sound(below, item))
        }),
        _ => true,
    }
}

#[test]
fn a_small_type_with_everything_merges_as_the_model_says() {
    let types = Types::parse(SMALL).unwrap();
    agrees("small", Schema::root(&types), 110, 4, 5_000);
}

#[test]
fn built_in_kinds_merge_as_the_model_says() {
    for (group, kind) in
        [("", "Pod"), ("apps", "Deployment"), ("", "Service"), ("", "Node"), ("", "ServiceAccount")]
    {
        agrees(kind, Schema::of(group, "v1", kind).unwrap(), 60, 6, 150);
    }
}
