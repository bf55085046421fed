//! `cargo xtask generate`, second part: makes `crates/api/data/protobuf.gz`, the field numbers
//! of the built-in kinds in upstream's protobuf form.
//!
//! A line for each definition: its name, then `field=number` for each field, with an asterisk where
//! JSON shows zero, false or an empty text too; a message that JSON flattens into its owner stands
//! as `number(field=number ...)`. Most lines are those of `xtask/data/messages.txt`, which
//! `tools/go-types.py` reads off upstream's own program. Kinds that kubectl does not know come from
//! the crate `k8s-pb`, whose structs carry the numbers; it is fetched and read as text and never
//! linked, and their JSON names come from the structural schemas.

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate and version whose source is read.
const CRATE: (&str, &str) = ("k8s-pb", "=0.9.0");
/// What kubectl knows of its kinds.
const MESSAGES: &str = "xtask/data/messages.txt";
/// Fields of the other kinds that JSON shows with zeros, too.
const SHOWN: [&str; 19] = [
    "deprecationWarning",
    "groupPriorityMinimum",
    "labelSelectorPath",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minItems",
    "minLength",
    "minProperties",
    "optionalOldSelf",
    "path",
    "port",
    "served",
    "storage",
    "url",
    "versionPriority",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
];
const SCHEMAS: &str = "crates/api/data/kubernetes.gz";
const OUTPUT: &str = "crates/api/data/protobuf.gz";
/// Folders of the source and what their definitions' names begin with.
const ROOTS: [(&str, &str); 4] = [
    ("api", "io.k8s.api"),
    ("apimachinery", "io.k8s.apimachinery"),
    ("apiextensions_apiserver", "io.k8s.apiextensions-apiserver"),
    ("kube_aggregator", "io.k8s.kube-aggregator"),
];

/// A list that is a message of its own on the wire.
const WRAPPED_LIST: &str = "Verbs";
/// How deep flattened messages stand in one another.
const FLATTENED_DEPTH_MAX: usize = 2;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A field of a message: its name in the source, its number, the message that it holds.
struct Field {
    name: String,
    number: u32,
    message: Option<String>,
}

/// Messages by their definition's name in lower case.
type Messages = BTreeMap<String, Vec<Field>>;

/// Fetches the source and writes the data file.
pub fn generate() -> Result<(), String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    write(workspace).map_err(|error| error.to_string())
}

fn write(workspace: &Path) -> Outcome<()> {
    let source = fetch(&workspace.join("target/generate-protobuf"))?;
    let mut messages = Messages::new();
    for (folder, prefix) in ROOTS {
        read_folder(&source.join(folder), prefix, &mut messages)?;
    }
    let known = std::fs::read_to_string(workspace.join(MESSAGES))?;
    let known: BTreeMap<&str, &str> =
        known.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut text = String::new();
    for (name, fields) in definitions(&workspace.join(SCHEMAS))? {
        if let Some(line) = known.get(name.as_str()) {
            text.push_str(&format!("{name} {line}\n"));
            continue;
        }
        let name_in_source = name.to_lowercase();
        // A version that became stable after the source's release kept its beta's numbers.
        let beta = name_in_source.replace(".v1.", ".v1beta1.");
        let found = [name_in_source, beta].into_iter().find(|name| messages.contains_key(name));
        if let Some((key, message)) = found.and_then(|key| messages.get_key_value(&key)) {
            let module = key.rsplit_once('.').map_or("", |(module, _)| module);
            text.push_str(&format!("{name} {}\n", line(&messages, module, message, &fields, 0)));
        }
    }
    let output = workspace.join(OUTPUT);
    let mut file = GzBuilder::new().write(std::fs::File::create(&output)?, Compression::best());
    file.write_all(text.as_bytes())?;
    file.finish()?;
    println!("{OUTPUT}: {} definitions, {} bytes", text.lines().count(), output.metadata()?.len());
    Ok(())
}

