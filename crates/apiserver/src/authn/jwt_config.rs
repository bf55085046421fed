//! What the server is told of issuers of JSON Web Tokens: upstream's `--oidc-*` flags, or its file
//! `AuthenticationConfiguration` (apiserver.config.k8s.io).

use serde::Deserialize;

use super::expressions::Expressions;
use super::jwt::ALGORITHMS;

/// Issuers that one server may know.
const ISSUERS_MAX: usize = 64;
const BOTH: &str = "claim and expression can't both be set";
const NEITHER: &str = "claim or expression is required";
const API_VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// The file as a whole.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    api_version: String,
    kind: String,
    /// Issuers that are believed.
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    /// Who may come without credentials; the server's own setting where absent.
    #[serde(default)]
    pub anonymous: Option<Anonymous>,
}

/// Which paths may be asked for without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Anonymous {
    /// Whether any may.
    pub enabled: bool,
    /// The only paths where there are any.
    pub conditions: Vec<PathCondition>,
}

/// One path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathCondition {
    /// As it is written in a request.
    pub path: String,
}

/// One issuer, and what its tokens say of a user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JwtAuthenticator {
    /// Who signs.
    pub issuer: Issuer,
    /// What a token must say beside who signed it.
    pub claim_validation_rules: Vec<ClaimRule>,
    /// Where a token says who the user is.
    pub claim_mappings: Mappings,
    /// What must hold of the user.
    pub user_validation_rules: Vec<UserRule>,
    /// Signatures that are accepted; all that can be checked where empty. Not in the file.
    #[serde(skip)]
    pub algorithms: Vec<String>,
}

/// Who signs tokens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Issuer {
    /// The claim `iss`.
    pub url: String,
    /// Where its description is, if not below `url`.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM of who signs its certificate; the machine's authorities where empty.
    pub certificate_authority: String,
    /// One of them must be a token's.
    pub audiences: Vec<String>,
    /// `MatchAny`, or empty with a single audience.
    pub audience_match_policy: String,
    /// Upstream's choice of a road to the issuer; only the direct one exists here.
    pub egress_selector_type: String,
}

/// A claim that must have a value.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimRule {
    /// Its name.
    pub claim: String,
    /// Its value.
    pub required_value: String,
    pub(super) expression: String,
    pub(super) message: String,
}

/// What must hold of a user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserRule {
    pub(super) expression: String,
    pub(super) message: String,
}

/// A fact of a user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtraMapping {
    pub(super) key: String,
    pub(super) value_expression: String,
}

/// Where a token says who the user is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mappings {
    /// The user's name.
    pub username: Mapping,
    /// The user's groups.
    pub groups: Mapping,
    /// The user's uid.
    pub uid: Mapping,
    pub(super) extra: Vec<ExtraMapping>,
}

/// A claim, and what is put before its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mapping {
    /// Name of the claim.
    pub claim: String,
    /// Put before each value.
    pub prefix: Option<String>,
    pub(super) expression: String,
}

impl Mappings {
    /// Name and groups; nothing else is taken from a token.
    pub fn new(username: Mapping, groups: Mapping) -> Self {
        Mappings { username, groups, ..Self::default() }
    }
}

impl Mapping {
    /// A claim with a prefix.
    pub fn claim(name: &str, prefix: &str) -> Self {
        Mapping {
            claim: name.to_owned(),
            prefix: Some(prefix.to_owned()),
            expression: String::new(),
        }
    }
}

impl ClaimRule {
    /// A claim that must have this value.
    pub fn new(claim: &str, value: &str) -> Self {
        ClaimRule { claim: claim.to_owned(), required_value: value.to_owned(), ..Self::default() }
    }
}

impl AuthenticationConfiguration {
    /// Reads the file (YAML or JSON). The error names the field that is wrong, as upstream does.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let (group, version) = config.api_version.split_once('/').unwrap_or_default();
        if config.kind != "AuthenticationConfiguration"
            || group != "apiserver.config.k8s.io"
            || !API_VERSIONS.contains(&version)
        {
            return Err(format!(
                "no kind {:?} is registered for version {:?}",
                config.kind, config.api_version
            ));
        }
        check_all(&config.jwt)?;
        if config.anonymous.as_ref().is_some_and(|one| !one.enabled && !one.conditions.is_empty()) {
            return Err("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined".to_owned());
        }
        Ok(config)
    }
}

/// Refuses what no token could fulfil or what this server cannot check.
pub(super) fn check_all(issuers: &[JwtAuthenticator]) -> Result<(), String> {
    if issuers.len() > ISSUERS_MAX {
        return Err(format!(
            "jwt: Too many: {}: must have at most {ISSUERS_MAX} items",
            issuers.len()
        ));
    }
    for (index, one) in issuers.iter().enumerate() {
        let same = |other: &JwtAuthenticator| other.issuer.url == one.issuer.url;
        if issuers[..index].iter().any(same) {
            return Err(format!("jwt[{index}].issuer.url: Duplicate value: {:?}", one.issuer.url));
        }
        one.check().map_err(|why| format!("jwt[{index}].{why}"))?;
    }
    Ok(())
}

