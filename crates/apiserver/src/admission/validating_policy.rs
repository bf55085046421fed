//! ValidatingAdmissionPolicy: expressions that must be true of a write.

use std::sync::Arc;

use expression::{Budget, OBJECT_BUDGET};
use serde_json::{Value, json};

use super::policy::{Binding, Policies, Policy, Rule, denied, met};
use super::scene::{Given, Scene, out_of_budget};
use super::{Attributes, rules};
use crate::notes;
use crate::registry::Outcome;
use crate::server::Context;

/// Longest text that a messageExpression may give; what is longer counts as none.
const MESSAGE_BYTES_MAX: usize = 5 << 10;
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A rule that does not hold.
struct Violation {
    message: String,
    reason: String,
    place: usize,
}

/// Lets a write pass, warns, notes, or refuses it.
pub(super) async fn validate(
    context: &Arc<Context>,
    attributes: &Attributes<'_>,
    policies: &Policies,
    object: &Value,
) -> Outcome<()> {
    if policies.0.is_empty() || rules::is_exempt(attributes) {
        return Ok(());
    }
    let mut refused = None;
    let mut failures = Vec::new();
    for policy in &policies.0 {
        let Some(view) = met(policy, attributes, object)? else { continue };
        let scene = Scene::new(context, attributes, &view, object).await?;
        for binding in &policy.bindings {
            if !binding.matches(attributes, object)? {
                continue;
            }
            for violation in violations(policy, binding, attributes, &scene).await {
                let first = act(policy, binding, &violation, &mut failures);
                refused = refused.or(first.map(|message| (message, violation.reason)));
            }
        }
    }
    if !failures.is_empty() {
        notes::annotate(FAILURES, Value::from(failures).to_string());
    }
    match refused {
        Some((message, reason)) => Err(denied(attributes, object, (message, &reason))),
        None => Ok(()),
    }
}

/// Does what the binding says; gives the message where the write is refused.
fn act(
    policy: &Policy,
    binding: &Binding,
    violation: &Violation,
    failures: &mut Vec<Value>,
) -> Option<String> {
    let (name, bound, message) = (&policy.name, &binding.name, &violation.message);
    let mut refused = None;
    for action in &binding.actions {
        match action.as_str() {
            "Deny" => {
                refused = Some(format!(
                    "ValidatingAdmissionPolicy '{name}' with binding '{bound}' denied request: {message}"
                ));
            }
            "Warn" => notes::warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}': {message}"
            )),
            _ => failures.push(json!({
                "message": message, "policy": name, "binding": bound,
                "expressionIndex": violation.place, "validationActions": binding.actions,
            })),
        }
    }
    refused
}

async fn violations(
    policy: &Policy,
    binding: &Binding,
    attributes: &Attributes<'_>,
    scene: &Scene<'_>,
) -> Vec<Violation> {
    let failed = |message: String| {
        let violation = Violation { message, reason: String::new(), place: 0 };
        if policy.ignores_failure { Vec::new() } else { vec![violation] }
    };
    let params = match policy.params(binding, attributes) {
        Ok(params) => params,
        Err(why) => return failed(format!("failed to configure binding: {why}")),
    };
    let mut found = Vec::new();
    for params in params {
        let given = Given::new(params, &policy.variables);
        match scene.meets(&policy.conditions, &given).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                found.extend(failed(why));
                continue;
            }
        }
        found.extend(decided(policy, scene, &given).await.unwrap_or_else(failed));
    }
    found
}

/// What the rules say of a write with its parameters; the error is about all of them.
async fn decided(
    policy: &Policy,
    scene: &Scene<'_>,
    given: &Given<'_>,
) -> Result<Vec<Violation>, String> {
    let mut budget = Budget::new(OBJECT_BUDGET);
    let mut verdicts = Vec::with_capacity(policy.rules.len());
    for rule in &policy.rules {
        verdicts.push(scene.evaluate(&rule.program, given, &mut budget).await);
        if budget.is_spent() {
            return Err(out_of_budget());
        }
    }
    let mut found = Vec::new();
    for (place, (rule, verdict)) in policy.rules.iter().zip(verdicts).enumerate() {
        let violation = |message: String| {
            let reason = rule.reason.clone();
            Violation { message, reason, place }
        };
        let why = match verdict {
            Ok(Value::Bool(true)) => continue,
            Ok(Value::Bool(false)) => match message(rule, scene, given, &mut budget).await {
                Ok(message) => {
                    found.push(violation(message));
                    continue;
                }
                Err(why) => why,
            },
            Ok(_) => format!("expression '{}' resulted in error: no such overload", rule.source),
            Err(why) => format!("expression '{}' resulted in error: {why}", rule.source),
        };
        if !policy.ignores_failure {
            found.push(violation(why));
        }
    }
    annotate(policy, scene, given).await?;
    Ok(found)
}

/// Why a rule does not hold; the error says that finding out would take too long.
async fn message(
    rule: &Rule,
    scene: &Scene<'_>,
    given: &Given<'_>,
    budget: &mut Budget,
) -> Result<String, String> {
    let made = match &rule.message_program {
        Some(program) => Some(scene.evaluate(program, given, budget).await),
        None => None,
    };
    if budget.is_spent() {
        return Err(format!("failed messageExpression: {}", out_of_budget()));
    }
    if let Some(Ok(Value::String(text))) = made {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n') {
            return Ok(text.to_owned());
        }
    }
    Ok(match rule.message.as_str() {
        "" => format!("failed expression: {}", rule.source.trim()),
        message => message.to_owned(),
    })
}

async fn annotate(policy: &Policy, scene: &Scene<'_>, given: &Given<'_>) -> Result<(), String> {
    let mut budget = Budget::new(OBJECT_BUDGET);
    for annotation in &policy.annotations {
        let found = scene.evaluate(&annotation.program, given, &mut budget).await;
        if budget.is_spent() {
            return Err(out_of_budget());
        }
        if let Ok(Value::String(text)) = found
            && !text.trim().is_empty()
        {
            notes::annotate(format!("{}/{}", policy.name, annotation.name), text.trim());
        }
    }
    Ok(())
}
