//! Reads a document by the JSON schema of `cluster.yaml`: the same that editors complete by. Serde
//! alone would stop at the first mistake and know no suggestion. What the schema says of the model is
//! kept true by a test, so that what passes here can be decoded.

use serde_json::{Map, Number, Value};

use super::document::{Bare, Key, Node, Path};
use super::problem::Problem;
use crate::nearest;

/// What people call things elsewhere.
const SYNONYMS: &[(&str, &str)] = &[
    ("ip", "address"),
    ("ipaddress", "address"),
    ("hostname", "name"),
    ("nodes", "boards"),
    ("hosts", "boards"),
    ("machines", "boards"),
    ("cidr", "subnet"),
    ("hardware", "model"),
    ("virtualip", "vip"),
    ("master", "server"),
    ("controlplane", "server"),
    ("worker", "agent"),
    ("node", "agent"),
    ("password", "passphrase"),
    ("password", "sudoPassword"),
];

/// Reads documents by a schema and notes what does not fit.
pub(super) struct Shape<'a> {
    schema: &'a Value,
    /// What did not fit.
    pub problems: Vec<Problem>,
}

impl<'a> Shape<'a> {
    pub fn new(schema: &'a Value) -> Self {
        Shape { schema, problems: Vec::new() }
    }

    /// The document's value as the model decodes it; parts that do not fit are left out.
    pub fn read(&mut self, document: &Node) -> Value {
        let schema = self.schema;
        self.value(schema, document, &Path::default()).unwrap_or_default()
    }

    fn value(&mut self, schema: &'a Value, node: &Node, path: &Path) -> Option<Value> {
        let schema = self.resolved(schema);
        if let Some(choices) = choices(schema) {
            return self.choice(&choices, node, path);
        }
        match (sort(schema), &node.value) {
            ("string", Bare::Text(text)) => self.text(schema, text, node, path),
            ("string", Bare::Bool(_, raw) | Bare::Number(_, raw)) => {
                self.text(schema, raw, node, path)
            }
            ("boolean", Bare::Bool(on, _)) => Some(Value::Bool(*on)),
            ("integer" | "number", Bare::Number(number, _)) => {
                self.number(schema, number, node, path)
            }
            ("array", Bare::List(items)) => self.list(schema, items, node, path),
            ("object", Bare::Map(entries)) => self.map(schema, entries, node, path),
            ("any", _) => Some(node.plain()),
            ("array", Bare::Text(text)) => {
                let words = choices(self.resolved(&schema["items"])).unwrap_or_default();
                let known: Vec<&str> = words.iter().map(|choice| choice.name).collect();
                let meant = meant(text, &known).unwrap_or(text);
                self.note(node, path, "a list", &format!("did you mean `[{meant}]`?"));
                None
            }
            (wanted, _) => self.wrong(wanted, node, path),
        }
    }

