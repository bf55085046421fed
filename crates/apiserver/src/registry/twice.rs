//! The fields that a body has twice, as its writer is told of them. What is wrong in JSON is
//! told by path, in YAML by line, as upstream's two decoders have it.

use std::collections::BTreeSet;
use std::fmt;

use api::schema;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// What begins the one error that upstream makes of all lines.
const ERRORS: &str = "yaml: unmarshal errors:";

/// Fields that were there twice, a text for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Twice {
    lines: Vec<String>,
    yaml: bool,
    /// Paths of all fields of a JSON body that has some twice, in their order.
    order: Vec<String>,
}

impl Twice {
    /// Of JSON, by the fields' paths.
    pub fn of_json(paths: &[String], body: &[u8]) -> Self {
        let lines = paths.iter().map(|path| schema::duplicate_field(path)).collect();
        // Where they stand takes another reading, which most bodies are spared.
        let order = match paths {
            [] => Vec::new(),
            _ => schema::order(&mut serde_json::Deserializer::from_slice(body)).unwrap_or_default(),
        };
        Twice { lines, yaml: false, order }
    }

    /// These and the `unknown` fields of the same typed object, as upstream's decoder meets them:
    /// it reads JSON once, YAML before it is any type's.
    pub fn among(&self, told: Vec<String>, unknown: Vec<String>) -> Vec<String> {
        if self.order.is_empty() || unknown.is_empty() {
            return told.into_iter().chain(unknown).collect();
        }
        let mut met = BTreeSet::new();
        let mut sorted = Vec::new();
        for path in &self.order {
            let text = match met.insert(path) {
                true => schema::Problem::Unknown(path.clone()).to_string(),
                false => schema::duplicate_field(path),
            };
            if (told.contains(&text) || unknown.contains(&text)) && !sorted.contains(&text) {
                sorted.push(text);
            }
        }
        sorted
    }

    /// Of YAML that is known to have some.
    pub fn of_yaml(text: &str) -> Self {
        let options = super::decode::yaml_options();
        let tree: Option<Spanned<Node>> = serde_saphyr::from_str_with_options(text, options).ok();
        let mut lines = Vec::new();
        tree.iter().for_each(|tree| tree.value.walk(&mut lines));
        Twice { lines, yaml: true, order: Vec::new() }
    }

    /// Of the operations of a JSON patch, of which each text says so.
    pub fn of_patch(lines: impl Iterator<Item = String>) -> Self {
        let lines = lines.map(|line| format!("json patch {line}")).collect();
        Twice { lines, ..Twice::default() }
    }

    /// A text for each warning.
    pub fn warnings(&self) -> Vec<String> {
        self.lines.clone()
    }

    /// The parts of the error that refuses them.
    pub fn errors(&self) -> Vec<String> {
        match self.yaml && !self.lines.is_empty() {
            true => vec![format!("{ERRORS}\n  {}", self.lines.join("\n  "))],
            false => self.lines.clone(),
        }
    }
}

/// A YAML value, of which only the structure is of interest.
enum Node {
    Scalar,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl Node {
    /// Notes the keys that a map has twice, those of maps inside first.
    fn walk(&self, lines: &mut Vec<String>) {
        match self {
            Node::Scalar => {}
            Node::List(items) => items.iter().for_each(|item| item.value.walk(lines)),
            Node::Map(members) => {
                let mut seen = BTreeSet::new();
                for (key, value) in members {
                    value.value.walk(lines);
                    if !seen.insert(key) {
                        let line = value.referenced.line();
                        let key = api::status::go_quote(key);
                        lines.push(format!("line {line}: key {key} already set in map"));
                    }
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Structure)
    }
}

struct Structure;

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Scalar)
        })*
    };
}

impl<'de> Visitor<'de> for Structure {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = members.next_key::<String>()? {
            map.push((key, members.next_value()?));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_told_by_line() {
        let text = "kind: A\nspec:\n  a: 1\n  list:\n  - b: 1\n    b: 2\n  a:\n    c: 3\nkind: B\n";
        let twice = Twice::of_yaml(text);
        let lines = [
            "line 6: key \"b\" already set in map",
            "line 8: key \"a\" already set in map",
            "line 9: key \"kind\" already set in map",
        ];
        assert_eq!(twice.warnings(), lines);
        let whole = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
        assert_eq!(twice.errors(), [whole]);
        assert_eq!(Twice::of_yaml("a: 1\n").errors(), Vec::<String>::new());
    }

    #[test]
    fn fields_nobody_knows_are_told_of_where_they_stand() {
        let body = br#"{"a": {"odd": 1, "b": 1, "b": 2, "strange": 3}, "odd": 4}"#;
        let twice = Twice::of_json(&["a.b".to_owned()], body);
        let unknown =
            ["a.odd", "a.strange", "odd"].map(|path| format!("unknown field {path:?}")).to_vec();
        let told = twice.among(twice.errors(), unknown.clone());
        let expected = [&unknown[0], "duplicate field \"a.b\"", &unknown[1], &unknown[2]];
        assert_eq!(told, expected);
        // What YAML has twice is told of before anybody looks for fields.
        let twice = Twice::of_yaml("a: {odd: 1, b: 1, b: 2}");
        let told = twice.among(twice.errors(), vec![unknown[0].clone()]);
        assert_eq!(told[1], unknown[0]);
    }

    #[test]
    fn json_is_told_by_path() {
        let twice = Twice::of_json(&["a.b".to_owned()], br#"{"a": {"b": 1, "b": 2}}"#);
        assert_eq!(twice.errors(), [r#"duplicate field "a.b""#]);
        assert_eq!(twice.errors(), twice.warnings());
    }
}
