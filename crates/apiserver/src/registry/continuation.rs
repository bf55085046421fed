//! The tokens by which lists that come in pages go on.

use base64::Engine as _;
use serde_json::Value;

/// Where a paged list goes on: the token clients hand back as `continue`.
/// Upstream's form, base64 of JSON, so that what tools know of it stays true; the key is
/// `namespace/name` (or `/name`), the last one already given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continue {
    /// The revision the list is consistent at; `None` goes on at the newest one.
    pub revision: Option<u64>,
    /// The last namespace and name already given.
    pub after: (String, String),
}

impl Continue {
    /// The token as clients see it.
    pub fn encode(&self) -> String {
        let revision = self.revision.map_or(-1, |revision| revision as i64);
        let start = format!("{}/{}\u{0}", self.after.0, self.after.1);
        let json = serde_json::json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string())
    }

    /// Reads a token; the error is upstream's wording of what is wrong with it.
    pub fn decode(token: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("continue key is not valid: {why}");
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|error| {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _) => at,
                    _ => token.len(),
                };
                wrong(&format!("illegal base64 data at input byte {at}"))
            })?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|e| wrong(&e.to_string()))?;
        if json["v"] != "meta.k8s.io/v1" {
            return Err(wrong("server does not recognize this encoded version"));
        }
        let revision = match json["rv"].as_i64() {
            Some(-1) => None,
            Some(revision) if revision > 0 => Some(revision as u64),
            _ => {
                let why = "incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
                return Err(wrong(why));
            }
        };
        let start = json["start"].as_str().unwrap_or_default();
        if start.is_empty() {
            return Err(wrong("encoded start key empty (version meta.k8s.io/v1)"));
        }
        let key = start.trim_end_matches('\u{0}').trim_start_matches('/');
        let steps = |part: &str| matches!(part, "." | "..");
        let (namespace, name) = match key.split_once('/') {
            Some((namespace, name)) if !name.contains('/') => (namespace, name),
            None => ("", key),
            Some(_) => return Err(wrong(start)),
        };
        if steps(namespace) || steps(name) || name.is_empty() {
            return Err(wrong(start));
        }
        Ok(Self { revision, after: (namespace.to_owned(), name.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn continue_round_trip_and_refusals() {
        let token = Continue { revision: Some(9), after: ("ns".into(), "a".into()) };
        assert_eq!(Continue::decode(&token.encode()), Ok(token));
        let inconsistent = Continue { revision: None, after: (String::new(), "n".into()) };
        assert_eq!(Continue::decode(&inconsistent.encode()), Ok(inconsistent));
        let token =
            |json: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
        for (text, expected) in [
            ("ab%".to_owned(), "illegal base64 data at input byte 2"),
            (token(json!({})), "server does not recognize this encoded version"),
            (
                token(json!({"v": "meta.k8s.io/v1", "rv": 0, "start": "a"})),
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (
                token(json!({"v": "meta.k8s.io/v1", "rv": 1})),
                "encoded start key empty (version meta.k8s.io/v1)",
            ),
            (token(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": "../a"})), "../a"),
        ] {
            let expected = format!("continue key is not valid: {expected}");
            assert_eq!(Continue::decode(&text), Err(expected));
        }
    }
}
