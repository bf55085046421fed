//! The table of structural types, and how it is read from the generated file.

use super::Type;
use flate2::bufread::GzDecoder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::sync::LazyLock;

/// Made by `cargo xtask generate`: a gzip member with the structural types, one with documents.
static DATA: &[u8] = include_bytes!("../../data/kubernetes.gz");

static BUILTIN: LazyLock<Types> = LazyLock::new(|| {
    let mut text = String::new();
    let read = GzDecoder::new(DATA).read_to_string(&mut text);
    let types = read.map_err(|e| e.to_string()).and_then(|_| Types::parse(&text));
    types.expect("the generated file is part of the binary and a test reads all of it")
});

/// All types that may refer to one another.
pub(crate) struct Types {
    pub(crate) definitions: Vec<Definition>,
    /// Numbers of the definitions that are kinds, ordered by kind, group and version.
    kinds: Vec<(Gvk, u32)>,
}

/// Kind, group, version.
type Gvk = [Box<str>; 3];

/// A type that has a name.
pub(crate) struct Definition {
    pub(crate) name: Box<str>,
    /// Whether every value of the type is taken as a whole by server-side apply.
    pub(crate) atomic: bool,
    pub(crate) node: Node,
}

/// A type where it is used.
pub(crate) struct Node {
    pub(crate) shape: Shape,
    pub(crate) merge: Option<Box<Merge>>,
}

pub(crate) enum Shape {
    Scalar(Type),
    List(Box<Node>),
    Map(Box<Node>),
    Struct(Struct),
    /// A definition's number.
    Ref(u32),
}

pub(crate) struct Struct {
    /// Ordered by name.
    pub(crate) fields: Vec<Field>,
    /// Whether it may have other fields, of any kind.
    pub(crate) open: bool,
}

pub(crate) struct Field {
    pub(crate) name: Box<str>,
    pub(crate) required: bool,
    pub(crate) node: Node,
}

/// The `x-kubernetes-*` extensions of a field.
#[derive(Default)]
pub(crate) struct Merge {
    pub(crate) list_type: Option<Box<str>>,
    pub(crate) keys: Vec<Box<str>>,
    pub(crate) atomic: bool,
    pub(crate) patch_key: Option<Box<str>>,
    pub(crate) patch_strategy: Option<Box<str>>,
    pub(crate) default: Option<Box<str>>,
}

/// Types of the built-in kinds; read on first use.
pub(crate) fn builtin() -> &'static Types {
    &BUILTIN
}

/// Calls `each` with the name and the JSON (OpenAPI v2) of every definition, ordered by name.
/// Nothing but one definition's text is in memory at a time.
pub(crate) fn documents(mut each: impl FnMut(&str, &str)) {
    let mut structural = GzDecoder::new(DATA);
    // The second member starts where the first ends.
    let skipped = std::io::copy(&mut structural, &mut std::io::sink());
    let mut lines = BufReader::new(GzDecoder::new(structural.into_inner()));
    let mut line = String::new();
    while skipped.is_ok() && lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        if let Some((name, json)) = line.trim_end().split_once(':') {
            each(name.trim_matches('"'), json);
        }
        line.clear();
    }
}

/// Changes when the documents change: checksum and size at the end of the gzip member.
pub(crate) fn documents_hash() -> &'static [u8] {
    DATA.last_chunk::<8>().map_or(DATA, |trailer| trailer)
}

/// Whether there is a built-in definition of this name.
pub(crate) fn is_definition(name: &str) -> bool {
    builtin().number(name).is_some()
}

/// Names of all built-in definitions that `roots` refer to, directly or not, themselves included.
pub(crate) fn reachable<'a>(roots: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'static str> {
    let types = builtin();
    let mut open: Vec<u32> = roots.into_iter().filter_map(|name| types.number(name)).collect();
    let mut found = BTreeSet::new();
    while let Some(number) = open.pop() {
        let definition = &types.definitions[number as usize];
        if found.insert(definition.name.as_ref()) {
            types.references(number, &mut |to| open.push(to));
        }
    }
    found
}

impl Types {
    /// A table of one type, which refers to no other.
    pub(crate) fn single(definition: Definition) -> Self {
        Self { definitions: vec![definition], kinds: Vec::new() }
    }

    pub(crate) fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Definition> {
        let wanted = [kind, group, version];
        let found = self
            .kinds
            .binary_search_by(|(gvk, _)| gvk.iter().map(AsRef::as_ref).cmp(wanted.iter().copied()));
        let (_, number) = &self.kinds[found.ok()?];
        self.definitions.get(*number as usize)
    }

