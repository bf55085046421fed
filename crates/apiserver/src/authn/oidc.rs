//! Users whom other issuers of JSON Web Tokens vouch for (OpenID Connect): the issuer's keys are
//! fetched when a token of it comes, and what it says becomes a user by the configured claims.

use std::sync::Arc;
use std::time::Duration;

use api::status::go_quote;
use base64::Engine as _;
use http::header;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::expressions::{self, Expressions};
use super::jwt::{ALGORITHMS, Jwk, Token};
use super::jwt_config::{JwtAuthenticator, Mapping, check_all};
use crate::proxy::forward::{self, Purpose};
use crate::proxy::target::Target;
use crate::token::TokenError;
use crate::user::User;
use crate::webhook::trust;
use crate::{body, response};

/// How long an issuer may take to give its keys.
const PATIENCE: Duration = Duration::from_secs(10);
/// For this long an issuer is not asked again for a key that it does not have.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// What an issuer may say of itself.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// All issuers that are believed.
#[derive(Default)]
pub(crate) struct Oidc(Vec<Issuer>);

struct Issuer {
    config: JwtAuthenticator,
    expressions: Expressions,
    tls: Arc<rustls::ClientConfig>,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    known: Arc<Vec<Jwk>>,
    asked: Option<Instant>,
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
            let (config, tls, keys) = (config.clone(), Arc::new(tls), Mutex::default());
            Ok(Issuer { config, expressions, tls, keys })
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
        Some(issuer.user(&token, now).await.map_err(TokenError::Oidc))
    }
}

impl Issuer {
    async fn user(&self, token: &Token<'_>, now: i64) -> Result<User, String> {
        self.verify(token).await?;
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
        user(&self.config, &self.expressions, token)
    }

    async fn verify(&self, token: &Token<'_>) -> Result<(), String> {
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
        let mut keys = self.keys.lock().await;
        if signed(&keys.known, token) {
            return Ok(());
        }
        // The issuer may have a new key; who sends bad tokens must not make us ask all the time.
        if keys.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return Err("failed to verify id token signature".to_owned());
        }
        keys.asked = Some(Instant::now());
        keys.known = Arc::new(self.fetch_keys().await?);
        match signed(&keys.known, token) {
            true => Ok(()),
            false => Err("failed to verify id token signature".to_owned()),
        }
    }

    async fn fetch_keys(&self) -> Result<Vec<Jwk>, String> {
        let issuer = &self.config.issuer;
        let description = match issuer.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
            url => url.to_owned(),
        };
        let described = self.fetch(&description).await?;
        if described["issuer"] != issuer.url.as_str() {
            let found = described["issuer"].as_str().unwrap_or_default();
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {} got {}",
                go_quote(&issuer.url),
                go_quote(found)
            ));
        }
        let keys = described["jwks_uri"].as_str().unwrap_or_default();
        self.fetch(keys).await.map(|document| Jwk::set(&document))
    }

    async fn fetch(&self, url: &str) -> Result<Value, String> {
        let failed = |why: &dyn std::fmt::Display| format!("fetching {url}: {why}");
        let uri: http::Uri = url.parse().map_err(|error| failed(&error))?;
        if uri.scheme_str() != Some("https") {
            return Err(failed(&"the scheme is not https"));
        }
        let target = Target {
            host: uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(443),
            tls: Some(Arc::clone(&self.tls)),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            server_name: None,
        };
        let request = http::Request::get(uri.path())
            .header(header::ACCEPT, "application/json")
            .body(response::full(""))
            .map_err(|error| failed(&error))?;
        let asked = async {
            let answer = forward::send(target, request, Purpose::Proxy).await;
            let answer = answer.map_err(|status| failed(&status.message))?;
            if !answer.status().is_success() {
                return Err(failed(&answer.status()));
            }
            let text = body::whole(answer.into_body(), DOCUMENT_BYTES_MAX).await;
            let text = text.map_err(|status| failed(&status.message))?;
            serde_json::from_slice(&text).map_err(|error| failed(&error))
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| failed(&"no answer in time"))?
    }
}

fn signed(keys: &[Jwk], token: &Token<'_>) -> bool {
    keys.iter()
        .filter(|key| token.key.is_empty() || key.id == token.key)
        .any(|key| key.has_signed(token))
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
    use serde_json::json;

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
