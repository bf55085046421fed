//! The grammar of `Accept`, as far as upstream's clients use it.

use api::protobuf;
use api::table::Include;

/// In which shape objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Whole.
    Object,
    /// `metadata` alone (`as=PartialObjectMetadata[List]`).
    Partial,
    /// Printed columns (`as=Table`), and what goes along with each row.
    Table(Include),
}

/// In which notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// The clauses of an `Accept`, best first.
pub(crate) fn clauses(accept: &str) -> Vec<&str> {
    let mut clauses: Vec<&str> = accept.split(',').collect();
    // Stable: of clauses with one quality the first wins.
    clauses.sort_by_key(|clause| std::cmp::Reverse(quality(clause)));
    clauses
}

fn quality(clause: &str) -> u32 {
    let q = clause.split(';').skip(1).find_map(|part| part.trim().strip_prefix("q="));
    q.and_then(|q| q.trim().parse::<f32>().ok()).map_or(1000, |q| (q * 1000.0) as u32)
}

/// The notation of a media type, as far as it is served.
pub(crate) fn notation(media_type: &str) -> Option<Format> {
    match media_type {
        "application/json" | "application/*" | "*/*" => Some(Format::Json),
        "application/yaml" => Some(Format::Yaml),
        protobuf::MEDIA_TYPE => Some(Format::Protobuf),
        _ => None,
    }
}

/// What a clause asks for, and whether a shape is to be of `meta.k8s.io/v1beta1`; `None` where
/// it is nothing that there is.
pub(super) fn understand(clause: &str) -> Option<(Shape, Format, bool)> {
    let mut parts = clause.split(';').map(str::trim);
    let format = notation(parts.next()?)?;
    let (mut shape, mut beta) = (Shape::Object, false);
    for part in parts {
        match part.split_once('=') {
            Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                shape = Shape::Partial
            }
            Some(("as", "Table")) => shape = Shape::Table(Include::Metadata),
            Some(("as", _)) => return None,
            Some(("v", "v1beta1")) => beta = true,
            Some(("v", version)) if version != "v1" => return None,
            Some(("g", group)) if group != "meta.k8s.io" => return None,
            _ => {}
        }
    }
    Some((shape, format, beta && shape != Shape::Object))
}
