//! Server-side printing: objects as rows of a `meta.k8s.io/v1` `Table`, which is what
//! `kubectl get` shows, and as `PartialObjectMetadata`.
//!
//! Columns and cells are upstream's (`pkg/printers/internalversion`). Cells are made from an
//! object in the version it is stored in.

mod column;
mod config;
mod duration;
mod network;
mod pod;
mod policy;
mod storage;
mod workload;

pub use column::Column;
pub use duration::human_duration;

pub(crate) use duration::between as since;

use crate::resource::Resource;
use column::{AGE, CREATED_AT, Context, NAME};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Columns by group and kind.
const TABLES: [&[(&str, &str, &[Column])]; 5] =
    [workload::TABLES, network::TABLES, storage::TABLES, policy::TABLES, config::TABLES];

/// Prints objects of one kind.
#[derive(Clone)]
pub struct Printer {
    columns: &'static [Column],
    /// Columns of a defined kind, behind the others.
    custom: Vec<crate::custom::Column>,
    /// Rows of pods carry conditions.
    pods: bool,
}

/// What a row carries beside its cells (the query parameter `includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The object's metadata; what holds when the client does not say.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the query parameter.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "None" => Self::None,
            "" | "Metadata" => Self::Metadata,
            "Object" => Self::Object,
            _ => return None,
        })
    }
}

impl Printer {
    /// The printer of a kind. Built-in kinds that have none show name and creation time, custom
    /// ones name and age.
    pub fn of(group: &str, kind: &str) -> Self {
        let mut rows = TABLES.iter().copied().flatten();
        let columns = rows.find(|(g, k, _)| (*g, *k) == (group, kind)).map(|(_, _, c)| *c);
        let builtin = || crate::resource::RESOURCES.iter().any(|r| r.group == group);
        let columns =
            columns.unwrap_or_else(|| if builtin() { &[NAME, CREATED_AT] } else { &[NAME, AGE] });
        Self { columns, custom: Vec::new(), pods: (group, kind) == ("", "Pod") }
    }

    /// The printer of a kind in one of its versions, built in or defined.
    pub fn of_resource(resource: &Resource, version: &str) -> Self {
        let columns = resource.custom.as_ref().map_or(&[][..], |custom| custom.columns(version));
        if columns.is_empty() {
            return Self::of(&resource.storage_group, &resource.kind);
        }
        Self { columns: &[NAME], custom: columns.to_vec(), pods: false }
    }

    /// The columns.
    pub fn columns(&self) -> &'static [Column] {
        self.columns
    }

    /// `columnDefinitions` of the table.
    pub fn column_definitions(&self) -> Value {
        let custom = self.custom.iter().map(crate::custom::Column::definition);
        self.columns.iter().map(Column::to_json).chain(custom).collect()
    }

    /// One row: `object` in its stored version gives the cells, `shown` goes along.
    pub fn row(&self, object: &Value, now: Timestamp, shown: Option<Value>) -> Value {
        let context = Context { now };
        let custom = self.custom.iter().map(|column| column.cell(object, now));
        let cells = self.columns.iter().map(|column| column.print(object, &context));
        let cells: Vec<Value> = cells.chain(custom).collect();
        let mut row = json!({"cells": cells});
        if let Some(conditions) = pod::conditions(object).filter(|_| self.pods) {
            row["conditions"] = conditions;
        }
        row["object"] = shown.unwrap_or(Value::Null);
        row
    }

    /// A whole table of objects in their stored version. `metadata` is the list's; a watch
    /// leaves the column definitions out of all tables but the first (`headers`).
    pub fn table<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a Value>,
        metadata: Value,
        now: Timestamp,
        include: Include,
        headers: bool,
    ) -> Value {
        let shown = |object: &Value| match include {
            Include::None => None,
            Include::Metadata => Some(partial_metadata(object)),
            Include::Object => Some(object.clone()),
        };
        let rows: Vec<Value> =
            objects.into_iter().map(|object| self.row(object, now, shown(object))).collect();
        self.assemble(rows, metadata, headers)
    }

    /// A table of rows made with [`Printer::row`].
    pub fn assemble(&self, rows: Vec<Value>, metadata: Value, headers: bool) -> Value {
        let columns = if headers { self.column_definitions() } else { json!([]) };
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": columns,
            "rows": rows,
        })
    }
}

/// The columns of all kinds.
fn all_columns() -> impl Iterator<Item = &'static [Column]> {
    let own = TABLES.iter().copied().flatten().map(|(_, _, columns)| *columns);
    own.chain([&[NAME, AGE, CREATED_AT][..]])
}

