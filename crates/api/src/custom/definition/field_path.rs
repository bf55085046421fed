//! Paths by which rules and selectable fields name a field of a schema: `.spec.a['b'].c`.
//! Source: `ValidFieldPath` in `pkg/apiserver/schema/cel` of apiextensions-apiserver.

use serde_json::Value;

/// The steps of a path, or why it is none.
fn steps(path: &str) -> Result<Vec<String>, String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = quoted.split_once("']").ok_or("unterminated quoted string")?;
            steps.push(name.to_owned());
            rest = after;
        } else if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 {
                return Err("unexpected end of JSON path".to_owned());
            }
            steps.push(name[..end].to_owned());
            rest = &name[end..];
        } else {
            let first = rest.chars().next().unwrap_or_default();
            return Err(format!("expected [ or . but got: {first}"));
        }
    }
    if steps.is_empty() { Err("unexpected end of JSON path".to_owned()) } else { Ok(steps) }
}

/// The schema at a path, and the path's first step.
pub(super) fn find<'s>(schema: &'s Value, path: &str) -> Result<(&'s Value, String), String> {
    let steps = steps(path)?;
    let mut at = schema;
    for step in &steps {
        let others = &at["additionalProperties"];
        at = match at["properties"].get(step) {
            Some(member) => member,
            None if others.is_object() => others,
            None => return Err("does not refer to a valid field".to_owned()),
        };
    }
    Ok((at, steps.into_iter().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_schemas() {
        let schema = json!({"properties": {"a": {"properties": {"b.c": {"type": "string"}}},
            "map": {"additionalProperties": {"type": "integer"}}}});
        let say = |path: &str| match find(&schema, path) {
            Ok((found, first)) => format!("{first} {}", found["type"]),
            Err(why) => why,
        };
        assert_eq!(say(".a['b.c']"), "a \"string\"");
        assert_eq!(say(".map.x"), "map \"integer\"");
        assert_eq!(say(".a.b"), "does not refer to a valid field");
        assert_eq!(say("a"), "expected [ or . but got: a");
        assert_eq!(say(".a['b"), "unterminated quoted string");
        assert_eq!(say(""), "unexpected end of JSON path");
    }
}
