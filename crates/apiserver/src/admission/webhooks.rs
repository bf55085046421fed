//! Asking webhooks: mutating ones in turn, each with what the one before has made of the object,
//! validating ones at once.

use std::collections::HashSet;
use std::sync::Arc;

use api::resource::Resource;
use api::status::Status;
use futures::future::join_all;
use serde_json::{Value, json};

use super::hook::{Hook, Hooks};
use super::rules::{self, View};
use super::scene::{Given, Scene};
use super::verdict::Verdict;
use super::{Attributes, Operation, Settle, review};
use crate::notes;
use crate::registry::{Outcome, conversion, scale};
use crate::server::Context;

/// Which mutating webhooks have been asked about a write, for the second round.
#[derive(Default)]
pub(super) struct Invoked {
    /// Whether this is the second round.
    second: bool,
    /// Places of those that asked to be asked again, in the first round.
    eligible: Vec<usize>,
    /// Those of them after which somebody changed the object.
    due: HashSet<usize>,
}

impl Invoked {
    /// Whether the second round has begun.
    pub fn is_second(&self) -> bool {
        self.second
    }

    /// Begins the second round; `changed` if the object was changed between the rounds.
    pub fn again(&mut self, changed: bool) {
        self.second = true;
        if changed {
            self.changed();
        }
    }

    fn changed(&mut self) {
        self.due.extend(self.eligible.drain(..));
    }
}

/// Why a webhook has no answer to act on.
enum Failure {
    /// It could not be asked, or its answer is none: the failure policy decides.
    Call(String),
    /// The request is at fault.
    Refused(Status),
}

/// Asks the mutating webhooks that are about this write; whether one has changed the object.
pub(super) async fn mutate(
    context: &Arc<Context>,
    attributes: &Attributes<'_>,
    hooks: &Hooks,
    object: &mut Value,
    invoked: &mut Invoked,
    settle: Settle<'_>,
) -> Outcome<bool> {
    let mut any = false;
    if rules::is_exempt(attributes) {
        return Ok(any);
    }
    for (place, hook) in hooks.0.iter().enumerate() {
        if invoked.second && !invoked.due.remove(&place) {
            continue;
        }
        let Some(view) = hook.matcher.matches(attributes, object)? else { continue };
        let before = object.clone();
        let asked = match is_due(context, attributes, hook, &view, object).await {
            Ok(true) => ask(context, attributes, hook, &view, object).await,
            Ok(false) => continue,
            Err(failure) => Err(failure),
        };
        let verdict = settled(hook, "mutation", place, asked)?;
        if let Some(patch) = verdict.and_then(|verdict| verdict.patch)
            && !object.is_null()
        {
            apply(context, attributes, &view, &patch, object).await?;
            settle(object);
        }
        let changed = *object != before;
        let round = usize::from(invoked.second);
        notes::annotate(
            format!("mutation.webhook.admission.k8s.io/round_{round}_index_{place}"),
            json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed})
                .to_string(),
        );
        if changed {
            any = true;
            invoked.changed();
        }
        if hook.again && !invoked.second {
            invoked.eligible.push(place);
        }
    }
    Ok(any)
}

/// Asks the validating webhooks that are about this write.
pub(super) async fn validate(
    context: &Arc<Context>,
    attributes: &Attributes<'_>,
    hooks: &Hooks,
    object: &Value,
) -> Outcome<()> {
    if rules::is_exempt(attributes) || hooks.0.is_empty() {
        return Ok(());
    }
    let mut asked = Vec::new();
    for (place, hook) in hooks.0.iter().enumerate() {
        if let Some(view) = hook.matcher.matches(attributes, object)? {
            asked.push(async move {
                let answer = match is_due(context, attributes, hook, &view, object).await {
                    Ok(true) => ask(context, attributes, hook, &view, object).await,
                    Ok(false) => return Ok(()),
                    Err(failure) => Err(failure),
                };
                settled(hook, "validation", place, answer).map(drop)
            });
        }
    }
    join_all(asked).await.into_iter().collect()
}

/// Whether the webhook's match conditions hold. Where they cannot be told, the failure policy
/// decides whether the write is refused or the webhook is not asked.
async fn is_due(
    context: &Arc<Context>,
    attributes: &Attributes<'_>,
    hook: &Hook,
    view: &View,
    object: &Value,
) -> Result<bool, Failure> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let scene = Scene::new(context, attributes, view, object).await.map_err(Failure::Refused)?;
    match scene.meets(&hook.conditions, &Given::new(Value::Null, &[])).await {
        Err(_) if hook.ignores_failure => Ok(false),
        Err(why) => Err(Failure::Refused(Status::forbidden(
            attributes.resource,
            attributes.name,
            &format!("matchCondition error for webhook {:?}: {why}", hook.name),
        ))),
        Ok(met) => Ok(met),
    }
}

