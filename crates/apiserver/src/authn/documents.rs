//! What an issuer says of itself and of others: its description (OpenID Connect Discovery), and the
//! sources of claims that a token does not have itself (OpenID Connect Core, 5.6.2). Pure, since
//! all of it comes from the network.

use serde_json::{Map, Value};

/// Where an issuer's keys are, by its description, which must be this issuer's.
pub(super) fn keys_url(description: &Value, issuer: &str) -> Result<String, String> {
    let text = |field: &str| description[field].as_str().unwrap_or_default();
    if text("issuer") != issuer {
        return Err(format!(
            "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {:?}",
            text("issuer")
        ));
    }
    Ok(text("jwks_uri").to_owned())
}

/// Where a claim is.
#[derive(PartialEq, Eq)]
pub(super) struct Source {
    /// Whom to ask for a token that has it.
    pub endpoint: String,
    /// What to show there; nothing where empty.
    pub access_token: String,
}

impl Source {
    /// Where a claim is that a token lacks and says that others have; `None` for one that it has or
    /// says nothing of.
    pub(super) fn of(claim: &str, claims: &Map<String, Value>) -> Result<Option<Source>, String> {
        if claims.contains_key(claim) {
            return Ok(None);
        }
        let Some(names) = claims.get("_claim_names") else { return Ok(None) };
        let names = names.as_object().ok_or("oidc: error parsing distributed claim names")?;
        let Some(source) = names.get(claim) else { return Ok(None) };
        let source = source.as_str().ok_or("oidc: error parsing distributed claim names")?;
        let sources = claims.get("_claim_sources").and_then(Value::as_object);
        let sources = sources.ok_or("oidc: error parsing distributed claim sources")?;
        let found = sources.get(source).and_then(Value::as_object).ok_or_else(|| {
            format!("oidc: claim {claim:?} has unknown source {source:?} in _claim_names")
        })?;
        let text =
            |field: &str| found.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (endpoint, access_token) = (text("endpoint"), text("access_token"));
        match endpoint.is_empty() {
            true => Err(format!("oidc: source {source:?} of claim {claim:?} has no endpoint")),
            false => Ok(Some(Source { endpoint, access_token })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_description_is_of_its_issuer() {
        let said = json!({"issuer": "https://i", "jwks_uri": "https://i/k"});
        assert_eq!(keys_url(&said, "https://i").unwrap(), "https://i/k");
        let other = keys_url(&said, "https://j").unwrap_err();
        assert!(other.ends_with("expected \"https://j\" got \"https://i\""), "{other}");
        assert!(keys_url(&json!([]), "https://i").is_err());
    }

    #[test]
    fn a_claim_is_looked_for_where_the_token_says() {
        let say = |claims: Value| match Source::of("groups", claims.as_object().unwrap()) {
            Ok(None) => "nowhere".to_owned(),
            Ok(Some(source)) => format!("{} {}", source.endpoint, source.access_token),
            Err(why) => why,
        };
        let names = json!({"groups": "s"});
        for (claims, expected) in [
            (json!({}), "nowhere"),
            (json!({"groups": ["a"], "_claim_names": names, "_claim_sources": {}}), "nowhere"),
            (json!({"_claim_names": {"other": "s"}}), "nowhere"),
            (json!({"_claim_names": []}), "oidc: error parsing distributed claim names"),
            (json!({"_claim_names": names}), "oidc: error parsing distributed claim sources"),
            (
                json!({"_claim_names": names, "_claim_sources": {"t": {}}}),
                "oidc: claim \"groups\" has unknown source \"s\" in _claim_names",
            ),
            (
                json!({"_claim_names": names, "_claim_sources": {"s": {"JWT": "x"}}}),
                "oidc: source \"s\" of claim \"groups\" has no endpoint",
            ),
            (
                json!({"_claim_names": names,
                    "_claim_sources": {"s": {"endpoint": "https://e", "access_token": "t"}}}),
                "https://e t",
            ),
        ] {
            assert_eq!(say(claims.clone()), expected, "{claims}");
        }
    }
}
