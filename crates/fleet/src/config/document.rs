//! A YAML document with the place of every value in it: what lets all problems of a file be told
//! together, each with its line, where serde would stop at the first.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{Location, Spanned};

use super::problem::{Problem, Spot};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub at: Spot,
    pub value: Bare,
}

/// A value whose parts have places.
#[derive(Debug, Clone)]
pub(super) enum Bare {
    Null,
    Bool(bool, String),
    Number(Number, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The name of a value in a map.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub at: Spot,
    pub name: String,
}

/// Where in a document something is: names and numbers from the top down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

impl Path {
    pub fn key(&self, name: &str) -> Path {
        self.with(Step::Key(name.to_owned()))
    }

    pub fn item(&self, position: usize) -> Path {
        self.with(Step::Item(position))
    }

    fn with(&self, step: Step) -> Path {
        Path(self.0.iter().cloned().chain([step]).collect())
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(item) => write!(f, "[{item}]")?,
                Step::Key(name) if position == 0 => f.write_str(name)?,
                Step::Key(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

impl Node {
    /// Reads a document.
    pub fn parse(text: &str) -> Result<Node, Problem> {
        match serde_saphyr::from_str::<Spanned<Read>>(text) {
            Ok(read) => Ok(node(read, text)),
            Err(error) => {
                let at = error.location().map(Spot::from).unwrap_or_default();
                let told = error.without_snippet().to_string();
                let told = match without_place(&told) {
                    several if several.starts_with("multiple YAML documents") => {
                        "there are several documents in it, and one is needed".to_owned()
                    }
                    told => format!("this is no YAML: {told}"),
                };
                let problem = Problem::new(at, told);
                Err(match line_behind_tab(text) {
                    Some(line) => {
                        problem.hint(format!("line {line} begins with a tab: use spaces"))
                    }
                    None => problem,
                })
            }
        }
    }

    /// Where the value at a path stands, or the nearest that holds it.
    pub fn find(&self, path: &Path) -> Spot {
        let mut node = self;
        for step in &path.0 {
            let next = match (&node.value, step) {
                (Bare::Map(entries), Step::Key(name)) => {
                    entries.iter().find(|(key, _)| key.name == *name).map(|(_, value)| value)
                }
                (Bare::List(items), Step::Item(position)) => items.get(*position),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.at
    }

    /// What it is, for a person.
    pub fn sort(&self) -> String {
        match &self.value {
            Bare::Null => "nothing".into(),
            Bare::Bool(_, raw) | Bare::Number(_, raw) => format!("`{raw}`"),
            Bare::Text(text) => format!("{text:?}"),
            Bare::List(_) => "a list".into(),
            Bare::Map(_) => "a map".into(),
        }
    }

    /// The value without places.
    pub fn plain(&self) -> Value {
        match &self.value {
            Bare::Null => Value::Null,
            Bare::Bool(on, _) => Value::Bool(*on),
            Bare::Number(number, _) => Value::Number(number.clone()),
            Bare::Text(text) => Value::String(text.clone()),
            Bare::List(items) => items.iter().map(Node::plain).collect(),
            Bare::Map(entries) => entries
                .iter()
                .map(|(key, value)| (key.name.clone(), value.plain()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// The reader says the place again, in words of its own, and what a program could do.
fn without_place(told: &str) -> &str {
    let first = told.lines().next().unwrap_or(told);
    let first = first.split(" at line ").next().unwrap_or(first);
    first.split(", set DuplicateKeyPolicy").next().unwrap_or(first)
}

/// The first line that is indented by a tab, which YAML does not allow.
fn line_behind_tab(text: &str) -> Option<usize> {
    let is_tabbed = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    Some(text.lines().position(is_tabbed)? + 1)
}

impl From<Location> for Spot {
    fn from(location: Location) -> Self {
        let number = |n: u64| usize::try_from(n).unwrap_or(0);
        Spot { line: number(location.line()), column: number(location.column()) }
    }
}

/// What serde reads, before scalars get back the text that they were written as.
enum Read {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Read>>),
    Map(Vec<(Spanned<String>, Spanned<Read>)>),
}

fn node(read: Spanned<Read>, text: &str) -> Node {
    let raw = |fallback: String| written(&read.defined, text).unwrap_or(fallback);
    let value = match read.value {
        Read::Null => Bare::Null,
        Read::Bool(on) => Bare::Bool(on, raw(on.to_string())),
        Read::Number(number) => {
            let raw = raw(number.to_string());
            Bare::Number(number, raw)
        }
        Read::Text(value) => Bare::Text(value),
        Read::List(items) => {
            Bare::List(items.into_iter().map(|item| self::node(item, text)).collect())
        }
        Read::Map(entries) => Bare::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = key.referenced.into();
                    (Key { at, name: key.value }, self::node(value, text))
                })
                .collect(),
        ),
    };
    Node { at: read.referenced.into(), value }
}

/// The characters of the file that a scalar was read from.
fn written(location: &Location, text: &str) -> Option<String> {
    let span = location.span();
    let from = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    let raw = text.get(from..from.checked_add(length)?)?.trim();
    (!raw.is_empty()).then(|| raw.to_owned())
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Read;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Read, E> {
        Ok(Read::Null)
    }

    fn visit_none<E>(self) -> Result<Read, E> {
        Ok(Read::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        Read::deserialize(deserializer)
    }

    fn visit_bool<E>(self, on: bool) -> Result<Read, E> {
        Ok(Read::Bool(on))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Read, E> {
        Ok(Read::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Read, E> {
        Ok(Read::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Read, E> {
        Ok(Number::from_f64(number).map_or(Read::Null, Read::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Read, E> {
        Ok(Read::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Read, E> {
        Ok(Read::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Read, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Read::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Read, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Read::Map(entries))
    }
}
