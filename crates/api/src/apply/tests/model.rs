//! Random applies and updates against a model that is written from the specification as plainly
//! as it can be: an object is a set of paths with values, a manager owns a set of paths, and an
//! apply is union and difference of such sets.

use super::*;
use crate::arbitrary::{Arbitrary, cases, seed, shrink, smaller};
use crate::schema::Schema;
use crate::status::go_quote;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

mod paths;
use paths::{Spot, ordered, owned, paths, union, with_named, without};

/// Steps of a path, as `managedFields` writes them.
type Path = Vec<String>;
type Paths = BTreeSet<Path>;
/// Name, operation, subresource.
type Who = (String, &'static str, String);

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Fields of `metadata` that no manager owns, as far as chance sets them.
const NOBODY: [&str; 4] = ["f:apiVersion", "f:kind", "f:metadata", "f:metadata/f:name"];

/// A kind with everything that an apply can meet.
const SMALL: &str = "
metadata: {name: smalls.example.com, uid: u}
status:
  acceptedNames: {plural: smalls, singular: small, kind: Small, listKind: SmallList}
  conditions: [{type: Established, status: 'True'}]
spec:
  group: example.com
  scope: Namespaced
  names: {plural: smalls, kind: Small}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          status: {type: object, properties: {count: {type: integer}, set: {type: array, x-kubernetes-list-type: set, items: {type: string}}}}
          spec:
            type: object
            properties:
              text: {type: string}
              any: {x-kubernetes-preserve-unknown-fields: true}
              open: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {named: {type: string}}}
              atomic: {type: array, items: {type: string}}
              atomicMap: {type: object, x-kubernetes-map-type: atomic, properties: {a: {type: string}, b: {type: integer}}}
              set: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              map: {type: object, additionalProperties: {type: string}}
              maps: {type: object, additionalProperties: {type: object, properties: {a: {type: string}, set: {type: array, x-kubernetes-list-type: set, items: {type: integer}}}}}
              object: {type: object, properties: {a: {type: string}, b: {type: object, properties: {c: {type: integer}, d: {type: integer}}}}}
              ports:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [port, protocol]
                items: {type: object, properties: {port: {type: integer}, protocol: {type: string, default: a}, text: {type: string}}}
              items:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [key]
                items:
                  type: object
                  properties:
                    key: {type: string}
                    value: {type: integer}
                    map: {type: object, additionalProperties: {type: string}}
                    items: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [key], items: {type: object, properties: {key: {type: string}, value: {type: integer}}}}
";

/// An object and who owns what of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    object: Option<Value>,
    owners: BTreeMap<Who, Paths>,
}

/// What is done to it.
#[derive(Clone, Debug)]
struct Step {
    manager: String,
    view: &'static str,
    /// An apply, perhaps forced; otherwise a merge patch.
    apply: Option<bool>,
    body: Value,
}

impl Step {
    /// What the view lets the manager set.
    fn part(&self, resource: &Resource) -> Value {
        let mut part = self.body.clone();
        let hidden = match self.view {
            "status" => "spec",
            _ if resource.subresource("status").is_some() => "status",
            _ => "",
        };
        part.as_object_mut().unwrap().shift_remove(hidden);
        part
    }
}

impl Model {
    /// Carries out a step; what others own and would lose, if that is too much.
    fn step(
        &mut self,
        spot: Spot<'_>,
        resource: &Resource,
        step: &Step,
    ) -> Result<(), BTreeSet<String>> {
        match step.apply {
            Some(force) => self.apply(spot, resource, step, force),
            None => {
                self.update(spot, resource, step);
                Ok(())
            }
        }
    }

    /// Paths that are new or have another value, and paths that are gone.
    fn changes(&self, spot: Spot<'_>, new: &Value) -> (Paths, Paths) {
        let old = self.object.as_ref().map(|old| paths(spot, old)).unwrap_or_default();
        let new = paths(spot, new);
        let mine = |path: &&Path| !NOBODY.contains(&path.join("/").as_str());
        let there = |path: &&Path| !is_always_there(spot, path);
        let set = new.keys().filter(|path| old.get(*path) != new.get(*path));
        let gone = old.keys().filter(|path| !new.contains_key(*path));
        let of = |all: Vec<&Path>| all.into_iter().filter(mine).filter(there).cloned().collect();
        (of(set.collect()), of(gone.collect()))
    }

