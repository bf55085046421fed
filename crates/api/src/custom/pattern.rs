//! Patterns of schemas: regular expressions as Go reads them, kept once they are compiled.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;

/// Largest compiled pattern, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Patterns that are kept; when there are more, all are forgotten.
const KEPT_MAX: usize = 256;

static KEPT: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);

/// The pattern, if it is one.
pub(super) fn compiled(pattern: &str) -> Option<Regex> {
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept().get(pattern) {
        return known.clone();
    }
    let made = regex::RegexBuilder::new(&translated(pattern)).size_limit(MAX_BYTES).build().ok();
    let mut all = kept();
    if all.len() >= KEPT_MAX {
        all.clear();
    }
    all.insert(pattern.to_owned(), made.clone());
    made
}

/// The same pattern for a reader to whom `\d` and its like are all of Unicode's, and a bracket
/// within brackets is a class of its own.
fn translated(pattern: &str) -> String {
    let mut made = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let (mut in_class, mut first) = (false, false);
    while let Some(next) = chars.next() {
        let opened = std::mem::take(&mut first);
        match next {
            '\\' => {
                let escaped = chars.next().unwrap_or_default();
                match (escaped, in_class) {
                    ('d' | 'w' | 's', false) => made.push_str(&format!("[{}]", ascii(escaped))),
                    ('D' | 'W' | 'S', false) => made.push_str(&format!("[^{}]", ascii(escaped))),
                    ('d' | 'w' | 's', true) => made.push_str(ascii(escaped)),
                    _ => {
                        made.push('\\');
                        made.push(escaped);
                    }
                }
            }
            '[' if !in_class => {
                (in_class, first) = (true, true);
                made.push('[');
                if chars.peek() == Some(&'^') {
                    made.extend(chars.next());
                }
            }
            // The first of a class stands for itself.
            ']' if in_class && opened => made.push_str("\\]"),
            ']' if in_class => {
                in_class = false;
                made.push(']');
            }
            '[' if chars.peek() != Some(&':') => made.push_str("\\["),
            '&' | '~' if in_class => {
                made.push('\\');
                made.push(next);
            }
            other => made.push(other),
        }
    }
    made
}

fn ascii(class: char) -> &'static str {
    match class.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        _ => r"\t\n\x0c\r ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_as_go_reads_them() {
        for (pattern, text, expected) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "\u{0661}", false),
            (r"^[\w.]+$", "a_1.", true),
            (r"^[\w.]+$", "ä", false),
            (r"^\D$", "ä", true),
            ("^[[a]+$", "[a", true),
            ("^[]a]+$", "]a", true),
            ("^[^]a]$", "b", true),
            ("^[a&&b]+$", "a&b", true),
            ("^[[:alpha:]]+$", "ab", true),
            (r"^(a|\.b)*$", ".ba", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
        ] {
            let regex = compiled(pattern).unwrap_or_else(|| panic!("{pattern}"));
            assert_eq!(regex.is_match(text), expected, "{pattern} {text}");
        }
        assert!(compiled("a(").is_none() && compiled("(?=a)").is_none());
    }
}
