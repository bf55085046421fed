//! CEL in the configuration of an issuer: what a token's claims must fulfil, and how they become
//! a user (upstream's k8s.io/apiserver/pkg/authentication/cel).

use expression::{Kind, Program, compile};
use serde_json::{Map, Value, json};

use super::jwt_config::JwtAuthenticator;
use crate::reviews::user_info;
use crate::user::User;

/// Keys of `extra` below these domains are the cluster's own.
const RESERVED: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// All expressions of an issuer, ready to be asked.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    pub username: Option<Program>,
    pub groups: Option<Program>,
    pub uid: Option<Program>,
    extra: Vec<(String, Program)>,
    claims: Vec<(Program, String)>,
    users: Vec<(Program, String)>,
}

impl Expressions {
    /// Compiles what the configuration holds. The error names the field.
    pub(super) fn compile(config: &JwtAuthenticator) -> Result<Self, String> {
        let mappings = &config.claim_mappings;
        let of_claims = |text: &str, place: &str| match text {
            "" => Ok(None),
            text => compiled(text, "claims", place).map(Some),
        };
        let mut made = Expressions {
            username: of_claims(
                &mappings.username.expression,
                "claimMappings.username.expression",
            )?,
            groups: of_claims(&mappings.groups.expression, "claimMappings.groups.expression")?,
            uid: of_claims(&mappings.uid.expression, "claimMappings.uid.expression")?,
            ..Self::default()
        };
        for (index, extra) in mappings.extra.iter().enumerate() {
            let place = format!("claimMappings.extra[{index}]");
            check_key(&extra.key).map_err(|why| format!("{place}.key: {why}"))?;
            if made.extra.iter().any(|(key, _)| *key == extra.key) {
                return Err(format!("{place}.key: Duplicate value: {:?}", extra.key));
            }
            let place = format!("{place}.valueExpression");
            let program = compiled(&extra.value_expression, "claims", &place)?;
            made.extra.push((extra.key.clone(), program));
        }
        for (index, rule) in config.claim_validation_rules.iter().enumerate() {
            if !rule.expression.is_empty() {
                let place = format!("claimValidationRules[{index}].expression");
                let program = decides(&rule.expression, "claims", &place)?;
                made.claims.push((program, rule.message.clone()));
            }
        }
        for (index, rule) in config.user_validation_rules.iter().enumerate() {
            let place = format!("userValidationRules[{index}].expression");
            let program = decides(&rule.expression, "user", &place)?;
            made.users.push((program, rule.message.clone()));
        }
        made.check_email()?;
        Ok(made)
    }

    /// Who goes by a mail address must look whether it was verified.
    fn check_email(&self) -> Result<(), String> {
        let has = |program: &Program, claim: &str| {
            let source = program.source();
            source
                .split(claim)
                .skip(1)
                .any(|rest| !rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()))
        };
        let Some(name) = self.username.as_ref().filter(|name| has(name, "claims.email")) else {
            return Ok(());
        };
        let extra = self.extra.iter().map(|(_, program)| program);
        let rules = self.claims.iter().map(|(program, _)| program);
        match [name].into_iter().chain(extra).chain(rules).any(|one| has(one, "claims.email_verified")) {
            true => Ok(()),
            false => Err("claimMappings.username.expression: Invalid value: claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression".to_owned()),
        }
    }

    /// Whether a token's claims fulfil all rules.
    pub(super) fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), String> {
        let claims = Value::Object(claims.clone());
        hold(&self.claims, "claims", &claims, "validation expression")
    }

    /// Whether the user whom a token became fulfils all rules.
    pub(super) fn check_user(&self, user: &User) -> Result<(), String> {
        if self.users.is_empty() {
            return Ok(());
        }
        let mut info = user_info(user);
        for (member, nothing) in [("uid", json!("")), ("groups", json!([])), ("extra", json!({}))] {
            if info[member].is_null() {
                info[member] = nothing;
            }
        }
        hold(&self.users, "user", &info, "user validation expression")
    }

    /// Facts of the user, by their keys.
    pub(super) fn extra(
        &self,
        claims: &Map<String, Value>,
    ) -> Result<Vec<(String, Vec<String>)>, String> {
        let mut found = Vec::new();
        for (key, program) in &self.extra {
            let values = texts(program, claims)?;
            if !values.is_empty() {
                found.push((key.clone(), values));
            }
        }
        Ok(found)
    }
}

/// A text, or the texts of a list; none for null and for empty texts.
pub(super) fn texts(program: &Program, claims: &Map<String, Value>) -> Result<Vec<String>, String> {
    let claims = Value::Object(claims.clone());
    let failed = |why: &dyn std::fmt::Display| format!("oidc: {}: {why}", program.source());
    let value = program.evaluate(&[("claims", &claims)]).map_err(|error| failed(&error))?;
    let wrong = || failed(&"expression must return a string or a list of strings");
    let all: Vec<String> = match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text],
        Value::Array(items) => items
            .into_iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