/// An object reduced to its metadata.
pub fn partial_metadata(object: &Value) -> Value {
    partial("PartialObjectMetadata", &object["metadata"])
}

/// A list reduced to its items' metadata; `metadata` is the list's.
pub fn partial_metadata_list<'a>(
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: &Value,
) -> Value {
    let mut list = partial("PartialObjectMetadataList", metadata);
    list["items"] = objects.into_iter().map(partial_metadata).collect();
    list
}

fn partial(kind: &str, metadata: &Value) -> Value {
    let metadata = if metadata.is_null() { Value::Object(Map::new()) } else { metadata.clone() };
    json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells of one object as text, at 2026-01-01T01:00:00Z.
    pub(super) fn cells(group: &str, kind: &str, object: &str) -> String {
        let object: Value = serde_json::from_str(object).unwrap();
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let row = Printer::of(group, kind).row(&object, now, None);
        let texts = row["cells"].as_array().unwrap().iter().map(|cell| match cell {
            Value::String(text) => text.clone(),
            other => format!("#{other}"),
        });
        texts.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn a_table_of_config_maps() {
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "data": {"k": "v"}});
        let now = "2026-01-01T00:05:30Z".parse().unwrap();
        let metadata = json!({"resourceVersion": "7"});
        let printer = Printer::of("", "ConfigMap");
        let table = printer.table([&object], metadata.clone(), now, Include::Metadata, true);
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["metadata"], metadata);
        assert_eq!(
            table["rows"],
            json!([{"cells": ["a", 1, "5m30s"], "object": {"kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]}}])
        );
        let name = &table["columnDefinitions"][0];
        assert_eq!(name["name"], "Name");
        assert_eq!(
            (&name["type"], &name["format"], &name["priority"]),
            (&json!("string"), &json!("name"), &json!(0))
        );
        assert!(name["description"].as_str().unwrap().starts_with("Name must be unique within"));
        let bare = printer.table([&object], json!({}), now, Include::None, false);
        assert_eq!(bare["rows"][0]["object"], Value::Null);
        assert_eq!(bare["columnDefinitions"], json!([]));
    }

    #[test]
    fn kinds_without_a_printer() {
        let object = r#"{"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}}"#;
        let created = "a | 2026-01-01T00:00:00Z";
        assert_eq!(cells("rbac.authorization.k8s.io", "ClusterRole", object), created);
        assert_eq!(cells("", "LimitRange", object), created);
        assert_eq!(cells("example.com", "Widget", object), "a | 60m");
    }

    /// Columns as `kubectl get -o wide` heads them; priority 1 in brackets.
    #[test]
    fn columns_are_upstreams() {
        for (group, kind, expected) in [
            (
                "",
                "Pod",
                "Name Ready Status Restarts Age [IP] [Node] [Nominated Node] [Readiness Gates]",
            ),
            (
                "apps",
                "Deployment",
                "Name Ready Up-to-date Available Age [Containers] [Images] [Selector]",
            ),
            ("", "Service", "Name Type Cluster-IP External-IP Port(s) Age [Selector]"),
            (
                "",
                "Node",
                "Name Status Roles Age Version [Internal-IP] [External-IP] [OS-Image] [Kernel-Version] [Container-Runtime]",
            ),
            (
                "",
                "Event",
                "Last Seen Type Reason Object [Subobject] [Source] Message [First Seen] [Count] [Name]",
            ),
            (
                "batch",
                "Job",
                "Name Status Completions Duration Age [Containers] [Images] [Selector]",
            ),
            (
                "rbac.authorization.k8s.io",
                "RoleBinding",
                "Name Role Age [Users] [Groups] [ServiceAccounts]",
            ),
        ] {
            let names = Printer::of(group, kind).columns().iter().map(|column| {
                if column.priority == 0 {
                    column.name.to_owned()
                } else {
                    format!("[{}]", column.name)
                }
            });
            assert_eq!(names.collect::<Vec<_>>().join(" "), expected);
        }
    }

    #[test]
    fn every_column_has_a_description() {
        for resource in crate::resource::RESOURCES.iter() {
            for column in Printer::of(&resource.group, &resource.kind).columns() {
                let json = column.to_json();
                assert_ne!(json["description"], "", "{} {}", resource.kind, column.name);
            }
        }
    }

    #[test]
    fn metadata_alone() {
        let object =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}});
        let list = partial_metadata_list([&object], &json!({"resourceVersion": "1"}));
        assert_eq!(
            list,
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": "1"},
                "items": [{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}}]})
        );
    }
}
