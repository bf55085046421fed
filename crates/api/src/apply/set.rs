//! Sets of paths to fields: what a manager owns, what a write changed.

use super::element::Element;
use super::place::Place;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of paths, as a tree. A path is in the set where its last node is a member; nodes that
/// are neither members nor lead to one do not occur.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    nodes: BTreeMap<Element, Node>,
}

/// What a set holds of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the path that ends here is in the set.
    pub(super) member: bool,
    /// Paths that go on from here.
    pub(super) below: Set,
}

impl Set {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.nodes.get(element)
    }

    /// Adds a step with all below it; nothing where it is no member and leads nowhere.
    pub(super) fn insert(&mut self, element: Element, node: Node) {
        if node.member || !node.below.is_empty() {
            let found = self.nodes.entry(element).or_default();
            found.member |= node.member;
            found.below.add(node.below);
        }
    }

    /// Union.
    pub(super) fn add(&mut self, other: Set) {
        if self.is_empty() {
            self.nodes = other.nodes;
            return;
        }
        for (element, node) in other.nodes {
            self.insert(element, node);
        }
    }

    /// Difference, path by path: what lies below a member of `other` stays.
    pub(super) fn subtract(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain(|element, node| {
            if let Some(other) = other.nodes.get(element) {
                node.member &= !other.member;
                node.below.subtract(&other.below);
            }
            node.member || !node.below.is_empty()
        });
    }

    /// Intersection.
    pub(super) fn common(&self, other: &Set) -> Set {
        let mut common = Set::default();
        // The smaller side is walked: a write touches few of the many fields of a manager.
        let (few, many) =
            if self.nodes.len() <= other.nodes.len() { (self, other) } else { (other, self) };
        for (element, node) in &few.nodes {
            if let Some(found) = many.nodes.get(element) {
                let member = node.member && found.member;
                let below = node.below.common(&found.below);
                common.insert(element.clone(), Node { member, below });
            }
        }
        common
    }

    /// Takes single members out: `paths` lists fields by name.
    pub(super) fn strip(&mut self, paths: &[&[&str]]) {
        for path in paths {
            self.strip_one(path);
        }
    }

    /// Takes a field out with all below it.
    pub(super) fn forget_field(&mut self, name: &str) {
        self.nodes.remove(&Element::field(name));
    }

    fn strip_one(&mut self, path: &[&str]) {
        let Some((name, rest)) = path.split_first() else { return };
        let element = Element::field(name);
        let Some(node) = self.nodes.get_mut(&element) else { return };
        if rest.is_empty() {
            node.member = false;
        }
        node.below.strip_one(rest);
        if !node.member && node.below.is_empty() {
            self.nodes.remove(&element);
        }
    }

    /// The set with every field that the schema names and that leads to a member as a member
    /// too. Objects with known fields are not owned themselves, yet they go with their last field.
    pub(super) fn with_named_fields(&self, place: Place<'_>) -> Set {
        let mut set = Set::default();
        for (element, node) in &self.nodes {
            let (below, named) = match element.name() {
                Some(name) => (place.member(name), place.has_field(name)),
                None => (place.item(), false),
            };
            let below = node.below.with_named_fields(below);
            set.nodes.insert(element.clone(), Node { member: node.member || named, below });
        }
        set
    }

    /// All paths as messages show them, the shorter ones of a branch first.
    pub(super) fn paths(&self) -> Vec<String> {
        fn walk(set: &Set, prefix: &str, paths: &mut Vec<String>) {
            let members = set.nodes.iter().filter(|(_, node)| node.member);
            paths.extend(members.map(|(element, _)| format!("{prefix}{element}")));
            for (element, node) in set.nodes.iter().filter(|(_, node)| !node.below.is_empty()) {
                walk(&node.below, &format!("{prefix}{element}"), paths);
            }
        }
        let mut paths = Vec::new();
        walk(self, "", &mut paths);
        paths
    }

    /// Reads FieldsV1; `None` where it is none.
    pub(super) fn parse(value: &Value) -> Option<Set> {
        let mut set = Set::default();
        for (text, below) in value.as_object()? {
            if text == "." {
                continue;
            }
            let members = below.as_object()?;
            let member = members.is_empty() || members.contains_key(".");
            set.insert(Element::parse(text)?, Node { member, below: Set::parse(below)? });
        }
        Some(set)
    }

    /// Writes FieldsV1.
    pub(super) fn into_value(self) -> Value {
        self.written(false)
    }

    /// With the mark of a member in front, where something is below it.
    fn written(self, member: bool) -> Value {
        let marked = member && !self.nodes.is_empty();
        let mut members = Map::with_capacity(self.nodes.len() + usize::from(marked));
        if marked {
            members.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, node) in self.nodes {
            members.insert(element.into_text(), node.below.written(node.member));
        }
        Value::Object(members)
    }
}