/// Has cargo download the crate; returns its source folder.
fn fetch(folder: &Path) -> Outcome<PathBuf> {
    std::fs::create_dir_all(folder.join("src"))?;
    std::fs::write(folder.join("src/lib.rs"), "")?;
    let (name, version) = CRATE;
    let manifest = format!(
        "[package]\nname = \"source\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\n{name} = {{ version = \"{version}\", default-features = false }}\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    let status =
        Command::new("cargo").args(["vendor", "-q", "vendor"]).current_dir(folder).status()?;
    if !status.success() {
        return Err(format!("cargo vendor in {} failed: {status}", folder.display()).into());
    }
    Ok(folder.join("vendor").join(name).join("src"))
}

fn read_folder(folder: &Path, prefix: &str, messages: &mut Messages) -> Outcome<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            read_folder(&path, &format!("{prefix}.{name}"), messages)?;
        } else if name == "mod.rs" {
            read_module(&std::fs::read_to_string(&path)?, prefix, messages);
        }
    }
    Ok(())
}

/// Reads one generated module line by line.
fn read_module(text: &str, prefix: &str, messages: &mut Messages) {
    let mut current = String::new();
    let mut number = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) =
            line.strip_prefix("pub struct ").and_then(|l| l.split([' ', '{']).next())
        {
            current = format!("{prefix}.{name}").to_lowercase();
            messages.entry(current.clone()).or_default();
        } else if line.starts_with("#[prost(") {
            let tag = line.split("tag = \"").nth(1).and_then(|rest| rest.split('"').next());
            number = tag
                .and_then(|tag| tag.parse().ok())
                .map(|tag: u32| (tag, line.contains("(message")));
        } else if let (Some((tag, is_message)), Some(rest)) =
            (number.take(), line.strip_prefix("pub "))
        {
            let (name, kind) = rest.split_once(':').unwrap_or((rest, ""));
            let kind = kind.trim_end_matches([',', '>']).rsplit(['<', ':']).next().unwrap_or("");
            let name = name.trim_start_matches("r#").replace('_', "").to_lowercase();
            let message = is_message.then(|| kind.trim().to_lowercase());
            messages.entry(current.clone()).or_default().push(Field { name, number: tag, message });
        }
    }
}

/// Definitions and their fields' JSON names, from the structural schemas.
fn definitions(path: &Path) -> Outcome<Vec<(String, Vec<String>)>> {
    let file = std::fs::read(path)?;
    let mut text = String::new();
    GzDecoder::new(file.as_slice()).read_to_string(&mut text)?;
    let mut definitions = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let fields = line[3].as_array().into_iter().flatten();
        let fields: Vec<String> = fields.filter_map(|f| f[0].as_str().map(str::to_owned)).collect();
        definitions.push((line[0].as_str().unwrap_or_default().to_owned(), fields));
    }
    Ok(definitions)
}

/// The numbers of a message's fields that have one of these JSON names. A message of another
/// name is one that JSON flattens.
fn line(
    messages: &Messages,
    module: &str,
    message: &[Field],
    names: &[String],
    depth: usize,
) -> String {
    let by_lower: BTreeMap<String, &String> = names.iter().map(|n| (plain(n), n)).collect();
    let mut parts = BTreeSet::new();
    for field in message {
        if let Some(name) = by_lower.get(&field.name) {
            let number = field.number;
            parts.insert((
                number,
                match field.message.as_deref() {
                    Some(WRAPPED_LIST) => format!("{number}({name}=1)"),
                    _ if SHOWN.contains(&name.as_str()) => format!("{name}={number}*"),
                    _ => format!("{name}={number}"),
                },
            ));
        } else if let (Some(inner), true) = (&field.message, depth < FLATTENED_DEPTH_MAX) {
            let inner = messages.get(&format!("{module}.{inner}"));
            let inner = inner
                .map(|inner| line(messages, module, inner, names, depth + 1))
                .unwrap_or_default();
            if !inner.is_empty() {
                parts.insert((field.number, format!("{}({inner})", field.number)));
            }
        }
    }
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    parts.join(" ")
}

/// A JSON name as the source's names compare: `x-kubernetes-list-type`, `$ref` and `_` names too.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_lowercase()
}