    fn take(&mut self, but: &Who, set: &Paths, gone: &Paths) {
        for (_, owned) in self.owners.iter_mut().filter(|(who, _)| *who != but) {
            owned.retain(|path| !set.contains(path) && !gone.contains(path));
        }
    }

    fn update(&mut self, spot: Spot<'_>, resource: &Resource, step: &Step) {
        let mut new = self.object.clone().unwrap_or(Value::Null);
        json_patch::merge(&mut new, &step.body);
        let (mut set, gone) = self.changes(spot, &new);
        let is_new = self.object.is_none();
        self.object = Some(new);
        if !is_new && self.owners.is_empty() || set.is_empty() && gone.is_empty() {
            return;
        }
        if is_new && resource.subresource("status").is_some() {
            set.retain(|path| path[0] != "f:status");
        }
        let who = (step.manager.clone(), "Update", step.view.to_owned());
        self.take(&(String::new(), "", String::new()), &set, &gone);
        self.owners.entry(who).or_default().extend(set);
        self.owners.retain(|_, owned| !owned.is_empty());
    }

    fn apply(
        &mut self,
        spot: Spot<'_>,
        resource: &Resource,
        step: &Step,
        force: bool,
    ) -> Result<(), BTreeSet<String>> {
        let config = step.part(resource);
        let mut after = self.clone();
        if let (Some(live), true) = (&self.object, self.owners.is_empty()) {
            let all = Model::default().changes(spot, live).0;
            after.owners.insert(("before-first-apply".into(), "Update", step.view.into()), all);
        }
        let live = self.object.clone().unwrap_or_else(|| yaml("{}"));
        let merged =
            if self.object.is_some() { union(spot, &live, &config) } else { config.clone() };
        let who = (step.manager.clone(), "Apply", step.view.to_owned());
        let mut now = owned(spot, &config);
        let before = after.owners.insert(who.clone(), now.clone()).unwrap_or_default();
        let all: Paths = after.owners.values().flatten().cloned().collect();
        let given_up = &with_named(spot, &before) - &with_named(spot, &all);
        let result = without(spot, &merged, &given_up);
        let (set, gone) = self.changes(spot, &result);
        let mut conflicts = BTreeSet::new();
        for ((name, operation, view), owned) in
            after.owners.iter().filter(|(other, _)| **other != who)
        {
            let view = if view.is_empty() {
                String::new()
            } else {
                format!(" with subresource {}", go_quote(view))
            };
            let using = if *operation == "Update" {
                format!(" using {}", resource_version(resource))
            } else {
                String::new()
            };
            let title = format!("{}{view}{using}", go_quote(name));
            conflicts.extend((&set & owned).iter().map(|path| format!("{title}: {}", shown(path))));
        }
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        after.take(&who, &set, &gone);
        now.retain(|path| !NOBODY.contains(&path.join("/").as_str()));
        after.owners.insert(who, now);
        after.owners.retain(|_, owned| !owned.is_empty());
        after.object = Some(result);
        *self = after;
        Ok(())
    }
}

fn resource_version(resource: &Resource) -> String {
    resource.api_version(&resource.versions[0])
}

/// Fields that upstream's types have in every object: nobody adds or removes them.
fn is_always_there(spot: Spot<'_>, path: &Path) -> bool {
    let Some((last, above)) = path.split_last() else { return false };
    let mut place = place::Place::root(spot.0);
    for step in above {
        place = step.strip_prefix("f:").map_or_else(|| place.item(), |name| place.member(name));
    }
    last.strip_prefix("f:").is_some_and(|name| place.is_always_there(name))
}

/// A path as messages show it.
fn shown(path: &Path) -> String {
    let step = |step: &String| match step.split_at(2) {
        ("f:", name) => format!(".{name}"),
        ("k:", keys) => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap();
            let pairs: Vec<String> =
                keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        (_, value) => format!("[={value}]"),
    };
    path.iter().map(step).collect()
}

