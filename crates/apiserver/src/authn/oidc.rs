//! Users whom other issuers of JSON Web Tokens vouch for (OpenID Connect): what a token says
//! becomes a user by the configured claims.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::status::go_quote;
use base64::Engine as _;

use super::documents::Source;
use super::expressions::{self, Expressions};
use super::jwt::{ALGORITHMS, Token};
use super::jwt_config::{JwtAuthenticator, Mapping, check_all};
use super::keyring::{self, Keyring};
use crate::token::TokenError;
use crate::user::User;
use crate::webhook::trust;

/// Issuers of claims whose keys one issuer's tokens make us keep.
const OTHERS_MAX: usize = 16;

/// All issuers that are believed.
#[derive(Default)]
pub(crate) struct Oidc(Vec<Issuer>);

struct Issuer {
    config: JwtAuthenticator,
    expressions: Expressions,
    tls: Arc<rustls::ClientConfig>,
    keyring: Arc<Keyring>,
    /// Keys of issuers of claims that this one's tokens do not have themselves.
    others: Mutex<HashMap<String, Arc<Keyring>>>,
}

impl Oidc {
    /// Issuers by their configuration. The error says what cannot be right.
    pub(crate) fn new(issuers: &[JwtAuthenticator]) -> Result<Oidc, String> {
        check_all(issuers)?;
        let made = issuers.iter().map(|config| {
            let pem = &config.issuer.certificate_authority;
            let bundle = base64::engine::general_purpose::STANDARD.encode(pem);
            let url = &config.issuer.url;
            let tls = trust::client(&bundle).map_err(|why| format!("issuer {url}: {why}"))?;
            let expressions = Expressions::compile(config)?;
            let tls = Arc::new(tls);
            let keyring = Keyring::new(url, &config.issuer.discovery_url, Arc::clone(&tls));
            let (config, keyring, others) = (config.clone(), Arc::new(keyring), Mutex::default());
            Ok(Issuer { config, expressions, tls, keyring, others })
        });
        made.collect::<Result<_, String>>().map(Oidc)
    }

    /// The user behind a token of one of these issuers; `None` where it is of nobody here.
    pub(crate) async fn user(&self, text: &str) -> Option<Result<User, TokenError>> {
        if self.0.is_empty() {
            return None;
        }
        let token = Token::parse(text)?;
        let issuer = self.0.iter().find(|one| one.config.issuer.url == token.text("iss"))?;
        let now = jiff::Timestamp::now().as_second();
        Some(issuer.user(token, now).await.map_err(TokenError::Oidc))
    }
}

impl Issuer {
    async fn user(&self, mut token: Token<'_>, now: i64) -> Result<User, String> {
        self.verify(&self.keyring, &token, now).await?;
        self.gather(&mut token, now)
            .await
            .map_err(|why| format!("oidc: could not expand distributed claims: {why}"))?;
        user(&self.config, &self.expressions, &token)
    }

    /// Proves that a token is the keyring's issuer's, is meant for this server, and counts now.
    async fn verify(&self, keyring: &Keyring, token: &Token<'_>, now: i64) -> Result<(), String> {
        let accepted = match self.config.algorithms.as_slice() {
            [] => ALGORITHMS.contains(&token.algorithm.as_str()),
            some => some.contains(&token.algorithm),
        };
        if !accepted {
            return Err(format!(
                "oidc: id token signed with unsupported algorithm, got {:?}",
                token.algorithm
            ));
        }
        keyring.verify(token).await?;
        let expires = token.time("exp").ok_or("oidc: verify token: oidc: token has no expiry")?;
        if now >= expires {
            return Err("oidc: verify token: oidc: token is expired".to_owned());
        }
        if token.time("nbf").is_some_and(|from| now < from) {
            return Err("oidc: verify token: oidc: current time is before the nbf time".to_owned());
        }
        let meant = token.texts("aud").unwrap_or_default();
        if !meant.iter().any(|one| self.config.issuer.audiences.contains(one)) {
            let wanted = &self.config.issuer.audiences;
            return Err(format!(
                "oidc: verify token: oidc: expected audience in {wanted:?} got {meant:?}"
            ));
        }
        Ok(())
    }

    /// Fetches the groups that a token says another server has. What comes from there is a token,
    /// too; its issuer may be any, since the one who is believed has named the place.
    async fn gather(&self, token: &mut Token<'_>, now: i64) -> Result<(), String> {
        let claim = self.config.claim_mappings.groups.claim.as_str();
        if claim.is_empty() {
            return Ok(());
        }
        let Some(source) = Source::of(claim, &token.claims)? else { return Ok(()) };
        let text = keyring::fetch(&self.tls, &source.endpoint, &source.access_token)
            .await
            .map_err(|why| format!("while getting distributed claim {claim:?}: {why}"))?;
        let text = String::from_utf8_lossy(&text);
        let found = Token::parse(text.trim()).ok_or_else(|| {
            format!("what {} gave for distributed claim {claim:?} is no token", source.endpoint)
        })?;
        let keyring = self.other(found.text("iss"));
        self.verify(&keyring, &found, now)
            .await
            .map_err(|why| format!("verify distributed claim token: {why}"))?;
        let value = found.claims.get(claim).cloned().ok_or_else(|| {
            format!(
                "jwt returned by distributed claim endpoint {} did not contain claim: {claim}",
                source.endpoint
            )
        })?;
        token.claims.insert(claim.to_owned(), value);
        Ok(())
    }

