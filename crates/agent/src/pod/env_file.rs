//! Files of variables in a volume, which `fileKeyRef` draws on (KEP-3721): lines of `NAME='value'`,
//! a value as it stands between its quotes, over several lines too.

/// The value of `key`, where the file has it; what is wrong with the file up to there, otherwise.
pub fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let wrong = |why: &str| {
            Err(format!("invalid environment variable format at line {}: {why}", at + 1))
        };
        let line = line.trim_start_matches(BLANK);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { return wrong("missing '='") };
        if name.trim_end_matches(BLANK).is_empty() {
            return wrong("empty variable name");
        }
        if name.ends_with(BLANK) {
            return wrong("whitespace before '=' is not allowed");
        }
        // As in a shell: a blank after the sign is the end of an empty value.
        if value.starts_with(BLANK) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(mut rest) = value.strip_prefix('\'') else {
            return wrong("value must be enclosed in single quotes");
        };
        let mut value = String::new();
        let after = loop {
            if let Some((last, after)) = rest.split_once('\'') {
                value.push_str(last);
                break after.trim_start_matches(BLANK);
            }
            value.push_str(rest);
            value.push('\n');
            let Some((_, next)) = lines.next() else {
                return Err(format!(
                    "invalid environment variable format starting at line {}: unclosed single quote",
                    at + 1
                ));
            };
            rest = next;
        };
        if !after.is_empty() && !after.starts_with('#') {
            return wrong("unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

const BLANK: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_what_is_wrong() {
        let file = "# first\n\n  A='one' # tail\nB='two\nlines # kept'\nC= 'x'\nD=''\nE='=$A'\n";
        let of = |key: &str| value(file, key).unwrap();
        assert_eq!(of("A").as_deref(), Some("one"));
        assert_eq!(of("B").as_deref(), Some("two\nlines # kept"));
        assert_eq!(of("E").as_deref(), Some("=$A"));
        assert_eq!(["C", "D", "F"].map(of), [None, None, None]);
        for (file, why) in [
            ("A", "at line 1: missing '='"),
            ("\nA = 'x'", "at line 2: whitespace before '=' is not allowed"),
            ("='x'", "at line 1: empty variable name"),
            ("A=x", "at line 1: value must be enclosed in single quotes"),
            ("A='x'y", "at line 1: unexpected content after closing quote"),
            ("A='x\ny", "starting at line 1: unclosed single quote"),
        ] {
            let said = value(file, "Z").unwrap_err();
            assert_eq!(said, format!("invalid environment variable format {why}"));
        }
    }
}