/// `managedFields` as the model has them.
fn owners(object: &Value) -> BTreeMap<Who, Paths> {
    fn walk(fields: &Value, at: &[String], set: &mut Paths) {
        for (step, below) in fields.as_object().unwrap() {
            if step == "." {
                set.insert(at.to_vec());
                continue;
            }
            let path = [at, std::slice::from_ref(step)].concat();
            if *below == yaml("{}") {
                set.insert(path);
            } else {
                walk(below, &path, set);
            }
        }
    }
    let mut all = BTreeMap::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let operation = if entry["operation"] == "Apply" { "Apply" } else { "Update" };
        let mut set = Paths::new();
        walk(&entry["fieldsV1"], &[], &mut set);
        all.insert((text("manager"), operation, text("subresource")), set);
    }
    all
}

/// Carries out a step for real.
fn real(
    resource: &Resource,
    object: &mut Option<Value>,
    step: &Step,
) -> Result<(), BTreeSet<String>> {
    let version = resource_version(resource);
    let manager = Manager {
        name: &step.manager,
        api_version: &version,
        subresource: step.view,
        time: "2026-01-01T00:00:00Z",
    };
    let Some(force) = step.apply else {
        let mut new = object.clone().unwrap_or(Value::Null);
        json_patch::merge(&mut new, &step.body);
        track(resource, object.as_ref(), &mut new, &manager);
        *object = Some(new);
        return Ok(());
    };
    match super::super::apply(resource, object.as_ref(), &step.body, &manager, force) {
        Ok(new) => *object = Some(new),
        Err(ApplyError::Conflicts(list)) => {
            return Err(list.into_iter().map(|c| format!("{}: {}", c.manager, c.field)).collect());
        }
        Err(other) => panic!("{other}"),
    }
    Ok(())
}

/// What is wrong after the last of some steps, if anything.
fn difference(resource: &Resource, steps: &[Step]) -> Option<String> {
    let version = resource_version(resource);
    let spot = Spot(Schema::of_resource(resource, &resource.versions[0]), true);
    let (mut model, mut object) = (Model::default(), None);
    for (number, step) in steps.iter().enumerate() {
        if step.apply.is_some() && check(resource, &version, &step.body).is_err() {
            continue;
        }
        let before: Option<Value> = object.clone();
        let expected = model.step(spot, resource, step);
        let found = catch_unwind(AssertUnwindSafe(move || {
            let found = real(resource, &mut object, step);
            (found, object)
        }));
        let Ok((found, new)) = found else { return Some(format!("step {number} panicked")) };
        if found != expected {
            return Some(format!("step {number} expected {expected:#?}\nfound {found:#?}"));
        }
        let (expected, given) = (&model.owners, new.as_ref().map(owners).unwrap_or_default());
        if *expected != given {
            return Some(format!("step {number} owners expected {expected:#?}\nfound {given:#?}"));
        }
        let bare = new.clone().map(|mut object| {
            take_owners(&mut object);
            object
        });
        let alike = |object: &Option<Value>| object.as_ref().map(|object| ordered(spot, object));
        if alike(&bare) != alike(&model.object) {
            return Some(format!("step {number} expected {:?}\nfound {bare:?}", model.object));
        }
        if let (Some(_), Ok(()), Some(new)) = (step.apply, &found, &bare)
            && !order_is_kept(
                spot,
                before.as_ref().unwrap_or(&Value::Null),
                &step.part(resource),
                new,
            )
        {
            return Some(format!("step {number}: the items have another order: {new}"));
        }
        // What stands where is for the one that was judged to decide.
        model.object = bare;
        object = new;
    }
    None
}

