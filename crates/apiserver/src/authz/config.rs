//! Which authorizers there are, and in which order: upstream's file `AuthorizationConfiguration`
//! (apiserver.config.k8s.io), or what the flags come to.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use crate::webhook::authorization::{AuthorizationWebhookOptions, compiled};
use crate::webhook::remote::RemoteConfig;

/// Upstream's types, in the order in which it lists them. `ABAC` is not among them: its policy
/// file does not exist here.
const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const API_VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// Conditions of one webhook.
const CONDITIONS_MAX: usize = 64;
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const AUTHORIZED_TTL: Duration = Duration::from_secs(5 * 60);
const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);

/// One of the chain.
#[derive(Clone, Debug)]
pub enum AuthorizerOptions {
    /// What nodes' agents may do.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is allowed.
    AlwaysDeny,
    /// Another server is asked.
    Webhook(Box<AuthorizationWebhookOptions>),
}

/// The chain.
#[derive(Clone, Debug)]
pub struct Authorizers(pub(super) Vec<AuthorizerOptions>);

impl Default for Authorizers {
    fn default() -> Self {
        Authorizers(vec![AuthorizerOptions::Node, AuthorizerOptions::Rbac])
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Webhook {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: String,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: String,
    cache_unauthorized_requests: Option<bool>,
    timeout: String,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: Connection,
    match_conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Condition {
    expression: String,
}

impl Authorizers {
    /// The same chain, and behind it another server.
    #[must_use]
    pub fn with_webhook(mut self, options: AuthorizationWebhookOptions) -> Self {
        self.0.push(AuthorizerOptions::Webhook(Box::new(options)));
        self
    }

    /// Reads the file (YAML or JSON); `remote` reads a kubeconfig that it names.
    ///
    /// # Errors
    /// The field that is wrong, in upstream's words.
    pub fn parse(
        text: &str,
        remote: impl Fn(&str) -> Result<RemoteConfig, String>,
    ) -> Result<Self, String> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let (group, version) = file.api_version.split_once('/').unwrap_or_default();
        if file.kind != "AuthorizationConfiguration"
            || group != "apiserver.config.k8s.io"
            || !API_VERSIONS.contains(&version)
        {
            let (kind, version) = (&file.kind, &file.api_version);
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        if file.authorizers.is_empty() {
            return Err(
                "authorizers: Required value: at least one authorization mode must be defined"
                    .to_owned(),
            );
        }
        let (mut names, mut kinds) = (BTreeSet::new(), BTreeSet::new());
        let mut chain = Vec::new();
        for (index, entry) in file.authorizers.iter().enumerate() {
            let known = (!kinds.insert(&*entry.kind), !names.insert(&*entry.name));
            let read = check_type(&entry.kind, known.0)
                .and_then(|()| check_name(&entry.name, known.1))
                .and_then(|()| entry.read(&remote));
            chain.push(read.map_err(|why| format!("authorizers[{index}].{why}"))?);
        }
        Ok(Authorizers(chain))
    }
}

fn check_type(kind: &str, again: bool) -> Result<(), String> {
    if kind.is_empty() {
        return Err("type: Required value".to_owned());
    }
    if !TYPES.contains(&kind) {
        return Err(unsupported("type", kind, &TYPES));
    }
    if again && kind != "Webhook" {
        return Err(format!("type: Duplicate value: {kind:?}"));
    }
    Ok(())
}

fn check_name(name: &str, again: bool) -> Result<(), String> {
    if name.is_empty() {
        return Err("name: Required value".to_owned());
    }
    if again {
        return Err(format!("name: Duplicate value: {name:?}"));
    }
    if !is_subdomain(name) {
        return Err(format!("name: Invalid value: {name:?}: authorizer name is invalid"));
    }
    Ok(())
}

impl Entry {
    fn read(
        &self,
        remote: impl Fn(&str) -> Result<RemoteConfig, String>,
    ) -> Result<AuthorizerOptions, String> {
        let own = match self.kind.as_str() {
            "Node" => AuthorizerOptions::Node,
            "RBAC" => AuthorizerOptions::Rbac,
            "AlwaysAllow" => AuthorizerOptions::AlwaysAllow,
            "AlwaysDeny" => AuthorizerOptions::AlwaysDeny,
            _ => {
                let webhook = self.webhook.as_ref();
                let webhook =
                    webhook.ok_or("webhook: Required value: required when type=Webhook")?;
                return webhook.read(remote).map(Box::new).map(AuthorizerOptions::Webhook);
            }
        };
        match self.webhook {
            Some(_) => {
                Err("webhook: Invalid value: \"non-null\": may only be specified when type=Webhook"
                    .to_owned())
            }
            None => Ok(own),
        }
    }
}

impl Webhook {
    /// The paths are upstream's, which leaves `webhook` out.
    fn read(
        &self,
        remote: impl Fn(&str) -> Result<RemoteConfig, String>,
    ) -> Result<AuthorizationWebhookOptions, String> {
        let timeout = duration("timeout", &self.timeout, None)?;
        if timeout > TIMEOUT_MAX {
            let given = &self.timeout;
            return Err(format!("timeout: Invalid value: {given:?}: must be > 0s and <= 30s"));
        }
        let ttl = |place, text, default, cached: Option<bool>| {
            let ttl = duration(place, text, Some(default))?;
            Ok::<_, String>(if cached == Some(false) { Duration::ZERO } else { ttl })
        };
        let allowed_ttl = ttl(
            "authorizedTTL",
            &self.authorized_ttl,
            AUTHORIZED_TTL,
            self.cache_authorized_requests,
        )?;
        let refused_ttl = ttl(
            "unauthorizedTTL",
            &self.unauthorized_ttl,
            UNAUTHORIZED_TTL,
            self.cache_unauthorized_requests,
        )?;
        let version = &self.subject_access_review_version;
        one_of("subjectAccessReviewVersion", version, &["v1", "v1beta1"])?;
        one_of("failurePolicy", &self.failure_policy, &["Deny", "NoOpinion"])?;
        let conditions = self.conditions()?;
        Ok(AuthorizationWebhookOptions {
            timeout,
            denies_on_failure: self.failure_policy == "Deny",
            conditions,
            ..AuthorizationWebhookOptions::new(
                self.connection_info.read(remote)?,
                version,
                allowed_ttl,
                refused_ttl,
            )
        })
    }

    fn conditions(&self) -> Result<Vec<String>, String> {
        let version = &self.match_condition_subject_access_review_version;
        let conditions: Vec<String> =
            self.match_conditions.iter().map(|one| one.expression.clone()).collect();
        let place = "matchConditionSubjectAccessReviewVersion";
        if version.is_empty() && !conditions.is_empty() {
            return Err(format!(
                "{place}: Required value: required if match conditions are specified"
            ));
        }
        if !version.is_empty() {
            one_of(place, version, &["v1"])?;
        }
        if conditions.len() > CONDITIONS_MAX {
            let count = conditions.len();
            return Err(format!(
                "matchConditions: Too many: {count}: must have at most {CONDITIONS_MAX} items"
            ));
        }
        for (index, condition) in conditions.iter().enumerate() {
            let place = format!("matchConditions[{index}].expression");
            if condition.trim().is_empty() {
                return Err(format!("{place}: Required value"));
            }
            if conditions[..index].contains(condition) {
                return Err(format!("{place}: Duplicate value: {condition:?}"));
            }
            compiled(condition)
                .map_err(|why| format!("{place}: Invalid value: {condition:?}: {why}"))?;
        }
        Ok(conditions)
    }
}

impl Connection {
    fn read(
        &self,
        remote: impl Fn(&str) -> Result<RemoteConfig, String>,
    ) -> Result<RemoteConfig, String> {
        // `InClusterConfig` is what a pod finds, and this server is none.
        one_of("connectionInfo.type", &self.kind, &["KubeConfigFile"])?;
        let (place, path) = ("connectionInfo.kubeConfigFile", self.kube_config_file.as_str());
        if path.is_empty() {
            return Err(format!("{place}: Required value"));
        }
        if !path.starts_with('/') {
            return Err(format!("{place}: Invalid value: {path:?}: must be an absolute path"));
        }
        remote(path).map_err(|why| format!("{place}: Invalid value: {path:?}: {why}"))
    }
}

/// A name as DNS has them (RFC 1123).
fn is_subdomain(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|part| {
            part.starts_with(is_plain)
                && part.ends_with(is_plain)
                && part.chars().all(|c| is_plain(c) || c == '-')
        })
}

/// A time above zero.
fn duration(place: &str, text: &str, default: Option<Duration>) -> Result<Duration, String> {
    match (text, default) {
        ("", Some(default)) => return Ok(default),
        ("", None) => return Err(format!("{place}: Required value")),
        _ => {}
    }
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let parsed = parsed.and_then(|one| Duration::try_from(one).ok()).filter(|one| !one.is_zero());
    parsed.ok_or_else(|| format!("{place}: Invalid value: {text:?}: must be > 0s"))
}

fn one_of(place: &str, text: &str, known: &[&str]) -> Result<(), String> {
    match text {
        "" => Err(format!("{place}: Required value")),
        text if known.contains(&text) => Ok(()),
        text => Err(unsupported(place, text, known)),
    }
}

fn unsupported(place: &str, text: &str, known: &[&str]) -> String {
    let known: Vec<String> = known.iter().map(|one| format!("{one:?}")).collect();
    format!("{place}: Unsupported value: {text:?}: supported values: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
    const HOOK: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /k}";

    fn parse(rest: &str) -> Result<Authorizers, String> {
        Authorizers::parse(&format!("{HEAD}{rest}"), |_| Ok(RemoteConfig::default()))
    }

    #[test]
    fn a_chain_is_read_in_its_order() {
        let text = format!(
            "authorizers: [{{type: Webhook, name: w, webhook: {{{HOOK}, cacheUnauthorizedRequests: false}}}}, {{type: Node, name: node}}, {{type: RBAC, name: rbac}}]"
        );
        let chain = parse(&text).unwrap().0;
        let [AuthorizerOptions::Webhook(first), AuthorizerOptions::Node, AuthorizerOptions::Rbac] =
            chain.as_slice()
        else {
            panic!("{chain:?}")
        };
        assert!(first.denies_on_failure);
        assert_eq!((first.allowed_ttl, first.refused_ttl), (AUTHORIZED_TTL, Duration::ZERO));
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        let hook =
            |with: &str| format!("authorizers: [{{type: Webhook, name: w, webhook: {{{with}}}}}]");
        for (rest, expected) in [
            (String::new(), "authorizers: Required value: at least one authorization mode"),
            ("authorizers: [{name: a}]".to_owned(), "authorizers[0].type: Required value"),
            (
                "authorizers: [{type: Odd, name: a}]".to_owned(),
                "authorizers[0].type: Unsupported value: \"Odd\": supported values: \"AlwaysAllow\"",
            ),
            (
                "authorizers: [{type: Node, name: a}, {type: Node, name: b}]".to_owned(),
                "authorizers[1].type: Duplicate value: \"Node\"",
            ),
            (
                "authorizers: [{type: Node, name: a}, {type: RBAC, name: a}]".to_owned(),
                "authorizers[1].name: Duplicate value: \"a\"",
            ),
            (
                "authorizers: [{type: Node, name: a, webhook: {}}]".to_owned(),
                "authorizers[0].webhook: Invalid value",
            ),
            (
                "authorizers: [{type: Webhook, name: a}]".to_owned(),
                "authorizers[0].webhook: Required value",
            ),
            (hook(""), "authorizers[0].timeout: Required value"),
            (hook(&HOOK.replace("3s", "31s")), "authorizers[0].timeout: Invalid value"),
            (
                hook(&HOOK.replace("/k", "k")),
                "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"k\": must be an absolute path",
            ),
            (
                hook(&format!("{HOOK}, matchConditions: [{{expression: 'true'}}]")),
                "authorizers[0].matchConditionSubjectAccessReviewVersion: Required value",
            ),
            (
                hook(&format!(
                    "{HOOK}, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{{expression: 'request.odd'}}]"
                )),
                "authorizers[0].matchConditions[0].expression: Invalid value: \"request.odd\": compilation failed",
            ),
        ] {
            let why = parse(&rest).unwrap_err();
            assert!(why.starts_with(expected), "{rest}: {why}");
        }
    }
}
