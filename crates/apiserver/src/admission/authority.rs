//! The functions by which an expression asks what somebody may do.
//!
//! Evaluation is pure and cannot wait, and an authorizer may be another server. So a question
//! that is new is noted and fails; it is answered after the run, and the expression runs again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use expression::cel::extractors::This;
use expression::cel::objects::{Key, Map};
use expression::cel::{Context as Cel, ExecutionError, Value as CelValue};

use crate::authz::{Attributes, Decision, Selectors};
use crate::server::Context;
use crate::user::User;

/// What may be asked about, in the order in which a question holds it: the request's resource or
/// path, then whom it is about, if not the user.
const FIELDS: [&str; 11] = [
    "verb",
    "group",
    "resource",
    "subresource",
    "namespace",
    "name",
    "path",
    "fieldSelector",
    "labelSelector",
    "ofNamespace",
    "ofName",
];

/// A value for each of [`FIELDS`].
type Question = [String; FIELDS.len()];

/// All authorizers, for the expressions of one write.
pub(super) struct Authority<'a> {
    context: &'a Arc<Context>,
    user: &'a User,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    known: HashMap<Question, Decision>,
    open: Option<Question>,
}

fn locked(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Authority<'a> {
    /// Nobody has asked anything yet.
    pub fn new(context: &'a Arc<Context>, user: &'a User) -> Self {
        Authority { context, user, asked: Arc::default() }
    }

    /// Answers the question that the last run has left open; whether there was one.
    pub async fn answers(&self) -> bool {
        let Some(question) = locked(&self.asked).open.take() else { return false };
        let decision = self.decide(&question).await;
        locked(&self.asked).known.insert(question, decision);
        true
    }

    async fn decide(&self, question: &Question) -> Decision {
        let [
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
            path,
            fields,
            labels,
            space,
            account,
        ] = question;
        let other = (!account.is_empty()).then(|| User::service_account(space, account));
        // Selectors make a question narrower: that of nodes and webhooks look at them, roles do not.
        let selectors = Selectors::of_query(fields, labels);
        let asked = Attributes {
            selectors: &selectors,
            subresource,
            namespace,
            name,
            path,
            is_resource: path.is_empty(),
            ..Attributes::on(other.as_ref().unwrap_or(self.user), verb, group, resource)
        };
        self.context.decide(&asked).await
    }

    /// Lets a run ask.
    pub fn add_functions(&self, cel: &mut Cel<'_>) {
        for field in
            FIELDS.into_iter().filter(|field| !matches!(*field, "verb" | "ofNamespace" | "ofName"))
        {
            cel.add_function(field, move |This(this): This<CelValue>, value: Arc<String>| {
                with(this, field, CelValue::String(value))
            });
        }
        let account = |This(this): This<CelValue>, namespace: Arc<String>, name: Arc<String>| {
            let this = with(this, "ofNamespace", CelValue::String(namespace))?;
            with(this, "ofName", CelValue::String(name))
        };
        cel.add_function("serviceAccount", account);
        let asked = Arc::clone(&self.asked);
        cel.add_function("check", move |This(this): This<CelValue>, verb: Arc<String>| {
            let this = with(this, "verb", CelValue::String(verb))?;
            let question = FIELDS.map(|field| text(&this, field));
            let mut asked = locked(&asked);
            let Some(decision) = asked.known.get(&question) else {
                asked.open = Some(question);
                return Err(ExecutionError::function_error("check", "not answered yet"));
            };
            let said = |text: &str| CelValue::String(Arc::new(text.to_owned()));
            let this = with(this, "allowed", CelValue::Bool(decision.allowed))?;
            let this = with(this, "error", said(&decision.error))?;
            with(this, "reason", said(&decision.reason))
        });
        cel.add_function("allowed", |This(this): This<CelValue>| {
            Ok::<_, ExecutionError>(get(&this, "allowed") == Some(CelValue::Bool(true)))
        });
        cel.add_function("reason", |This(this): This<CelValue>| {
            Ok::<_, ExecutionError>(Arc::new(text(&this, "reason")))
        });
        cel.add_function("errored", |This(this): This<CelValue>| {
            Ok::<_, ExecutionError>(!text(&this, "error").is_empty())
        });
        cel.add_function("error", |This(this): This<CelValue>| {
            Ok::<_, ExecutionError>(Arc::new(text(&this, "error")))
        });
    }
}

fn key(field: &str) -> Key {
    Key::String(Arc::new(field.to_owned()))
}

fn with(this: CelValue, field: &str, value: CelValue) -> Result<CelValue, ExecutionError> {
    let CelValue::Map(map) = this else { return Err(ExecutionError::NoSuchOverload) };
    let mut members: HashMap<Key, CelValue> = (*map.map).clone();
    members.insert(key(field), value);
    Ok(CelValue::Map(Map { map: Arc::new(members) }))
}

fn get(this: &CelValue, field: &str) -> Option<CelValue> {
    match this {
        CelValue::Map(map) => map.map.get(&key(field)).cloned(),
        _ => None,
    }
}

fn text(this: &CelValue, field: &str) -> String {
    match get(this, field) {
        Some(CelValue::String(text)) => (*text).clone(),
        _ => String::new(),
    }
}
