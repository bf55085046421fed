//! What another server says of a group and version that it serves in this one's place.

use std::collections::BTreeSet;

use serde_json::Value;

const REFERENCE: &str = "#/definitions/";

/// The part of another server's v2 document that is about one group and version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreign {
    /// Its paths.
    pub(super) paths: Vec<(String, Value)>,
    /// The definitions that these lead to.
    pub(super) definitions: Vec<(String, Value)>,
}

impl Foreign {
    /// Takes out of a document what it says of a group and version.
    pub fn of(document: &Value, group: &str, version: &str) -> Self {
        let root = format!("/apis/{group}/{version}");
        let below = |path: &str| {
            path.strip_prefix(&root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let paths = document["paths"].as_object().into_iter().flatten();
        let paths: Vec<(String, Value)> = paths
            .filter(|(path, _)| below(path))
            .map(|(path, v)| (path.clone(), v.clone()))
            .collect();
        let mut open: Vec<String> = Vec::new();
        paths.iter().for_each(|(_, item)| references(item, &mut |to| open.push(to.to_owned())));
        let mut found = BTreeSet::new();
        let mut definitions = Vec::new();
        while let Some(name) = open.pop() {
            let definition = &document["definitions"][&name];
            if definition.is_null() || !found.insert(name.clone()) {
                continue;
            }
            references(definition, &mut |to| open.push(to.to_owned()));
            definitions.push((name, definition.clone()));
        }
        definitions.sort_by(|a, b| a.0.cmp(&b.0));
        Foreign { paths, definitions }
    }

    /// Several as one. Of two definitions with one name that differ, the later is renamed, as
    /// upstream does; `known` are names that this server has itself.
    pub(super) fn joined(all: &[Foreign], known: impl Fn(&str) -> bool) -> Foreign {
        let mut sum = Foreign::default();
        for one in all {
            let mut one = one.clone();
            for place in 0..one.definitions.len() {
                let (name, definition) = one.definitions[place].clone();
                let taken = sum.definitions.iter().find(|(other, _)| *other == name);
                if taken.is_some_and(|(_, other)| *other != definition) {
                    let free = (2..).map(|number| format!("{name}_v{number}")).find(|free| {
                        !known(free) && sum.definitions.iter().all(|(other, _)| other != free)
                    });
                    one.rename(&name, &free.unwrap_or_default());
                }
            }
            sum.paths.extend(one.paths);
            for (name, definition) in one.definitions {
                if !known(&name) && sum.definitions.iter().all(|(other, _)| *other != name) {
                    sum.definitions.push((name, definition));
                }
            }
        }
        sum
    }

    fn rename(&mut self, from: &str, to: &str) {
        let values = self.paths.iter_mut().chain(&mut self.definitions);
        for (name, value) in values {
            if name == from {
                to.clone_into(name);
            }
            renamed(value, &format!("{REFERENCE}{from}"), &format!("{REFERENCE}{to}"));
        }
    }
}

/// Names each definition that a part of a document refers to.
fn references(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(to) if name == "$ref" => {
                        to.strip_prefix(REFERENCE).into_iter().for_each(&mut *each);
                    }
                    other => references(other, each),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, each)),
        _ => {}
    }
}

fn renamed(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" && text == from => to.clone_into(text),
                    other => renamed(other, from, to),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| renamed(item, from, to)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(group: &str, size: &str) -> Value {
        json!({"paths": {format!("/apis/{group}/v1/things"): {"get": {"schema": {"$ref": "#/definitions/thing"}}},
                "/apis/other/v1/x": {}, "/version": {}},
            "definitions": {"thing": {"properties": {"s": {"$ref": "#/definitions/size"}}},
                "size": {"type": size}, "unused": {}}})
    }

    #[test]
    fn what_is_about_the_group_is_taken_and_joined() {
        let one = Foreign::of(&document("a", "string"), "a", "v1");
        assert_eq!(one.paths.len(), 1);
        let names = |foreign: &Foreign| {
            foreign.definitions.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&one), "size thing");
        let same = Foreign::of(&document("b", "string"), "b", "v1");
        let other = Foreign::of(&document("c", "integer"), "c", "v1");
        let joined = Foreign::joined(&[one, same, other], |name| name == "unused");
        assert_eq!(names(&joined), "size thing size_v2 thing_v2");
        assert_eq!(joined.paths.len(), 3);
        let text = joined.paths[2].1.to_string() + &joined.definitions[3].1.to_string();
        assert!(
            text.contains("definitions/thing_v2") && text.contains("definitions/size_v2"),
            "{text}"
        );
    }
}
