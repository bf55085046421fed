//! Which requests are written down, and how much of them: upstream's file `Policy`
//! (audit.k8s.io/v1), decided as k8s.io/apiserver/pkg/audit/policy does.

use serde::{Deserialize, Serialize};

use crate::authz::Attributes;
use crate::authz::rbac::url_matches;

/// How much is written of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what and when.
    Metadata,
    /// That, and the object that was sent.
    Request,
    /// That, and the object that was answered.
    RequestResponse,
}

/// A moment of a request at which something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It has come in.
    RequestReceived,
    /// The head of a long answer was sent.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// Its handler has failed.
    Panic,
}

/// The file as a whole. The first rule that fits decides; what none fits is not written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "it may be there and says nothing that counts")]
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub level: Level,
    omitted: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Decision {
    /// Whether something is written at a stage.
    pub(crate) fn writes(&self, stage: Stage) -> bool {
        self.level > Level::None && !self.omitted.contains(&stage)
    }
}

impl Policy {
    /// Reads the file (YAML or JSON). The error names the field that is wrong.
    pub fn parse(text: &str) -> Result<Policy, String> {
        let policy: Policy = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if policy.kind != "Policy" || policy.api_version != "audit.k8s.io/v1" {
            return Err(format!(
                "unknown group version field {:?} in policy, expected audit.k8s.io/v1 Policy",
                policy.api_version
            ));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{index}].{why}"))?;
        }
        Ok(policy)
    }

    /// What is to be written of a request.
    pub(crate) fn decide(&self, want: &Attributes<'_>) -> Decision {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(want)) else {
            return Decision::default();
        };
        Decision {
            level: rule.level.unwrap_or_default(),
            omitted: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.level.is_none() {
            return Err("level: Required value".to_owned());
        }
        let resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.non_resource_urls.is_empty() && resources {
            return Err("nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs".to_owned());
        }
        for url in &self.non_resource_urls {
            let star = url.find('*');
            if url != "*" && (!url.starts_with('/') || star.is_some_and(|at| at + 1 != url.len())) {
                return Err(format!(
                    "nonResourceURLs: Invalid value: {url:?}: must begin with '/' and may have '*' at its end only"
                ));
            }
        }
        for one in &self.resources {
            if one.group.contains('/') {
                return Err(format!(
                    "resources.group: Invalid value: {:?}: a group has no version",
                    one.group
                ));
            }
            if !one.resource_names.is_empty() && one.resources.is_empty() {
                return Err("resources.resourceNames: Invalid value: using resourceNames requires at least one resource".to_owned());
            }
        }
        Ok(())
    }

    fn fits(&self, want: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|item| item == value);
        if !self.users.is_empty() && !has(&self.users, &want.user.name) {
            return false;
        }
        if !self.user_groups.is_empty()
            && !want.user.groups.iter().any(|group| has(&self.user_groups, group))
        {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, want.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return want.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, want.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.fit(want)));
        }
        if !self.non_resource_urls.is_empty() {
            return !want.is_resource
                && self.non_resource_urls.iter().any(|url| url_matches(url, want.path));
        }
        true
    }
}

impl Resources {
    fn fit(&self, want: &Attributes<'_>) -> bool {
        if self.group != want.group {
            return false;
        }
        let named = self.resource_names.is_empty()
            || self.resource_names.iter().any(|name| name == want.name);
        let one = |pattern: &String| match pattern.split_once('/') {
            None if pattern == "*" => true,
            None => want.subresource.is_empty() && pattern == want.resource,
            Some(("*", subresource)) => subresource == want.subresource,
            Some((resource, "*")) => resource == want.resource,
            Some((resource, subresource)) => {
                resource == want.resource && subresource == want.subresource
            }
        };
        self.resources.is_empty() || (named && self.resources.iter().any(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestInfo;
    use crate::user::User;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [one]}], omitManagedFields: false}
- {level: RequestResponse, namespaces: [special], omitStages: [ResponseStarted]}
- {level: Metadata, resources: [{group: "", resources: ["pods/log", "*/status", "services/*"]}]}
- {level: Metadata, nonResourceURLs: ["/healthz*", "/version"]}
- {level: None, userGroups: ["system:nodes"]}
- {level: Metadata, resources: [{group: apps}]}
"#;

    fn decide(user: &User, method: &str, uri: &str) -> Decision {
        let policy = Policy::parse(POLICY).unwrap();
        let method = http::Method::from_bytes(method.as_bytes()).unwrap();
        let info = RequestInfo::parse(&method, &uri.parse().unwrap()).unwrap();
        policy.decide(&Attributes::of(user, &info))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let ann = User::new("ann", []);
        for (user, method, uri, level) in [
            (&ann, "GET", "/api/v1/namespaces/a/configmaps/one", Level::Request),
            (&ann, "GET", "/api/v1/namespaces/a/configmaps/two", Level::None),
            (&ann, "GET", "/api/v1/namespaces/special/configmaps", Level::RequestResponse),
            (&ann, "GET", "/api/v1/namespaces/a/pods/p/log", Level::Metadata),
            (&ann, "GET", "/api/v1/namespaces/a/pods/p", Level::None),
            (&ann, "PUT", "/api/v1/nodes/n/status", Level::Metadata),
            (&ann, "GET", "/api/v1/namespaces/a/services/s", Level::Metadata),
            (&ann, "GET", "/healthz/etcd", Level::Metadata),
            (&ann, "GET", "/versions", Level::None),
            (&ann, "GET", "/apis/apps/v1/deployments", Level::Metadata),
            (&User::node("n"), "GET", "/apis/apps/v1/deployments", Level::None),
            (
                &User::component("system:kube-proxy"),
                "GET",
                "/api/v1/namespaces/special/pods?watch=1",
                Level::None,
            ),
        ] {
            assert_eq!(decide(user, method, uri).level, level, "{method} {uri}");
        }
    }

    #[test]
    fn stages_and_managed_fields_are_left_out_as_told() {
        let ann = User::new("ann", []);
        let special = decide(&ann, "GET", "/api/v1/namespaces/special/pods");
        assert!(!special.writes(Stage::RequestReceived) && !special.writes(Stage::ResponseStarted));
        assert!(special.writes(Stage::ResponseComplete) && special.omit_managed_fields);
        let one = decide(&ann, "GET", "/api/v1/namespaces/a/configmaps/one");
        assert!(one.writes(Stage::ResponseStarted) && !one.omit_managed_fields);
        let none = decide(&ann, "GET", "/versions");
        assert!(!none.writes(Stage::ResponseComplete));
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for (rules, expected) in [
            ("rules: []", "loaded illegal policy with 0 rules"),
            ("rules: [{verbs: [get]}]", "rules[0].level: Required value"),
            (
                "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]",
                "rules[0].nonResourceURLs: Invalid value",
            ),
            (
                "rules: [{level: None, nonResourceURLs: ['/a*b']}]",
                "rules[0].nonResourceURLs: Invalid value",
            ),
        ] {
            let why = Policy::parse(&format!("{HEAD}{rules}")).unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        }
        assert!(Policy::parse("apiVersion: v1\nkind: Pod\nrules: []").is_err());
    }
}
