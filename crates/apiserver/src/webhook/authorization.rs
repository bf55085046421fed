//! Asking another server about permissions (upstream's webhook authorizer).

use std::time::Duration;

use expression::{Kind, Program, compile};
use serde_json::{Map, Value, json};
use store::Store;

use super::remembered::Remembered;
use super::remote::{PATIENCE, Remote, RemoteConfig};
use crate::authz::{Attributes, Decision, Selectors};

/// A question whose attributes are longer than this is asked anew each time, as upstream does: what
/// clients choose must not fill the memory.
const REMEMBERED_BYTES_MAX: usize = 10_000;

/// Which objects of a list a question is about.
const SELECTORS: [&str; 2] = ["fieldSelector", "labelSelector"];

/// Who answers for permissions.
#[derive(Clone, Debug)]
pub struct AuthorizationWebhookOptions {
    /// The server.
    pub remote: RemoteConfig,
    /// Version of SubjectAccessReview, `v1` or `v1beta1`.
    pub version: String,
    /// How long a permission counts.
    pub allowed_ttl: Duration,
    /// How long a refusal counts.
    pub refused_ttl: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whether nothing is allowed that the server cannot be asked about.
    pub denies_on_failure: bool,
    /// The server is asked only where all of these expressions hold of the question.
    pub conditions: Vec<String>,
}

impl AuthorizationWebhookOptions {
    /// A server that is asked about everything and has no opinion when it cannot be.
    pub fn new(remote: RemoteConfig, version: &str, allowed: Duration, refused: Duration) -> Self {
        AuthorizationWebhookOptions {
            remote,
            version: version.to_owned(),
            allowed_ttl: allowed,
            refused_ttl: refused,
            timeout: PATIENCE,
            denies_on_failure: false,
            conditions: Vec::new(),
        }
    }
}

/// Asks about permissions.
pub(crate) struct AuthorizationWebhook {
    options: AuthorizationWebhookOptions,
    remote: Remote,
    conditions: Vec<Program>,
    known: Remembered<Decision>,
}

/// Compiles a condition. The error says what is wrong with it.
pub(crate) fn compiled(condition: &str) -> Result<Program, String> {
    let texts = |names: &[&'static str]| {
        Kind::object(names.iter().map(|name| (*name, Kind::Text)).collect::<Vec<_>>())
    };
    let of_resource = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    let requirement = Kind::object([
        ("key", Kind::Text),
        ("operator", Kind::Text),
        ("values", Kind::list(Kind::Text)),
    ]);
    let selector =
        Kind::object([("rawSelector", Kind::Text), ("requirements", Kind::list(requirement))]);
    let of_resource = of_resource
        .map(|name| (name, Kind::Text))
        .into_iter()
        .chain(SELECTORS.map(|name| (name, selector.clone())));
    let request = Kind::object([
        ("user", Kind::Text),
        ("groups", Kind::list(Kind::Text)),
        ("uid", Kind::Text),
        ("extra", Kind::map(Kind::list(Kind::Text))),
        ("resourceAttributes", Kind::object(of_resource)),
        ("nonResourceAttributes", texts(&["path", "verb"])),
    ]);
    let program = compile(condition, &[("request", request)])
        .map_err(|error| format!("compilation failed: {error}"))?;
    match program.may_be(&Kind::Bool) {
        true => Ok(program),
        false => Err("must evaluate to bool".to_owned()),
    }
}

impl AuthorizationWebhook {
    /// Nobody has been asked yet.
    pub(crate) fn new(
        options: &AuthorizationWebhookOptions,
        store: &Store,
    ) -> Result<Self, String> {
        Ok(AuthorizationWebhook {
            remote: Remote::new(&options.remote, store)?,
            conditions: options
                .conditions
                .iter()
                .map(|one| compiled(one))
                .collect::<Result<_, _>>()?,
            known: Remembered::default(),
            options: options.clone(),
        })
    }

    /// What the other server says of a permission.
    pub(crate) async fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        match self.concerns(attributes) {
            Ok(true) => {}
            Ok(false) => return Decision::default(),
            Err(why) => return self.failed(why),
        }
        let version = &self.options.version;
        let spec = spec(attributes, version == "v1beta1");
        let key = spec.to_string().into_bytes();
        if let Some(said) = self.known.get(&key) {
            return said;
        }
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{version}"),
            "kind": "SubjectAccessReview", "metadata": {"creationTimestamp": null}, "spec": spec,
        });
        let answer = match self.remote.ask(&review, self.options.timeout).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(error, "failed to make webhook authorizer request");
                return self.failed(error);
            }
        };
        let status = &answer["status"];
        let (allowed, denied) = (status["allowed"] == true, status["denied"] == true);
        if allowed && denied {
            return self.failed(
                "webhook subject access review returned both allow and deny response".to_owned(),
            );
        }
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        let said = Decision { allowed, denied, reason, error: String::new() };
        let ttl = if allowed { self.options.allowed_ttl } else { self.options.refused_ttl };
        if key.len() <= REMEMBERED_BYTES_MAX {
            self.known.put(key, said.clone(), ttl);
        }
        said
    }

    /// Whether all conditions hold. One that does not decides; else one that fails is the error.
    fn concerns(&self, attributes: &Attributes<'_>) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let request = seen(attributes);
        let mut failed = Vec::new();
        for program in &self.conditions {
            match program.evaluate(&[("request", &request)]) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(why) => failed.push(format!(
                    "cel evaluation error: expression '{}' resulted in error: {why}",
                    program.source()
                )),
            }
        }
        if failed.is_empty() { Ok(true) } else { Err(failed.join(", ")) }
    }

    fn failed(&self, error: String) -> Decision {
        Decision { denied: self.options.denies_on_failure, error, ..Decision::default() }
    }
}