    /// The keys of an issuer of claims.
    fn other(&self, issuer: &str) -> Arc<Keyring> {
        if issuer == self.config.issuer.url {
            return Arc::clone(&self.keyring);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = others.get(issuer) {
            return Arc::clone(known);
        }
        if others.len() >= OTHERS_MAX {
            others.clear();
        }
        let made = Arc::new(Keyring::new(issuer, "", Arc::clone(&self.tls)));
        others.insert(issuer.to_owned(), Arc::clone(&made));
        made
    }
}

/// What a token that is believed says of a user.
fn user(
    config: &JwtAuthenticator,
    expressions: &Expressions,
    token: &Token<'_>,
) -> Result<User, String> {
    check_claims(config, token)?;
    expressions.check_claims(&token.claims)?;
    let mappings = &config.claim_mappings;
    let name = match &expressions.username {
        Some(program) => {
            let found = expressions::texts(program, &token.claims)?;
            let first = found.into_iter().next();
            first.ok_or("oidc: username expression returned an empty username")?
        }
        None => prefixed(&mappings.username, named(&mappings.username.claim, token)?),
    };
    let groups = match &expressions.groups {
        Some(program) => expressions::texts(program, &token.claims)?,
        None => groups(&mappings.groups, token)?,
    };
    let mut user = User::new(&name, groups.iter().map(String::as_str));
    user.uid = match &expressions.uid {
        Some(program) => expressions::texts(program, &token.claims)?.pop().unwrap_or_default(),
        None => token.text(&mappings.uid.claim).to_owned(),
    };
    user.extra.extend(expressions.extra(&token.claims)?);
    let id = token.text("jti");
    if !id.is_empty() {
        user.extra.insert(super::CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
    }
    expressions.check_user(&user)?;
    Ok(user)
}

/// Claims that must have a value.
fn check_claims(config: &JwtAuthenticator, token: &Token<'_>) -> Result<(), String> {
    for rule in config.claim_validation_rules.iter().filter(|rule| !rule.claim.is_empty()) {
        let (claim, wanted) = (&rule.claim, &rule.required_value);
        let found = token.claims.get(claim.as_str());
        let found =
            found.ok_or_else(|| format!("oidc: required claim {claim} not present in ID token"))?;
        if found != wanted.as_str() {
            return Err(format!(
                "oidc: required claim {claim} value does not match. Got = {found}, want = {wanted}"
            ));
        }
    }
    Ok(())
}

fn named<'t>(claim: &str, token: &'t Token<'_>) -> Result<&'t str, String> {
    let name = token.text(claim);
    if name.is_empty() {
        return Err(format!("oidc: parse username claims {}: claim not present", go_quote(claim)));
    }
    if claim == "email" && token.claims.get("email_verified").is_some_and(|seen| *seen != true) {
        return Err("oidc: email not verified".to_owned());
    }
    Ok(name)
}

fn groups(mapping: &Mapping, token: &Token<'_>) -> Result<Vec<String>, String> {
    let claim = mapping.claim.as_str();
    if claim.is_empty() || !token.claims.contains_key(claim) {
        return Ok(Vec::new());
    }
    let all = token.texts(claim);
    let all = all
        .ok_or_else(|| format!("oidc: parse groups claim {}: no list of texts", go_quote(claim)))?;
    Ok(all.iter().map(|group| prefixed(mapping, group)).collect())
}

fn prefixed(mapping: &Mapping, text: &str) -> String {
    format!("{}{text}", mapping.prefix.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::jwt_config::ClaimRule;
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use serde_json::{Value, json};

    fn token(claims: &Value) -> String {
        format!("{}.{}.AA", BASE64.encode(r#"{"alg":"RS256"}"#), BASE64.encode(claims.to_string()))
    }

    #[test]
    fn claims_become_a_user() {
        let mut config = JwtAuthenticator::default();
        config.claim_mappings.username = Mapping::claim("email", "i#");
        config.claim_mappings.groups = Mapping::claim("teams", "oidc:");
        config.claim_validation_rules = vec![ClaimRule::new("hd", "w.org")];
        let say = |claims: Value| {
            let text = token(&claims);
            match user(&config, &Expressions::default(), &Token::parse(&text).unwrap()) {
                Ok(user) => format!("{} {}", user.name, user.groups.join("+")),
                Err(why) => why,
            }
        };
        for (claims, expected) in [
            (
                json!({"email": "a@w.org", "hd": "w.org", "teams": ["x", "y"]}),
                "i#a@w.org oidc:x+oidc:y+system:authenticated",
            ),
            (
                json!({"email": "a@w.org", "hd": "w.org", "teams": "x"}),
                "i#a@w.org oidc:x+system:authenticated",
            ),
            (json!({"email": "a", "hd": "w.org"}), "i#a system:authenticated"),
            (
                json!({"email": "a", "hd": "w.org", "email_verified": false}),
                "oidc: email not verified",
            ),
            (json!({"email": "a"}), "oidc: required claim hd not present in ID token"),
            (json!({"hd": "w.org"}), "oidc: parse username claims \"email\": claim not present"),
        ] {
            assert_eq!(say(claims), expected);
        }
    }
}