fn compiled(text: &str, variable: &str, place: &str) -> Result<Program, String> {
    if text.is_empty() {
        return Err(format!("{place}: Required value: expression is required"));
    }
    let kind = match variable {
        "user" => Kind::object([
            ("username", Kind::Text),
            ("uid", Kind::Text),
            ("groups", Kind::list(Kind::Text)),
            ("extra", Kind::map(Kind::list(Kind::Text))),
        ]),
        _ => Kind::map(Kind::Any),
    };
    compile(text, &[(variable, kind)])
        .map_err(|error| format!("{place}: Invalid value: {text:?}: compilation failed: {error}"))
}

fn decides(text: &str, variable: &str, place: &str) -> Result<Program, String> {
    let program = compiled(text, variable, place)?;
    if !program.may_be(&Kind::Bool) {
        return Err(format!("{place}: Invalid value: {text:?}: must evaluate to bool"));
    }
    Ok(program)
}

fn hold(
    rules: &[(Program, String)],
    variable: &str,
    value: &Value,
    what: &str,
) -> Result<(), String> {
    for (program, message) in rules {
        let source = program.source();
        let found = program
            .evaluate(&[(variable, value)])
            .map_err(|error| format!("oidc: {what} '{source}' failed: {error}"))?;
        if found != true {
            return Err(match message.as_str() {
                "" => format!("oidc: {what} '{source}' failed"),
                message => format!("oidc: {what} '{source}' failed: {message}"),
            });
        }
    }
    Ok(())
}

/// A key of `extra` is a path below a domain that is not the cluster's.
fn check_key(key: &str) -> Result<(), String> {
    let Some((domain, path)) = key.split_once('/') else {
        return Err(format!(
            "Invalid value: {key:?}: must be a domain-prefixed path (such as 'acme.io/foo')"
        ));
    };
    if domain.is_empty()
        || path.is_empty()
        || key.chars().any(|c| c.is_ascii_uppercase() || c.is_whitespace())
    {
        return Err(format!(
            "Invalid value: {key:?}: must be a domain-prefixed path in lower case"
        ));
    }
    let reserved = |one: &&str| *domain == **one || domain.ends_with(&format!(".{one}"));
    match RESERVED.iter().find(|one| reserved(one)) {
        Some(one) => Err(format!(
            "Invalid value: {key:?}: {one} and its subdomains are reserved for Kubernetes use"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> JwtAuthenticator {
        serde_saphyr::from_str(text).expect("a configuration")
    }

    #[test]
    fn claims_are_asked_and_become_facts() {
        let config = config(
            "{claimMappings: {username: {expression: 'claims.sub + \"@\" + claims.org'}, groups: {expression: 'claims.roles.split(\",\")'}, extra: [{key: 'w.org/team', valueExpression: 'claims.team'}]}, claimValidationRules: [{expression: 'claims.exp - claims.iat <= 3600', message: 'lives too long'}], userValidationRules: [{expression: '!user.username.startsWith(\"system:\")', message: 'is reserved'}]}",
        );
        let made = Expressions::compile(&config).unwrap();
        let claims =
            json!({"sub": "ann", "org": "w", "roles": "a,b", "team": "t", "exp": 100, "iat": 0});
        let claims = claims.as_object().unwrap();
        assert_eq!(texts(made.username.as_ref().unwrap(), claims).unwrap(), ["ann@w"]);
        assert_eq!(texts(made.groups.as_ref().unwrap(), claims).unwrap(), ["a", "b"]);
        let extra = made.extra(claims).unwrap();
        assert_eq!(extra, [("w.org/team".to_owned(), vec!["t".to_owned()])]);
        made.check_claims(claims).unwrap();
        let long = json!({"exp": 7200, "iat": 0});
        let why = made.check_claims(long.as_object().unwrap()).unwrap_err();
        assert!(why.ends_with("failed: lives too long"), "{why}");
        made.check_user(&User::new("ann", [])).unwrap();
        let why = made.check_user(&User::new("system:ann", [])).unwrap_err();
        assert!(why.ends_with("failed: is reserved"), "{why}");
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        for (text, expected) in [
            (
                "{claimMappings: {username: {expression: 'claims.'}}}",
                "claimMappings.username.expression: Invalid value: \"claims.\": compilation failed",
            ),
            (
                "{claimMappings: {username: {expression: claims.email}}}",
                "claimMappings.username.expression: Invalid value: claims.email_verified must be used",
            ),
            (
                "{claimMappings: {extra: [{key: 'x.k8s.io/a', valueExpression: claims.a}]}}",
                "claimMappings.extra[0].key: Invalid value: \"x.k8s.io/a\": k8s.io and its subdomains",
            ),
            (
                "{claimMappings: {extra: [{key: a, valueExpression: claims.a}]}}",
                "claimMappings.extra[0].key: Invalid value: \"a\": must be a domain-prefixed path",
            ),
            (
                "{userValidationRules: [{expression: 'user.username'}]}",
                "userValidationRules[0].expression: Invalid value: \"user.username\": must evaluate to bool",
            ),
        ] {
            let why = Expressions::compile(&config(text)).unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        }
    }
}