/// Whether items stand in the applied order, and those that are live alone in the live order.
fn order_is_kept(spot: Spot<'_>, live: &Value, config: &Value, new: &Value) -> bool {
    let (Some(parts), Some(mine)) = (spot.parts(new), spot.parts(config)) else { return true };
    let theirs = spot.parts(live).unwrap_or_default();
    let in_order = |steps: Vec<&String>, of: Vec<&String>| {
        let kept: Vec<&&String> = of.iter().filter(|step| steps.contains(step)).collect();
        let found: Vec<&&String> = steps.iter().filter(|step| of.contains(step)).collect();
        kept == found
    };
    let steps = || parts.iter().map(|(step, ..)| step);
    let applied: Vec<&String> = mine.iter().map(|(step, ..)| step).collect();
    let live_alone = theirs.iter().map(|(step, ..)| step).filter(|step| !applied.contains(step));
    let ordered = !new.is_array()
        || in_order(steps().collect(), applied.clone())
            && in_order(steps().collect(), live_alone.collect());
    ordered
        && parts.iter().all(|(step, below, part)| {
            let of = |parts: &[(String, Spot<'_>, &Value)]| {
                parts.iter().find(|(other, ..)| other == step).map(|(.., value)| (*value).clone())
            };
            let Some(config) = of(&mine) else { return true };
            order_is_kept(*below, &of(&theirs).unwrap_or_default(), &config, part)
        })
}

impl Arbitrary {
    fn step(&mut self, resource: &Resource, number: usize) -> Step {
        let schema = Schema::of_resource(resource, &resource.versions[0]).unwrap();
        let mut body = self.value(schema, 5).unwrap();
        let apply = self.chance(170).then(|| self.chance(100));
        let has_view = number > 0 && resource.subresource("status").is_some();
        let view = if has_view && self.chance(24) { "status" } else { "" };
        body["apiVersion"] = resource_version(resource).into();
        body["kind"] = resource.kind.as_ref().into();
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), "x".into());
        let schema = Schema::of_definition(META).unwrap();
        for name in ["labels", "finalizers", "ownerReferences"] {
            if self.chance(60)
                && let Some(value) = self.value(schema.field(name).unwrap(), 3)
            {
                metadata.insert(name.to_owned(), value);
            }
        }
        body["metadata"] = metadata.into();
        if apply.is_none() {
            self.nulls(&mut body, 0);
        }
        let manager = ["one", "two", "three"][self.random.usize(..3)].to_owned();
        Step { manager, view, apply, body }
    }

    /// Lets a merge patch take some of the members out.
    fn nulls(&mut self, value: &mut Value, depth: usize) {
        let Value::Object(members) = value else { return };
        for (name, member) in members {
            if depth > 0 && name != "name" && self.chance(40) {
                *member = Value::Null;
            } else {
                self.nulls(member, depth + 1);
            }
        }
    }
}

fn agrees(resource: &Resource, density: u8, count: u64) {
    let seed = seed();
    for number in 0..cases(count) {
        let seed = seed.wrapping_add(number);
        let mut arbitrary = Arbitrary::new(seed, density);
        let length = arbitrary.random.usize(2..7);
        let steps: Vec<Step> = (0..length).map(|at| arbitrary.step(resource, at)).collect();
        if difference(resource, &steps).is_none() {
            continue;
        }
        let steps =
            shrink(steps, |steps| ways(steps), |steps| difference(resource, steps).is_some());
        let what = difference(resource, &steps).unwrap();
        let lines: Vec<String> = steps
            .iter()
            .map(|s| format!("{}/{} {:?} {}", s.manager, s.view, s.apply, s.body))
            .collect();
        panic!("{}, CORACLE_SEED={seed}:\n{}\n{what}", resource.kind, lines.join("\n"));
    }
}

/// Fewer steps, or one that says less.
fn ways(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    for at in 0..steps.len() {
        let mut fewer = steps.to_vec();
        fewer.remove(at);
        all.push(fewer);
    }
    for (at, step) in steps.iter().enumerate() {
        let whole = |body: &Value| {
            body["metadata"]["name"].is_string()
                && body["apiVersion"].is_string()
                && body["kind"].is_string()
        };
        for body in smaller(&step.body).into_iter().filter(whole) {
            let mut less = steps.to_vec();
            less[at].body = body;
            all.push(less);
        }
    }
    all
}

#[test]
fn a_small_kind_with_everything_is_applied_as_the_model_says() {
    let definition = yaml(SMALL);
    let text = std::sync::Arc::new(definition.to_string());
    let resources = crate::custom::resources(&definition, text, None);
    let [resource] = &resources[..] else { panic!("one version") };
    agrees(resource, 80, 600);
}

#[test]
fn built_in_kinds_are_applied_as_the_model_says() {
    for (group, kind) in [("", "ConfigMap"), ("", "Service"), ("apps", "Deployment"), ("", "Node")]
    {
        agrees(find_kind(group, "v1", kind).unwrap(), 50, 50);
    }
}