    pub(crate) fn definition(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(self.number(name)? as usize)
    }

    fn number(&self, name: &str) -> Option<u32> {
        let found = self.definitions.binary_search_by(|d| d.name.as_ref().cmp(name));
        u32::try_from(found.ok()?).ok()
    }

    /// Numbers of the definitions that a definition refers to, directly.
    fn references(&self, number: u32, each: &mut impl FnMut(u32)) {
        fn walk(node: &Node, each: &mut impl FnMut(u32)) {
            match &node.shape {
                Shape::Scalar(_) => {}
                Shape::List(item) | Shape::Map(item) => walk(item, each),
                Shape::Struct(structure) => {
                    structure.fields.iter().for_each(|f| walk(&f.node, each))
                }
                Shape::Ref(number) => each(*number),
            }
        }
        if let Some(definition) = self.definitions.get(number as usize) {
            walk(&definition.node, each);
        }
    }

    /// Reads the text form, one type a line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut types = Self { definitions: Vec::new(), kinds: Vec::new() };
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
            let name = boxed(&value[0]).ok_or_else(|| format!("no name in {line}"))?;
            let number = u32::try_from(types.definitions.len()).map_err(|e| e.to_string())?;
            for gvk in value[2].as_array().into_iter().flatten() {
                let part = |i: usize| boxed(&gvk[i]).unwrap_or_default();
                types.kinds.push(([part(2), part(0), part(1)], number));
            }
            let node = match &value[3] {
                Value::Array(fields) if fields.first().is_none_or(Value::is_array) => {
                    let fields = fields.iter().map(field).collect::<Result<_, _>>()?;
                    Node { shape: Shape::Struct(Struct { fields, open: false }), merge: None }
                }
                other => Node { shape: shape(other)?, merge: None },
            };
            types.definitions.push(Definition { name, atomic: value[1] == "a", node });
        }
        types.kinds.sort();
        types.check().map(|()| types)
    }

    /// Order and references are what the look-ups rely on.
    fn check(&self) -> Result<(), String> {
        if !self.definitions.is_sorted_by(|a, b| a.name < b.name) {
            return Err("definitions are not ordered".to_owned());
        }
        for (number, definition) in (0u32..).zip(&self.definitions) {
            let mut wrong = matches!(definition.node.shape, Shape::Ref(_));
            self.references(number, &mut |to| wrong |= to as usize >= self.definitions.len());
            if wrong {
                return Err(format!("{} refers to nothing", definition.name));
            }
        }
        Ok(())
    }
}

impl Struct {
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        let found = self.fields.binary_search_by(|field| field.name.as_ref().cmp(name));
        self.fields.get(found.ok()?)
    }
}

fn boxed(value: &Value) -> Option<Box<str>> {
    value.as_str().map(Box::from)
}

fn field(entry: &Value) -> Result<Field, String> {
    let name = boxed(&entry[0]).ok_or_else(|| format!("no name in {entry}"))?;
    let says = &entry[2];
    let merge = says.as_object().filter(|says| says.keys().any(|key| key != "!")).map(|_| {
        let keys = says["k"].as_array().into_iter().flatten();
        Box::new(Merge {
            list_type: boxed(&says["l"]),
            keys: keys.filter_map(boxed).collect(),
            atomic: says["m"] == "atomic",
            patch_key: boxed(&says["p"]),
            patch_strategy: boxed(&says["s"]),
            default: boxed(&says["d"]),
        })
    });
    let node = Node { shape: shape(&entry[1])?, merge };
    Ok(Field { name, required: !says["!"].is_null(), node })
}

fn shape(value: &Value) -> Result<Shape, String> {
    let inner = || Ok::<_, String>(Box::new(Node { shape: shape(&value[1])?, merge: None }));
    if let Some(number) = value.as_u64() {
        return u32::try_from(number).map(Shape::Ref).map_err(|e| e.to_string());
    }
    let scalar = match value.as_str().or(value[0].as_str()) {
        Some("[]") => return Ok(Shape::List(inner()?)),
        Some("{}") => return Ok(Shape::Map(inner()?)),
        Some("string") => Type::String,
        Some("int32") => Type::Int32,
        Some("int64") => Type::Int64,
        Some("number") => Type::Number,
        Some("bool") => Type::Boolean,
        Some("bytes") => Type::Bytes,
        Some("time") => Type::Time,
        Some("microtime") => Type::MicroTime,
        Some("quantity") => Type::Quantity,
        Some("intstr") => Type::IntOrString,
        Some("any") => Type::Any,
        _ => return Err(format!("unknown type {value}")),
    };
    Ok(Shape::Scalar(scalar))
}
