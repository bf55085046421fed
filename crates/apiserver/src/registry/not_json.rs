//! What Go's decoder says of a text that is no JSON: people search for these sentences.

use serde_json::Error;

/// What our decoder says, and what Go's says of the byte that it stopped at.
const CONTEXTS: [(&str, &str); 8] = [
    ("key must be a string", "looking for beginning of object key string"),
    ("expected value", "looking for beginning of value"),
    ("expected `:`", "after object key"),
    ("expected `,` or `}`", "after object key:value pair"),
    ("expected `,` or `]`", "after array element"),
    ("trailing characters", "after top-level value"),
    ("control character", "in string literal"),
    ("invalid escape", "in string escape code"),
];

/// Why `text` cannot be read.
pub fn why(text: &[u8], error: &Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".to_owned();
    }
    let said = error.to_string();
    let Some(byte) = byte_at(text, error.line(), error.column()) else { return said };
    let context = match (said.starts_with("trailing comma"), byte) {
        (true, b'}') => Some(CONTEXTS[0].1),
        (true, _) => Some(CONTEXTS[1].1),
        _ => CONTEXTS.iter().find(|(own, _)| said.starts_with(own)).map(|(_, context)| *context),
    };
    context.map_or(said, |context| format!("invalid character {} {context}", quoted(byte)))
}

/// Lines and columns count from one.
fn byte_at(text: &[u8], line: usize, column: usize) -> Option<u8> {
    let line = text.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?;
    line.get(column.checked_sub(1)?).copied()
}

fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        // Go takes a byte for a character.
        byte => {
            let quoted = api::status::go_quote(&char::from(byte).to_string());
            format!("'{}'", quoted.trim_matches('"'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn mistakes_are_named_as_go_names_them() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            (r#"{"a": "#, "unexpected end of JSON input"),
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("{'a': 1}", r"invalid character '\'' looking for beginning of object key string"),
            ("nope", "expected ident at line 1 column 2"),
            ("\n  ?", "invalid character '?' looking for beginning of value"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a": 1 "b"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a": 1,}"#, "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("[\"\t\"]", r"invalid character '\t' in string literal"),
            (r#"["\q"]"#, "invalid character 'q' in string escape code"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(why(text.as_bytes(), &error), expected, "{text}");
        }
    }
}
