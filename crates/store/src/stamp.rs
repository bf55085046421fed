//! Writing a revision into a JSON value without parsing it.

use bytes::Bytes;

use crate::Revision;

/// Writes `"<member>":"<revision>"` as the first member of the object that `opener` opens
/// (for instance `"metadata":{`, first occurrence), replacing a stamp that stands there
/// already. A value without `opener` comes back as it is.
pub fn stamp_member(value: &[u8], opener: &[u8], member: &str, revision: Revision) -> Bytes {
    let Some(at) = value.windows(opener.len()).position(|w| w == opener) else {
        return Bytes::copy_from_slice(value);
    };
    let (head, rest) = value.split_at(at + opener.len());
    let rest = without_stamp(rest, member);
    let comma = if rest.first() == Some(&b'}') { "" } else { "," };
    let stamp = format!("\"{member}\":\"{revision}\"{comma}");
    let mut out = Vec::with_capacity(head.len() + stamp.len() + rest.len());
    out.extend_from_slice(head);
    out.extend_from_slice(stamp.as_bytes());
    out.extend_from_slice(rest);
    out.into()
}

/// What follows an earlier stamp at the very beginning of `rest`, or all of it.
fn without_stamp<'a>(rest: &'a [u8], member: &str) -> &'a [u8] {
    let prefix = format!("\"{member}\":\"");
    let Some(after) = rest.strip_prefix(prefix.as_bytes()) else { return rest };
    let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
    let Some(after) = after[digits..].strip_prefix(b"\"") else { return rest };
    after.strip_prefix(b",").unwrap_or(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        for (value, expected) in [
            (
                r#"{"kind":"A","metadata":{"name":"x"}}"#,
                r#"{"kind":"A","metadata":{"rv":"7","name":"x"}}"#,
            ),
            (r#"{"metadata":{}}"#, r#"{"metadata":{"rv":"7"}}"#),
            (r#"{"metadata":{"rv":"123","name":"x"}}"#, r#"{"metadata":{"rv":"7","name":"x"}}"#),
            (r#"{"metadata":{"rv":"123"}}"#, r#"{"metadata":{"rv":"7"}}"#),
            (
                r#"{"metadata":{"a":1},"b":{"metadata":{}}}"#,
                r#"{"metadata":{"rv":"7","a":1},"b":{"metadata":{}}}"#,
            ),
            (r#"{"other":1}"#, r#"{"other":1}"#),
        ] {
            let stamped = stamp_member(value.as_bytes(), b"\"metadata\":{", "rv", 7);
            assert_eq!(std::str::from_utf8(&stamped), Ok(expected));
        }
    }
}
