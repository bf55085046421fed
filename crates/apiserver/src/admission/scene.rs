//! What CEL expressions of policies and match conditions see of a write.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use expression::{
    Budget, CONDITIONS_BUDGET, CompileError, EvaluateError, Kind, Language, Program, compile_as,
};
use serde_json::{Value, json};

use super::authority::Authority;
use super::rules::View;
use super::{Attributes, review, webhooks};
use crate::registry::Outcome;
use crate::server::Context;

/// All names that expressions know.
const VARIABLES: [&str; 7] =
    ["authorizer", "namespaceObject", "object", "oldObject", "params", "request", "variables"];

/// How many permissions one expression may ask for: what upstream's cost lets pass is fewer.
const QUESTIONS_MAX: usize = 64;

/// An expression, or why it is none.
pub(super) type Compiled = Result<Program, CompileError>;

/// Compiles an expression of a policy or of a match condition.
pub(super) fn compiled(source: &Value, language: Language) -> Compiled {
    let variables = VARIABLES.map(|name| (name, Kind::Any));
    compile_as(source.as_str().unwrap_or_default(), &variables, language)
}

/// What upstream says where a budget does not suffice.
pub(super) fn out_of_budget() -> String {
    EvaluateError::Budget.to_string()
}

/// An expression with a name.
#[derive(Debug)]
pub(super) struct Named {
    pub name: String,
    pub program: Compiled,
}

impl Named {
    /// Reads a list of `{name, expression}`.
    pub fn list(list: &Value, language: Language) -> Vec<Self> {
        let all = list.as_array().into_iter().flatten();
        all.map(|one| Named {
            name: one["name"].as_str().unwrap_or_default().to_owned(),
            program: compiled(&one["expression"], language),
        })
        .collect()
    }
}

/// A write as expressions see it.
pub(super) struct Scene<'a> {
    authority: Authority<'a>,
    object: Value,
    old: Value,
    request: Value,
    namespace: Value,
    authorizer: Value,
}

/// What is particular to one policy with one of its parameters.
pub(super) struct Given<'p> {
    pub params: Value,
    /// The policy's variables, each computed when an expression first speaks of it.
    variables: &'p [Named],
    known: Mutex<Known>,
}

/// Variables that have been computed.
struct Known {
    values: Value,
    /// Those that have no value, and why.
    failed: Vec<(String, String)>,
}