/// Applies the failure policy, and turns a refusal into an error.
fn settled(
    hook: &Hook,
    phase: &str,
    place: usize,
    asked: Result<Verdict, Failure>,
) -> Outcome<Option<Verdict>> {
    match asked {
        Ok(Verdict { refused: Some(status), .. }) | Err(Failure::Refused(status)) => Err(status),
        Ok(verdict) => Ok(Some(verdict)),
        Err(Failure::Call(why)) => {
            let name = &hook.name;
            let text = format!("failed calling webhook {name:?}: {why}");
            if !hook.ignores_failure {
                return Err(Status::internal_error(&text));
            }
            tracing::warn!(webhook = name, error = why, "failing open");
            let key = format!("failed-open.{phase}.webhook.admission.k8s.io/round_0_index_{place}");
            notes::annotate(key, name);
            Ok(None)
        }
    }
}

async fn ask(
    context: &Context,
    attributes: &Attributes<'_>,
    hook: &Hook,
    view: &View,
    object: &Value,
) -> Result<Verdict, Failure> {
    if attributes.dry_run && !hook.knows_dry_run {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failure::Refused(Status::bad_request(why)));
    }
    let Some(version) = hook.version else {
        let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Failure::Call(why.to_owned()));
    };
    let uid = base::names::uuid();
    let shown = seen(context, attributes, view, object).await.map_err(Failure::Refused)?;
    let old = seen_before(context, attributes, view).await.map_err(Failure::Refused)?;
    let review = review::request(attributes, view, version, &uid, (&shown, &old));
    let answer = context
        .webhooks
        .call(&hook.client, &review, hook.timeout)
        .await
        .map_err(|error| Failure::Call(format!("failed to call webhook: {error}")))?;
    Verdict::read(hook, version, &uid, &answer)
        .map_err(|why| Failure::Call(format!("received invalid webhook response: {why}")))
}

/// A stored object as the webhook knows it.
pub(super) async fn seen(
    context: &Context,
    attributes: &Attributes<'_>,
    view: &View,
    object: &Value,
) -> Outcome<Value> {
    let row = view.resource(attributes);
    match (attributes.operation, attributes.subresource) {
        (Operation::Update, "scale") => return Ok(scale::scale_of(row, &view.version, object)),
        (Operation::Create, "binding") => return Ok(binding(object)),
        _ => {}
    }
    let (from, to) = (row.storage_api_version(), row.api_version(&view.version));
    converted(context, attributes, row, (&from, &to), object.clone()).await
}

/// The state that is replaced, as the webhook knows it; null where there is none.
pub(super) async fn seen_before(
    context: &Context,
    attributes: &Attributes<'_>,
    view: &View,
) -> Outcome<Value> {
    match attributes.old {
        Some(old) => seen(context, attributes, view, old).await,
        None => Ok(Value::Null),
    }
}

/// An object of one version in another, where it is of that one.
async fn converted(
    context: &Context,
    attributes: &Attributes<'_>,
    row: &Resource,
    (from, to): (&str, &str),
    mut object: Value,
) -> Outcome<Value> {
    if object.is_null() || object["apiVersion"] != from || from == to {
        return Ok(object);
    }
    if conversion::translator(row).is_some() {
        return attributes.translations.get(context, row, to, object).await;
    }
    api::convert::convert(row, from, to, &mut object);
    Ok(object)
}

/// The Binding that puts a pod on its node.
fn binding(pod: &Value) -> Value {
    let of_pod = |field: &str| pod["metadata"][field].clone();
    json!({"kind": "Binding", "apiVersion": "v1",
        "metadata": {"name": of_pod("name"), "namespace": of_pod("namespace")},
        "target": {"kind": "Node", "name": pod["spec"]["nodeName"]}})
}

/// Applies a webhook's patch to the object as the webhook knows it.
pub(super) async fn apply(
    context: &Context,
    attributes: &Attributes<'_>,
    view: &View,
    patch: &json_patch::Patch,
    object: &mut Value,
) -> Outcome<()> {
    let mut patched = seen(context, attributes, view, object).await?;
    json_patch::patch(&mut patched, patch)
        .map_err(|error| Status::internal_error(&error.to_string()))?;
    put_back(context, attributes, view, patched, object).await
}

/// Replaces the stored form by one that a webhook or a policy has changed.
pub(super) async fn put_back(
    context: &Context,
    attributes: &Attributes<'_>,
    view: &View,
    changed: Value,
    object: &mut Value,
) -> Outcome<()> {
    let row = view.resource(attributes);
    match (attributes.operation, attributes.subresource) {
        (Operation::Update, "scale") => {
            scale::put_scale(row, &view.version, object, &changed);
            return Ok(());
        }
        // Where a pod goes has been decided.
        (Operation::Create, "binding") => return Ok(()),
        _ => {}
    }
    let (from, to) = (row.api_version(&view.version), row.storage_api_version());
    let is_other = from != to && conversion::translator(row).is_some();
    let known = is_other.then(|| changed.clone());
    *object = converted(context, attributes, row, (&from, &to), changed).await?;
    if let Some(mut known) = known {
        if let Some(custom) = &row.custom {
            custom.prune(&view.version, &mut known);
        }
        attributes.translations.know(&from, object, &known).await;
    }
    Ok(())
}
