//! Objects of one write in other versions of their kind: a webhook translates them, and is asked
//! once for each version that a policy or a webhook wants, however many want it.

use api::resource::Resource;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::registry::{Outcome, conversion};
use crate::server::Context;

/// Translations that are kept: the object and what it replaces, before and after changes, in a few
/// versions.
const KEPT_MAX: usize = 16;

/// What has been translated for a write.
#[derive(Default)]
pub struct Translations(Mutex<Vec<Translation>>);

struct Translation {
    /// The `apiVersion` that was wanted.
    to: String,
    of: Value,
    made: Outcome<Value>,
}

impl Translations {
    /// The object in the version that `to` names. Who asks for what another is waiting for waits
    /// with it.
    pub(super) async fn get(
        &self,
        context: &Context,
        row: &Resource,
        to: &str,
        object: Value,
    ) -> Outcome<Value> {
        let mut kept = self.0.lock().await;
        if let Some(known) = kept.iter().find(|one| one.to == to && one.of == object) {
            return known.made.clone();
        }
        let made = translate(context, row, to, object.clone()).await;
        keep(&mut kept, Translation { to: to.to_owned(), of: object, made: made.clone() });
        made
    }

    /// Remembers that an object is another in that version, which somebody has just made of it.
    pub(super) async fn know(&self, to: &str, of: &Value, made: &Value) {
        let translation = Translation { to: to.to_owned(), of: of.clone(), made: Ok(made.clone()) };
        keep(&mut *self.0.lock().await, translation);
    }
}

fn keep(kept: &mut Vec<Translation>, translation: Translation) {
    if kept.len() >= KEPT_MAX {
        kept.remove(0);
    }
    kept.push(translation);
}

async fn translate(context: &Context, row: &Resource, to: &str, object: Value) -> Outcome<Value> {
    let mut one = conversion::translate(context, row, to, vec![object]).await?;
    let mut object = one.pop().unwrap_or_default();
    if let Some(custom) = &row.custom {
        custom.prune(api::resource::split_api_version(to).1, &mut object);
    }
    Ok(object)
}