impl<'p> Given<'p> {
    /// Parameters, and variables of which none has been computed yet.
    pub fn new(params: Value, variables: &'p [Named]) -> Self {
        let known = Known { values: json!({}), failed: Vec::new() };
        Given { params, variables, known: Mutex::new(known) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Scene<'a> {
    /// The write, with objects in the version of `view`.
    pub async fn new(
        context: &'a Arc<Context>,
        attributes: &'a Attributes<'_>,
        view: &View,
        object: &Value,
    ) -> Outcome<Self> {
        let object = webhooks::seen(context, attributes, view, object).await?;
        let old = webhooks::seen_before(context, attributes, view).await?;
        let nothing = (&Value::Null, &Value::Null);
        let mut request = review::request(attributes, view, "v1", "", nothing)["request"].take();
        if let Some(request) = request.as_object_mut() {
            request.retain(|field, _| !matches!(field.as_str(), "uid" | "object" | "oldObject"));
            // Texts that are empty are there for expressions.
            for field in ["name", "namespace", "subResource", "requestSubResource"] {
                request.entry(field).or_insert_with(|| "".into());
            }
        }
        let row = attributes.resource;
        let authorizer = json!({"requestResource": {
            "group": row.group, "resource": row.plural, "subresource": attributes.subresource,
            "namespace": attributes.namespace, "name": attributes.name,
        }});
        let namespace = match attributes.namespace {
            "" => Value::Null,
            name => {
                let found = attributes.cluster.find("namespaces", "", name);
                found.map_or(Value::Null, Arc::unwrap_or_clone)
            }
        };
        let authority = Authority::new(context, attributes.user);
        Ok(Scene { authority, object, old, request, namespace, authorizer })
    }

    /// The value of an expression; the error is CEL's. Where the budget is spent afterwards, that is
    /// what matters.
    pub async fn evaluate(
        &self,
        program: &Compiled,
        given: &Given<'_>,
        budget: &mut Budget,
    ) -> Result<Value, String> {
        let program = program.as_ref().map_err(|error| format!("compilation error: {error}"))?;
        self.compute(program, given, budget).await;
        self.run(program, given, budget).await
    }

    /// Runs a program again and again until all that it asks of the authorizers is known; only the
    /// last run counts.
    async fn run(
        &self,
        program: &Program,
        given: &Given<'_>,
        budget: &mut Budget,
    ) -> Result<Value, String> {
        for _ in 0..QUESTIONS_MAX {
            let mut left = *budget;
            let value = self.run_once(program, given, &mut left);
            if !self.authority.answers().await {
                *budget = left;
                return value;
            }
        }
        Err(format!("more than {QUESTIONS_MAX} questions to the authorizers"))
    }

    fn run_once(
        &self,
        program: &Program,
        given: &Given<'_>,
        budget: &mut Budget,
    ) -> Result<Value, String> {
        let known = given.known();
        let bindings = [
            ("authorizer", &self.authorizer),
            ("namespaceObject", &self.namespace),
            ("object", &self.object),
            ("oldObject", &self.old),
            ("params", &given.params),
            ("request", &self.request),
            ("variables", &known.values),
        ];
        let asks = |program: &Program| program.mentions("authorizer");
        let by_variable = given.variables.iter().filter_map(|one| one.program.as_ref().ok());
        let value = match asks(program) || by_variable.into_iter().any(asks) {
            true => program.evaluate_with(&bindings, budget, |cel| {
                self.authority.add_functions(cel);
            }),
            false => program.evaluate_within(&bindings, budget),
        };
        value.map_err(|error| {
            let error = error.to_string();
            let of_variable = known.failed.iter().find(|(name, _)| error.ends_with(name.as_str()));
            of_variable.map_or(error, |(_, why)| why.clone())
        })
    }

    /// Computes the variables that a program speaks of and those that these speak of, in their
    /// order, each from those before it.
    async fn compute(&self, program: &Program, given: &Given<'_>, budget: &mut Budget) {
        let mut due: BTreeSet<&str> = program.selected("variables");
        for variable in given.variables.iter().rev() {
            if let (true, Ok(program)) = (due.contains(&*variable.name), &variable.program) {
                due.extend(program.selected("variables"));
            }
        }
        for variable in given.variables.iter().filter(|one| due.contains(&*one.name)) {
            let name = variable.name.as_str();
            let is_known = {
                let known = given.known();
                !known.values[name].is_null() || known.failed.iter().any(|(other, _)| other == name)
            };
            if is_known {
                continue;
            }
            let computed = match &variable.program {
                Ok(program) => self.run(program, given, budget).await,
                Err(error) => Err(format!("compilation error: {error}")),
            };
            let mut known = given.known();
            match computed {
                Ok(value) => known.values[name] = value,
                Err(why) => {
                    let why = format!("composited variable {name:?} fails to evaluate: {why}");
                    known.failed.push((name.to_owned(), why));
                }
            }
        }
    }

    /// Whether all conditions hold. One that does not decides; else one that fails is the error.
    pub async fn meets(&self, conditions: &[Named], given: &Given<'_>) -> Result<bool, String> {
        let mut failed = Vec::new();
        let mut budget = Budget::new(CONDITIONS_BUDGET);
        for condition in conditions {
            let found = self.evaluate(&condition.program, given, &mut budget).await;
            if budget.is_spent() {
                return Err(out_of_budget());
            }
            match found {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => failed.push(format!(
                    "match condition {:?} did not evaluate to a bool",
                    condition.name
                )),
                Err(why) => {
                    let source = condition.program.as_ref().map_or("", Program::source);
                    failed.push(format!("expression '{source}' resulted in error: {why}"));
                }
            }
        }
        if failed.is_empty() { Ok(true) } else { Err(failed.join(", ")) }
    }
}
