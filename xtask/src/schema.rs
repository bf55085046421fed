//! `cargo xtask generate`: makes `crates/api/data/kubernetes.gz`, the schemas of the built-in
//! kinds, from the official OpenAPI definitions.
//!
//! The source is the Python package `kubernetes-validate`, fetched by name with pip: it carries
//! the definitions of every release with all `x-kubernetes-*` extensions. What it changes for
//! its own purpose (nullable types, enumerated apiVersion and kind) is undone here. Definitions of
//! alpha and beta versions are left out: they are not served.
//!
//! The file has two gzip members. The first is the structural part without descriptions, small
//! enough to stay in memory: a line for each definition, `[name, flags, kinds, fields]`. The
//! second has a line for each definition as OpenAPI v2 JSON, to be streamed into documents.

use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Package and version of the definitions' source.
const PACKAGE: &str = "kubernetes-validate==1.37.0";
/// Folder of the API level inside the package.
const DEFINITIONS: &str =
    "kubernetes_validate/kubernetes-json-schema/v1.36.0-local/_definitions.json";
/// Where the result goes, below the workspace.
const OUTPUT: &str = "crates/api/data/kubernetes.gz";

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
/// The source has no text for these two.
const QUANTITY_TEXT: &str = "Quantity is a fixed-point representation of a number. It provides convenient marshaling/unmarshaling in JSON and YAML, in addition to String() and AsInt64() accessors.";
const INT_OR_STRING_TEXT: &str = "IntOrString is a type that can hold an int32 or a string.  When used in JSON or YAML marshalling and unmarshalling, it produces or consumes the inner type.  This allows you to have, for example, a JSON field that can accept a name or number.";

/// Defaults that server-side apply needs for the keys of list items; the source leaves defaults
/// out.
const DEFAULTS: [(&str, &str, &str); 2] = [
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Fetches the definitions and writes the data file.
pub fn generate() -> Result<(), String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    write(workspace).map_err(|error| error.to_string())
}

fn write(workspace: &Path) -> Outcome<()> {
    let folder = workspace.join("target/generate");
    let source: Value = serde_json::from_slice(&std::fs::read(fetch(&folder)?)?)?;
    let definitions = source["$defs"].as_object().ok_or("the source has no $defs")?;
    let definitions: BTreeMap<&str, Value> = definitions
        .iter()
        .filter(|(name, _)| is_stable(name))
        .map(|(name, definition)| (name.as_str(), official(name, definition)))
        .collect();
    check(&definitions)?;

    let numbers: BTreeMap<&str, usize> =
        definitions.keys().enumerate().map(|(number, name)| (*name, number)).collect();
    let mut structural = String::new();
    let mut documents = String::new();
    for (name, definition) in &definitions {
        structural.push_str(&compact(name, definition, &numbers)?.to_string());
        structural.push('\n');
        documents.push_str(&format!("{}:{definition}\n", Value::from(*name)));
    }
    let output = workspace.join(OUTPUT);
    let mut file = std::fs::File::create(&output)?;
    for text in [&structural, &documents] {
        let mut member = GzBuilder::new().write(&mut file, Compression::best());
        member.write_all(text.as_bytes())?;
        member.finish()?;
    }
    println!(
        "{}: {} definitions, structural {} bytes, documents {} bytes, together {} bytes compressed",
        OUTPUT,
        definitions.len(),
        structural.len(),
        documents.len(),
        output.metadata()?.len()
    );
    Ok(())
}

/// Downloads and unpacks the package; returns the path of the definitions.
fn fetch(folder: &Path) -> Outcome<PathBuf> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let pip =
        ["-m", "pip", "-q", "download", "--no-deps", "--only-binary=:all:", "-d", ".", PACKAGE];
    run(Command::new("python3").args(pip).current_dir(folder))?;
    let wheel = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or("pip left no wheel behind")?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder))?;
    Ok(folder.join(DEFINITIONS))
}

fn run(command: &mut Command) -> Outcome<()> {
    let status = command.status().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}").into()) }
}

/// Whether a definition's version is neither alpha nor beta.
fn is_stable(name: &str) -> bool {
    let unstable = |part: &str| {
        part.strip_prefix('v').is_some_and(|v| v.contains("alpha") || v.contains("beta"))
    };
    !name.split('.').any(unstable)
}

fn is_stable_version(version: &str) -> bool {
    !version.contains("alpha") && !version.contains("beta")
}

/// Undoes the source's changes: what upstream publishes for this definition.
fn official(name: &str, definition: &Value) -> Value {
    match name {
        QUANTITY => json!({"description": QUANTITY_TEXT, "type": "string"}),
        INT_OR_STRING => {
            json!({"description": INT_OR_STRING_TEXT, "type": "string", "format": "int-or-string"})
        }
        _ => {
            let mut definition = restore(definition);
            for (_, field, default) in DEFAULTS.iter().filter(|(of, ..)| *of == name) {
                definition["properties"][*field]["default"] = json!(default);
            }
            definition
        }
    }
}