impl Node {
    /// A member with nothing below.
    pub(super) fn leaf() -> Self {
        Self { member: true, below: Set::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Set {
        Set::parse(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn fields_v1_is_read_and_written() {
        for text in [
            r#"{}"#,
            r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}}}"#,
            r#"{"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{}},"i:1":{}}}"#,
            r#"{"f:finalizers":{".":{},"v:\"a/b\"":{},"v:\"c\"":{}}}"#,
        ] {
            assert_eq!(set(text).into_value().to_string(), text);
        }
        let unordered = r#"{"v:1":{},"k:{\"b\": 1, \"a\": null}":{},"f:z":{},"f:b":{"f:c":{}}}"#;
        let ordered = r#"{"f:b":{"f:c":{}},"f:z":{},"k:{\"a\":null,\"b\":1}":{},"v:1":{}}"#;
        assert_eq!(set(unordered).into_value().to_string(), ordered);
        for broken in [r#"{"x:a":{}}"#, r#"{"f:a":1}"#, r#"{"i:x":{}}"#, r#"[]"#, r#"{"k:[]":{}}"#]
        {
            assert_eq!(Set::parse(&serde_json::from_str(broken).unwrap()), None, "{broken}");
        }
    }

    #[test]
    fn sets_are_added_subtracted_and_intersected() {
        let left = r#"{"f:a":{".":{},"f:x":{}},"f:b":{}}"#;
        for (right, union, difference, common) in [
            (r#"{}"#, left, left, r#"{}"#),
            (left, left, r#"{}"#, left),
            (r#"{"f:a":{}}"#, left, r#"{"f:a":{"f:x":{}},"f:b":{}}"#, r#"{"f:a":{}}"#),
            (
                r#"{"f:a":{"f:x":{},"f:y":{}},"f:c":{}}"#,
                r#"{"f:a":{".":{},"f:x":{},"f:y":{}},"f:b":{},"f:c":{}}"#,
                r#"{"f:a":{},"f:b":{}}"#,
                r#"{"f:a":{"f:x":{}}}"#,
            ),
        ] {
            let (left, right) = (set(left), set(right));
            let mut sum = left.clone();
            sum.add(right.clone());
            assert_eq!(sum, set(union));
            let mut rest = left.clone();
            rest.subtract(&right);
            assert_eq!(rest, set(difference));
            assert_eq!(left.common(&right), set(common));
            assert_eq!(right.common(&left), set(common));
        }
    }

    #[test]
    fn paths_read_as_upstreams() {
        let set = set(
            r#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{}}}},"f:list":{"i:2":{}}},"f:metadata":{"f:finalizers":{"v:\"x\"":{}}}}"#,
        );
        assert_eq!(
            set.paths(),
            [
                r#".metadata.finalizers[="x"]"#,
                r#".spec.containers[name="c"]"#,
                r#".spec.containers[name="c"].ports[containerPort=80,protocol="TCP"]"#,
                ".spec.list[2]",
            ]
        );
    }
}