impl JwtAuthenticator {
    fn check(&self) -> Result<(), String> {
        let issuer = &self.issuer;
        check_url("issuer.url", &issuer.url)?;
        if !issuer.discovery_url.is_empty() {
            check_url("issuer.discoveryURL", &issuer.discovery_url)?;
            if issuer.discovery_url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
                return Err(
                    "issuer.discoveryURL: Invalid value: discoveryURL must be different from url"
                        .to_owned(),
                );
            }
        }
        if issuer.audiences.is_empty() {
            return Err("issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required".to_owned());
        }
        if issuer.audiences.len() > 1 && issuer.audience_match_policy != "MatchAny" {
            return Err("issuer.audienceMatchPolicy: Invalid value: audienceMatchPolicy must be MatchAny for multiple audiences".to_owned());
        }
        self.check_mappings()?;
        self.check_rules()?;
        Expressions::compile(self)?;
        if let Some(unknown) =
            self.algorithms.iter().find(|one| !ALGORITHMS.contains(&one.as_str()))
        {
            return Err(format!(
                "signing algorithm {unknown:?} is not supported, choose from {ALGORITHMS:?}"
            ));
        }
        Ok(())
    }

    fn check_mappings(&self) -> Result<(), String> {
        let mappings = &self.claim_mappings;
        let all = [
            ("username", &mappings.username),
            ("groups", &mappings.groups),
            ("uid", &mappings.uid),
        ];
        for (name, mapping) in all {
            let place = format!("claimMappings.{name}");
            let named = !mapping.claim.is_empty() || mapping.prefix.is_some();
            if named && !mapping.expression.is_empty() {
                return Err(format!("{place}: Invalid value: {BOTH}"));
            }
            if name != "uid" && !mapping.claim.is_empty() && mapping.prefix.is_none() {
                return Err(format!(
                    "{place}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"
                ));
            }
        }
        if mappings.username.claim.is_empty() && mappings.username.expression.is_empty() {
            return Err(format!("claimMappings.username: Required value: {NEITHER}"));
        }
        Ok(())
    }

    fn check_rules(&self) -> Result<(), String> {
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            let place = format!("claimValidationRules[{index}]");
            if rule.claim.is_empty() && rule.expression.is_empty() {
                return Err(format!("{place}: Required value: {NEITHER}"));
            }
            let named = !rule.claim.is_empty() || !rule.required_value.is_empty();
            if named && !rule.expression.is_empty() {
                return Err(format!("{place}: Invalid value: {BOTH}"));
            }
        }
        Ok(())
    }
}

fn check_url(place: &str, url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Err(format!("{place}: Required value: URL is required"));
    }
    let uri: http::Uri =
        url.parse().map_err(|error| format!("{place}: Invalid value: {url:?}: {error}"))?;
    if uri.scheme_str() != Some("https") {
        return Err(format!("{place}: Invalid value: {url:?}: URL scheme must be https"));
    }
    if uri.query().is_some() || url.contains('#') || url.contains('@') {
        return Err(format!(
            "{place}: Invalid value: {url:?}: URL must not contain a username, a query or a fragment"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    #[test]
    fn the_file_is_read_and_checked() {
        let good = "jwt: [{issuer: {url: 'https://i.org', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]\nanonymous: {enabled: true, conditions: [{path: /livez}]}";
        let config = AuthenticationConfiguration::parse(&format!("{HEAD}{good}")).unwrap();
        assert_eq!(config.jwt[0].claim_mappings.username, Mapping::claim("sub", ""));
        assert_eq!(config.anonymous.unwrap().conditions[0].path, "/livez");
        for (rest, expected) in [
            ("jwt: [{}]", "jwt[0].issuer.url: Required value"),
            (
                "jwt: [{issuer: {url: 'http://i'}}]",
                "jwt[0].issuer.url: Invalid value: \"http://i\": URL scheme must be https",
            ),
            ("jwt: [{issuer: {url: 'https://i'}}]", "jwt[0].issuer.audiences: Required value"),
            (
                "jwt: [{issuer: {url: 'https://i', audiences: [a, b]}}]",
                "jwt[0].issuer.audienceMatchPolicy: Invalid value",
            ),
            (
                "jwt: [{issuer: {url: 'https://i', audiences: [a]}, claimMappings: {username: {claim: sub}}}]",
                "jwt[0].claimMappings.username.prefix: Required value",
            ),
            (
                "jwt: [{issuer: {url: 'https://i', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: '', expression: claims.sub}}}]",
                "jwt[0].claimMappings.username: Invalid value: claim and expression can't both be set",
            ),
        ] {
            let why = AuthenticationConfiguration::parse(&format!("{HEAD}{rest}")).unwrap_err();
            assert!(why.starts_with(expected), "{rest}: {why}");
        }
        assert!(AuthenticationConfiguration::parse("apiVersion: v1\nkind: Pod").is_err());
    }
}
