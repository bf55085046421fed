//! A webhook as its configuration describes it.

use std::time::Duration;

use expression::Language;
use serde_json::Value;
use store::Store;

use super::rules::Matcher;
use super::scene::Named;
use crate::cached;
use crate::registry::meta;

/// Collection of MutatingWebhookConfigurations.
pub(super) const MUTATING: &str = "admissionregistration.k8s.io/mutatingwebhookconfigurations";
/// Collection of ValidatingWebhookConfigurations.
pub(super) const VALIDATING: &str = "admissionregistration.k8s.io/validatingwebhookconfigurations";
/// How long a webhook may take that says nothing of it.
const TIMEOUT_SECONDS: u64 = 10;
/// Versions of AdmissionReview that are spoken here.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// One webhook.
#[derive(Debug)]
pub(super) struct Hook {
    /// Its own name.
    pub name: String,
    /// The name of the configuration that it is in.
    pub configuration: String,
    pub client: Value,
    pub matcher: Matcher,
    /// All must hold for it to be asked.
    pub conditions: Vec<Named>,
    /// Whether a write passes when the webhook cannot be asked.
    pub ignores_failure: bool,
    pub timeout: Duration,
    /// The first version of AdmissionReview that it and we know.
    pub version: Option<&'static str>,
    /// Whether it may be asked about a dry run.
    pub knows_dry_run: bool,
    /// Whether it wants to see what others change after it.
    pub again: bool,
}

/// Webhooks in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct Hooks(pub Vec<Hook>);

impl Hooks {
    /// Those that change objects.
    pub fn mutating(store: &Store) -> Self {
        Self::read(store, MUTATING)
    }

    /// Those that only look at them.
    pub fn validating(store: &Store) -> Self {
        Self::read(store, VALIDATING)
    }

    fn read(store: &Store, collection: &str) -> Self {
        // The store lists by name, as upstream orders configurations.
        let all = cached::objects(store, collection, None);
        let hooks = all.iter().flat_map(|configuration| {
            let hooks = configuration["webhooks"].as_array().into_iter().flatten();
            hooks.map(|hook| Hook::parse(meta::name(configuration), hook))
        });
        Hooks(hooks.collect())
    }
}

impl Hook {
    fn parse(configuration: &str, hook: &Value) -> Self {
        let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS);
        let known = meta::strings(&hook["admissionReviewVersions"]);
        let version = |name: &String| VERSIONS.into_iter().find(|own| own == name);
        Hook {
            name: hook["name"].as_str().unwrap_or_default().to_owned(),
            configuration: configuration.to_owned(),
            client: hook["clientConfig"].clone(),
            matcher: Matcher::parse(hook),
            conditions: Named::list(&hook["matchConditions"], Language::default()),
            ignores_failure: hook["failurePolicy"] == "Ignore",
            timeout: Duration::from_secs(seconds),
            version: known.iter().find_map(version),
            knows_dry_run: hook["sideEffects"] == "None" || hook["sideEffects"] == "NoneOnDryRun",
            again: hook["reinvocationPolicy"] == "IfNeeded",
        }
    }
}