fn restore(schema: &Value) -> Value {
    let Some(schema) = schema.as_object() else { return schema.clone() };
    let mut restored = Map::new();
    for (key, value) in schema {
        let value = match key.as_str() {
            "enum" => continue,
            "type" => value.as_array().and_then(|t| t.first()).unwrap_or(value).clone(),
            "$ref" => {
                json!(value.as_str().unwrap_or_default().replace("#/$defs/", "#/definitions/"))
            }
            "items" | "additionalProperties" => restore(value),
            "properties" => {
                let fields = value.as_object().into_iter().flatten();
                fields.map(|(name, field)| (name.clone(), restore(field))).collect()
            }
            "x-kubernetes-group-version-kind" => {
                let kinds = value.as_array().into_iter().flatten();
                kinds
                    .filter(|k| is_stable_version(k["version"].as_str().unwrap_or("")))
                    .cloned()
                    .collect()
            }
            _ => value.clone(),
        };
        restored.insert(key.clone(), value);
    }
    Value::Object(restored)
}

/// One definition without descriptions: `[name, flags, [[group, version, kind]..], fields]`.
/// A definition that is not an object has a type instead of fields.
fn compact(name: &str, definition: &Value, numbers: &BTreeMap<&str, usize>) -> Outcome<Value> {
    let kinds = definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
    let kinds: Vec<Value> = kinds.map(|k| json!([k["group"], k["version"], k["kind"]])).collect();
    let atomic = definition["x-kubernetes-map-type"] == "atomic";
    let flags = if atomic { "a" } else { "" };
    let Some(fields) = definition["properties"].as_object() else {
        let node = special(name).map_or_else(|| node(definition, numbers), |t| Ok(json!(t)))?;
        return Ok(json!([name, flags, kinds, node]));
    };
    let required: Vec<&Value> = definition["required"].as_array().into_iter().flatten().collect();
    let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let mut compacted = Vec::new();
    for (field, schema) in sorted {
        let mut entry = vec![json!(field), node(schema, numbers)?, attributes(schema)];
        if required.iter().any(|name| *name == field) {
            entry[2]["!"] = json!(1);
        }
        if entry[2] == json!({}) {
            entry.pop();
        }
        compacted.push(Value::Array(entry));
    }
    Ok(json!([name, flags, kinds, compacted]))
}

/// Types whose JSON form is not that of their structure.
fn special(name: &str) -> Option<&'static str> {
    Some(match name.rsplit('.').next().unwrap_or(name) {
        "Quantity" => "quantity",
        "IntOrString" => "intstr",
        "MicroTime" => "microtime",
        "Time" => "time",
        _ => return None,
    })
}

/// A type: a word, a definition's number, `["[]", item]` for lists, `["{}", value]` for maps.
fn node(schema: &Value, numbers: &BTreeMap<&str, usize>) -> Outcome<Value> {
    if let Some(target) = schema["$ref"].as_str() {
        let target = target.trim_start_matches("#/definitions/");
        let number = numbers.get(target).ok_or_else(|| format!("{target} is not defined"))?;
        return Ok(json!(number));
    }
    let format = schema["format"].as_str().unwrap_or_default();
    Ok(match (schema["type"].as_str().unwrap_or_default(), format) {
        ("string", "byte") => json!("bytes"),
        ("string", "") => json!("string"),
        ("integer", "int32") => json!("int32"),
        ("integer", "int64") => json!("int64"),
        ("number", "double") => json!("number"),
        ("boolean", "") => json!("bool"),
        ("array", "") => json!(["[]", node(&schema["items"], numbers)?]),
        ("object", "") if schema["additionalProperties"].is_object() => {
            json!(["{}", node(&schema["additionalProperties"], numbers)?])
        }
        ("object" | "", "") => json!("any"),
        other => return Err(format!("unknown type {other:?} in {schema}").into()),
    })
}

/// What a field says of merging: list type `l`, its keys `k`, map type `m`, patch merge key `p`,
/// patch strategy `s`, default `d`.
fn attributes(schema: &Value) -> Value {
    let mut attributes = Map::new();
    for (key, short) in [
        ("x-kubernetes-list-type", "l"),
        ("x-kubernetes-list-map-keys", "k"),
        ("x-kubernetes-map-type", "m"),
        ("x-kubernetes-patch-merge-key", "p"),
        ("x-kubernetes-patch-strategy", "s"),
        ("default", "d"),
    ] {
        if let Some(value) = schema.get(key) {
            attributes.insert(short.to_owned(), value.clone());
        }
    }
    Value::Object(attributes)
}

/// The source must hold what the release is known to hold; a changed package shows here. Three
/// of the extensions are names of fields too (`JSONSchemaProps`), which counts once more.
fn check(definitions: &BTreeMap<&str, Value>) -> Outcome<()> {
    let text = serde_json::to_string(&definitions)?;
    for (extension, expected) in [
        ("x-kubernetes-list-type", 304),
        ("x-kubernetes-list-map-keys", 60),
        ("x-kubernetes-map-type", 34),
        ("x-kubernetes-patch-merge-key", 54),
        ("x-kubernetes-patch-strategy", 58),
        ("x-kubernetes-group-version-kind", 139),
    ] {
        let found = text.matches(&format!("\"{extension}\":")).count();
        if found != expected {
            return Err(format!("{extension} occurs {found} times instead of {expected}").into());
        }
    }
    Ok(())
}
