//! MutatingAdmissionPolicy: expressions that say what is to be changed in an object.

use std::sync::Arc;

use api::apply::Manager;
use api::status::Status;
use expression::{Budget, OBJECT_BUDGET};
use serde_json::{Value, json};

use super::policy::{Mutation, Policies, Policy, denied, met};
use super::rules::{self, View};
use super::scene::{Given, Scene, out_of_budget};
use super::{Attributes, Settle, webhooks};
use crate::registry::{Outcome, meta};
use crate::server::Context;

/// Changes an object as the policies say; whether any did. In the second round those only that
/// want to see what others have changed.
pub(super) async fn mutate(
    context: &Arc<Context>,
    attributes: &Attributes<'_>,
    policies: &Policies,
    object: &mut Value,
    second: bool,
    settle: Settle<'_>,
) -> Outcome<bool> {
    if policies.0.is_empty() || rules::is_exempt(attributes) || object.is_null() {
        return Ok(false);
    }
    let before = object.clone();
    for policy in policies.0.iter().filter(|policy| !second || policy.again) {
        let Some(view) = met(policy, attributes, object)? else { continue };
        for binding in &policy.bindings {
            if !binding.matches(attributes, object)? {
                continue;
            }
            let refuse = |object: &Value, why: String| {
                let message = format!(
                    "policy '{}' with binding '{}' denied request: {why}",
                    policy.name, binding.name
                );
                if policy.ignores_failure {
                    Ok(())
                } else {
                    Err(denied(attributes, object, (message, "")))
                }
            };
            let params = match policy.params(binding, attributes) {
                Ok(params) => params,
                Err(why) => {
                    refuse(object, format!("failed to configure binding: {why}"))?;
                    continue;
                }
            };
            for params in params {
                match with_params(context, attributes, policy, &view, params, object).await {
                    Ok(()) => settle(object),
                    Err(why) => refuse(object, why)?,
                }
            }
        }
    }
    Ok(*object != before)
}

async fn with_params(
    context: &Arc<Context>,
    attributes: &Attributes<'_>,
    policy: &Policy,
    view: &View,
    params: Value,
    object: &mut Value,
) -> Result<(), String> {
    let failed = |status: Status| status.message;
    let scene = Scene::new(context, attributes, view, object).await.map_err(failed)?;
    let mut given = Given::new(params, &[]);
    if !scene.meets(&policy.conditions, &given).await? {
        return Ok(());
    }
    let mut changed = object.clone();
    for mutation in &policy.mutations {
        // Each sees what the one before it has made.
        let scene = Scene::new(context, attributes, view, &changed).await.map_err(failed)?;
        given = Given::new(std::mem::take(&mut given.params), &policy.variables);
        let mut budget = Budget::new(OBJECT_BUDGET);
        let value = scene.evaluate(&mutation.program, &given, &mut budget).await;
        if budget.is_spent() {
            return Err(out_of_budget());
        }
        let value = value
            .map_err(|why| format!("expression '{}' resulted in error: {why}", mutation.source))?;
        apply(context, attributes, view, mutation, value, &mut changed).await?;
    }
    *object = changed;
    Ok(())
}

async fn apply(
    context: &Context,
    attributes: &Attributes<'_>,
    view: &View,
    mutation: &Mutation,
    value: Value,
    object: &mut Value,
) -> Result<(), String> {
    let failed = |status: Status| status.message;
    if mutation.is_patch {
        let patch = serde_json::from_value(value)
            .map_err(|error| format!("expression '{}': {error}", mutation.source))?;
        let applied = webhooks::apply(context, attributes, view, &patch, object).await;
        return applied.map_err(failed);
    }
    let mut seen = webhooks::seen(context, attributes, view, object).await.map_err(failed)?;
    let mut config = value;
    if !config.is_object() {
        return Err(format!("expression '{}' did not give an object", mutation.source));
    }
    for field in ["apiVersion", "kind"] {
        config[field] = seen[field].clone();
    }
    meta::set(&mut config, "name", meta::name(&seen));
    let owners = seen["metadata"]["managedFields"].clone();
    let api_version = view.resource(attributes).api_version(&view.version);
    let manager = Manager {
        name: "admission",
        api_version: &api_version,
        subresource: "",
        time: "1970-01-01T00:00:00Z",
    };
    // Owners are recorded elsewhere, and nobody is in the way of a policy.
    meta::set(&mut seen, "managedFields", json!([]));
    let row = view.resource(attributes);
    api::apply::check(row, &api_version, &config).map_err(|error| error.to_string())?;
    let mut made = api::apply::apply(row, Some(&seen), &config, &manager, true)
        .map_err(|error| error.to_string())?;
    meta::set(&mut made, "managedFields", owners);
    webhooks::put_back(context, attributes, view, made, object).await.map_err(failed)
}