    /// Follows references, and passes by the null of what may be left out.
    fn resolved(&self, mut schema: &'a Value) -> &'a Value {
        loop {
            let next = match &schema["$ref"] {
                Value::String(reference) => {
                    reference.strip_prefix('#').and_then(|place| self.schema.pointer(place))
                }
                _ => {
                    schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| !is_null(one)))
                }
            };
            match next {
                Some(next) => schema = next,
                None => return schema,
            }
        }
    }

    fn text(&mut self, schema: &Value, text: &str, node: &Node, path: &Path) -> Option<Value> {
        let fault = match schema["format"].as_str() {
            Some("ip") if text.parse::<std::net::IpAddr>().is_err() => {
                Some(("an IP address", "write it as 192.168.1.11"))
            }
            Some("cidr") if text.parse::<ipnet::IpNet>().is_err() => {
                Some(("a network", "write it as 192.168.1.0/24"))
            }
            _ => None,
        };
        if let Some((wanted, hint)) = fault {
            self.note(node, path, wanted, hint);
            return None;
        }
        Some(Value::String(text.to_owned()))
    }

    fn number(
        &mut self,
        schema: &Value,
        number: &Number,
        node: &Node,
        path: &Path,
    ) -> Option<Value> {
        if sort(schema) == "integer" {
            let (least, most) = (schema["minimum"].as_i64(), limit(schema));
            let whole = number.as_i64();
            let fits = whole.is_some_and(|n| least.is_none_or(|l| l <= n) && n <= most);
            if !fits {
                let wanted = format!("a whole number of {} to {most}", least.unwrap_or(i64::MIN));
                self.note(node, path, &wanted, "");
                return None;
            }
        }
        Some(Value::Number(number.clone()))
    }

    fn list(&mut self, schema: &'a Value, items: &[Node], at: &Node, path: &Path) -> Option<Value> {
        let fixed = schema["prefixItems"].as_array();
        if let Some(fixed) = fixed
            && fixed.len() != items.len()
        {
            self.note(at, path, &format!("a list of {}", fixed.len()), "");
            return None;
        }
        let read = items.iter().enumerate().map(|(position, item)| {
            let schema = fixed.map_or(&schema["items"], |fixed| &fixed[position]);
            self.value(schema, item, &path.item(position))
        });
        // One that does not fit must not change the others' numbers, so the list is as good as lost.
        let read: Vec<Option<Value>> = read.collect();
        read.into_iter().collect::<Option<Vec<Value>>>().map(Value::Array)
    }

    fn map(
        &mut self,
        schema: &'a Value,
        entries: &[(Key, Node)],
        at: &Node,
        path: &Path,
    ) -> Option<Value> {
        let known = schema["properties"].as_object();
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let has = |name: &str| entries.iter().any(|(key, _)| key.name == name);
        let mut read = Map::new();
        let mut whole = true;
        let mut missing: Vec<&str> = required.iter().copied().filter(|name| !has(name)).collect();
        for (key, value) in entries {
            let mut name = key.name.as_str();
            if others(schema).is_none() && known.is_some_and(|known| !known.contains_key(name)) {
                // A slip of the pen is told, and read as what it was meant to be.
                match self.unknown(key, known, path).filter(|meant| !has(meant)) {
                    Some(meant) => name = meant,
                    None => continue,
                }
            }
            let own = known.and_then(|known| known.get(name));
            let Some(schema) = own.or_else(|| others(schema)) else { continue };
            let is_empty = matches!(value.value, Bare::Null) && own.is_some();
            missing.retain(|missing| *missing != name);
            if is_empty && !required.contains(&name) {
                continue;
            }
            match self.value(schema, value, &path.key(name)) {
                Some(value) => drop(read.insert(name.to_owned(), value)),
                None => whole = false,
            }
        }
        for missing in &missing {
            let whose =
                if path == &Path::default() { String::new() } else { format!("`{path}`: ") };
            self.problems.push(Problem::new(at.at, format!("{whose}`{missing}` is missing")));
        }
        (whole && missing.is_empty()).then_some(Value::Object(read))
    }

    /// Notes a key that is none, and gives the one that was probably meant.
    fn unknown(
        &mut self,
        key: &Key,
        known: Option<&'a Map<String, Value>>,
        path: &Path,
    ) -> Option<&'a str> {
        let known: Vec<&str> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let whose = if path == &Path::default() { String::new() } else { format!(" in `{path}`") };
        let mut problem = Problem::new(key.at, format!("`{}` is no key{whose}", key.name));
        if sounds_secret(&key.name) {
            problem = problem.secret_from(key.at.column + key.name.chars().count());
        }
        self.problems.push(problem.hint(suggestion(&key.name, &known)));
        meant(&key.name, &known)
    }

    fn choice(&mut self, choices: &[Choice<'a>], node: &Node, path: &Path) -> Option<Value> {
        let names: Vec<&str> = choices.iter().map(|choice| choice.name).collect();
        match &node.value {
            Bare::Text(text) | Bare::Bool(_, text) | Bare::Number(_, text) => {
                if let Some(choice) = choices.iter().find(|choice| choice.name == text) {
                    if choice.holds.is_none() {
                        return Some(Value::String(text.clone()));
                    }
                    self.note(node, path, &format!("a map with `{text}:`"), "");
                    return None;
                }
                let places = choices.iter().any(|choice| choice.holds.is_some());
                self.problems.push(match places && meant(text, &names).is_none() {
                    true => inline_secret(choices, node, path),
                    false => {
                        let what = format!("`{path}` is {}, which it cannot be", node.sort());
                        Problem::new(node.at, what).hint(suggestion(text, &names))
                    }
                });
                None
            }
            Bare::Map(entries) => {
                let [(key, value)] = entries.as_slice() else {
                    self.note(node, path, "one key", &suggestion("", &names));
                    return None;
                };
                let Some(choice) = choices.iter().find(|choice| choice.name == key.name) else {
                    let what = format!("`{}` is no key in `{path}`", key.name);
                    let problem = Problem::new(key.at, what).secret_from(key.at.column);
                    self.problems.push(problem.hint(suggestion(&key.name, &names)));
                    return None;
                };
                let Some(schema) = choice.holds else {
                    let hint = format!("write `{}` alone", key.name);
                    self.note(node, path, "a word", &hint);
                    return None;
                };
                let inner = self.value(schema, value, &path.key(&key.name))?;
                Some(Value::Object(Map::from_iter([(key.name.clone(), inner)])))
            }
            _ => {
                self.note(node, path, "something else", &suggestion("", &names));
                None
            }
        }
    }

    fn wrong(&mut self, wanted: &str, node: &Node, path: &Path) -> Option<Value> {
        let (wanted, hint) = match (wanted, &node.value) {
            ("array", _) => ("a list", String::new()),
            ("object", _) => ("a map of keys", String::new()),
            ("string", _) => ("a text", String::new()),
            ("boolean", _) => ("true or false", String::new()),
            ("integer", Bare::Text(text)) if text.parse::<i64>().is_ok() => {
                ("a number", "leave out the quotes".into())
            }
            _ => ("a number", String::new()),
        };
        self.note(node, path, wanted, &hint);
        None
    }

    fn note(&mut self, node: &Node, path: &Path, wanted: &str, hint: &str) {
        let is_root = path == &Path::default();
        if is_root && matches!(node.value, Bare::Null) {
            let problem = Problem::new(node.at, "the file is empty");
            return self.problems.push(problem.hint("`coracle init` writes a first one"));
        }
        let subject = if is_root { "the file".to_owned() } else { format!("`{path}`") };
        let what = format!("{subject} is {}, and {wanted} is needed", node.sort());
        let problem = Problem::new(node.at, what);
        self.problems.push(if hint.is_empty() { problem } else { problem.hint(hint) });
    }
}