/// What conditions see: the question with all its texts, the empty ones too.
fn seen(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut request = json!({
        "user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra,
    });
    if attributes.is_resource {
        let all = resource(attributes).map(|(field, text)| (field.to_owned(), text.into()));
        let mut all: Map<String, Value> = all.into_iter().collect();
        let Selectors { fields, labels } = attributes.selectors;
        for (name, terms) in SELECTORS.into_iter().zip([fields, labels]) {
            if !terms.is_empty() {
                all.insert(name.to_owned(), json!({"requirements": terms}));
            }
        }
        request["resourceAttributes"] = Value::Object(all);
    } else {
        let about = json!({"path": attributes.path, "verb": attributes.verb});
        request["nonResourceAttributes"] = about;
    }
    request
}

/// The question as it is sent: texts that are empty are left out.
fn spec(attributes: &Attributes<'_>, old: bool) -> Value {
    let mut spec = seen(attributes);
    if let Some(spec) = spec.as_object_mut() {
        let is_nothing = |value: &Value| {
            value == "" || value.as_object().is_some_and(Map::is_empty) || value == &json!([])
        };
        for part in ["resourceAttributes", "nonResourceAttributes"] {
            if let Some(Value::Object(part)) = spec.get_mut(part) {
                part.retain(|_, value| !is_nothing(value));
            }
        }
        spec.retain(|field, value| field.ends_with("Attributes") || !is_nothing(value));
        // The one field that v1 has another name for.
        if old && let Some(groups) = spec.remove("groups") {
            spec.insert("group".to_owned(), groups);
        }
    }
    spec
}

fn resource<'a>(attributes: &Attributes<'a>) -> [(&'static str, &'a str); 7] {
    [
        ("namespace", attributes.namespace),
        ("verb", attributes.verb),
        ("group", attributes.group),
        ("version", attributes.version),
        ("resource", attributes.resource),
        ("subresource", attributes.subresource),
        ("name", attributes.name),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::User;

    #[test]
    fn a_question_is_sent_without_what_is_empty_and_seen_with_it() {
        let ann = User { name: "ann".to_owned(), groups: vec!["g".to_owned()], ..User::default() };
        let want = Attributes { name: "p", ..Attributes::on(&ann, "get", "", "pods") };
        let part = json!({"verb": "get", "version": "*", "resource": "pods", "name": "p"});
        let sent = json!({"user": "ann", "groups": ["g"], "resourceAttributes": part});
        assert_eq!(spec(&want, false), sent);
        assert_eq!(spec(&want, true)["group"], json!(["g"]));
        assert_eq!(seen(&want)["resourceAttributes"]["namespace"], "");
        let selectors = Selectors::of_query("spec.nodeName=n", "a in (x,y),b");
        let narrow = Attributes { selectors: &selectors, ..want };
        let sent = &spec(&narrow, true)["resourceAttributes"];
        assert_eq!(
            sent["fieldSelector"],
            json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]})
        );
        assert_eq!(
            sent["labelSelector"],
            json!({"requirements": [{"key": "a", "operator": "In", "values": ["x", "y"]},
                {"key": "b", "operator": "Exists"}]})
        );
        let path = Attributes { is_resource: false, path: "/x", ..want };
        assert_eq!(
            spec(&path, false)["nonResourceAttributes"],
            json!({"path": "/x", "verb": "get"})
        );
    }

    #[test]
    fn conditions_are_typed() {
        for (condition, expected) in [
            ("has(request.resourceAttributes) && request.resourceAttributes.verb == 'get'", ""),
            ("'a' in request.groups || request.extra['x'].exists(v, v == '1')", ""),
            (
                "request.resourceAttributes.labelSelector.requirements.exists(r, r.key == 'a' && 'x' in r.values)",
                "",
            ),
            ("request.user", "must evaluate to bool"),
            ("request.nobody == ''", "compilation failed: "),
        ] {
            let why = compiled(condition).err().unwrap_or_default();
            assert!(why.starts_with(expected) && why.is_empty() == expected.is_empty(), "{why}");
        }
    }
}
