//! What a label's key and value may look like, with upstream's messages.

const NAME_LIMIT_BYTES: usize = 63;
const PREFIX_LIMIT_BYTES: usize = 253;

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN_RULE: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What is wrong with a label's key (a "qualified name"); empty when nothing is.
pub fn label_key_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(subdomain_errors(prefix).map(|e| format!("prefix part {e}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > NAME_LIMIT_BYTES {
        errors.push(format!("name part must be no more than {NAME_LIMIT_BYTES} bytes"));
    }
    if !is_name(name) {
        errors.push(format!("name part {NAME_RULE}"));
    }
    errors
}

/// What is wrong with a label's value; empty when nothing is.
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > NAME_LIMIT_BYTES {
        errors.push(format!("must be no more than {NAME_LIMIT_BYTES} bytes"));
    }
    if !value.is_empty() && !is_name(value) {
        errors.push(VALUE_RULE.to_owned());
    }
    errors
}

pub(crate) fn subdomain_errors(text: &str) -> impl Iterator<Item = String> {
    let too_long = (text.len() > PREFIX_LIMIT_BYTES)
        .then(|| format!("must be no more than {PREFIX_LIMIT_BYTES} bytes"));
    let malformed = !text.split('.').all(is_dns_label);
    too_long.into_iter().chain(malformed.then(|| SUBDOMAIN_RULE.to_owned()))
}

fn is_dns_label(text: &str) -> bool {
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(lower)
        && bytes.last().is_some_and(lower)
        && bytes.iter().all(|b| lower(b) || *b == b'-')
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let long = "a".repeat(64);
        for (key, expected) in [
            ("app", ""),
            ("app.kubernetes.io/name", ""),
            ("A_b-1.c", ""),
            ("/x", "prefix part must be non-empty"),
            (&long, "name part must be no more than 63 bytes"),
        ] {
            assert_eq!(label_key_errors(key).join("; "), expected, "{key}");
        }
        assert_eq!(label_key_errors("").len(), 2);
        assert!(label_key_errors("a/b/c")[0].starts_with("a qualified name must consist of"));
        assert!(label_key_errors("A.b/c")[0].starts_with("prefix part a lowercase RFC 1123"));
        assert!(label_key_errors("-a")[0].starts_with("name part must consist of"));
    }

    #[test]
    fn values() {
        assert!(label_value_errors("").is_empty());
        assert!(label_value_errors("a.b_C-1").is_empty());
        assert!(label_value_errors("a b")[0].starts_with("a valid label must be an empty string"));
        assert_eq!(label_value_errors(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }
}