/// What stands where only the place of a secret belongs, or a word: it may be the secret.
fn inline_secret(choices: &[Choice<'_>], node: &Node, path: &Path) -> Problem {
    let ways = choices.iter().map(|choice| match choice.holds {
        None => choice.name.to_owned(),
        Some(_) => format!("{{{}: ...}}", choice.name),
    });
    let what = format!("`{path}` says where a secret stands, and is not the secret itself");
    Problem::new(node.at, what)
        .secret_from(node.at.column)
        .hint(format!("write one of {}", ways.collect::<Vec<_>>().join(", ")))
}

/// Whether a key that is none may have a secret behind it.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["pass", "tok", "secret", "psk"].iter().any(|part| name.contains(part))
}

/// One of several things that a value may be.
struct Choice<'a> {
    name: &'a str,
    /// What stands behind its name, where it is a key and no word.
    holds: Option<&'a Value>,
}

/// The words, or keys, of which a value is one; none where the schema is of another kind.
fn choices(schema: &Value) -> Option<Vec<Choice<'_>>> {
    if let Some(list) = schema["enum"].as_array() {
        let names = list.iter().filter_map(Value::as_str);
        return Some(names.map(|name| Choice { name, holds: None }).collect());
    }
    let mut all = Vec::new();
    for one in schema["oneOf"].as_array()? {
        if let Some(name) = one["const"].as_str() {
            all.push(Choice { name, holds: None });
        }
        all.extend(choices(one).filter(|_| one["enum"].is_array()).into_iter().flatten());
        let keys = one["properties"].as_object().into_iter().flatten();
        all.extend(keys.map(|(name, schema)| Choice { name, holds: Some(schema) }));
    }
    Some(all)
}

fn others(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|schema| **schema != Value::Bool(false))
}

fn is_null(schema: &Value) -> bool {
    schema["type"] == "null"
}

/// The type that a schema asks for; null beside it is what may be left out.
fn sort(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(one) => one,
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).find(|one| *one != "null").unwrap_or("any")
        }
        _ => "any",
    }
}

fn limit(schema: &Value) -> i64 {
    let by_format = match schema["format"].as_str() {
        Some("uint16") => i64::from(u16::MAX),
        Some("uint32") => i64::from(u32::MAX),
        _ => i64::MAX,
    };
    schema["maximum"].as_i64().unwrap_or(by_format)
}

/// What may have been meant, or all that could be.
fn suggestion(word: &str, known: &[&str]) -> String {
    match meant(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("it is one of {}", known.join(", ")),
    }
}

fn meant<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let letters: String = word.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let synonym = SYNONYMS.iter().find(|(other, own)| *other == letters && known.contains(own));
    let synonym = synonym.and_then(|(_, own)| known.iter().find(|known| *known == own).copied());
    synonym.or_else(|| nearest::meant(word, known.iter().copied()))
}
