//! What the server makes up for an object: a generated name and its times.

use jiff::Timestamp;

/// How many random characters a generated name ends with.
const SUFFIX_CHARS: usize = 5;
/// A generated name is at most this long, the suffix included.
const MAX_GENERATED_NAME_BYTES: usize = 63;

/// A name from `metadata.generateName`: the base, cut where needed, and five characters.
pub fn generate(base: &str) -> String {
    let mut end = base.len().min(MAX_GENERATED_NAME_BYTES - SUFFIX_CHARS);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], base::names::random_suffix(SUFFIX_CHARS))
}

/// `metav1.Time`'s form: UTC, whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_the_limit() {
        assert_eq!(generate(&"x".repeat(80)).len(), 63);
        assert!(generate("web-").starts_with("web-"));
        assert_eq!(generate("web-").len(), 9);
    }

    #[test]
    fn times_are_whole_seconds_in_utc() {
        let at = Timestamp::from_millisecond(1_700_000_000_900).unwrap();
        assert_eq!(time(at), "2023-11-14T22:13:20Z");
    }
}
