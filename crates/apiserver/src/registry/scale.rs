//! The `scale` view: one vocabulary (`autoscaling/v1` Scale) for everything that has replicas.

use api::status::{FieldError, Status};
use serde_json::{Map, Value, json};

use super::call::{Call, Content, Reply, Target};
use super::options::WriteOptions;
use super::patch::{Patch, patch_options};
use super::read::invalid_options;
use super::write::{Change, Writer};
use super::{Outcome, Registry, decode, meta, negotiate};

impl Registry {
    /// GET of a scale.
    pub(super) fn get_scale(&self, call: &Call) -> Outcome<Reply> {
        let target = &call.target;
        let entry = self
            .store()
            .get(&target.key())
            .ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
        Ok(Reply::ok(Content::Object(scale_of(&negotiate::parse(&entry.value)?))))
    }

    /// PUT of a scale.
    pub(super) async fn put_scale(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "UpdateOptions").map_err(invalid_options)?;
        let mut scale = decode::parse(&call.content_type(), &call.body)?;
        decode::drop_nulls(&mut scale);
        call.check_names(&scale)?;
        self.write_scale(call, &options, &|_| Ok(scale.clone())).await
    }

    /// PATCH of a scale.
    pub(super) async fn patch_scale(&self, call: &Call) -> Outcome<Reply> {
        let options = patch_options(call)?;
        let patch = Patch::parse(call)?;
        self.write_scale(call, &options, &|live| match &patch {
            Patch::Apply(applied) => {
                let mut scale = live.clone();
                json_patch::merge(&mut scale, applied);
                Ok(scale)
            }
            // A Scale has no lists, so that a strategic merge is a plain one.
            Patch::Strategic(patch) => Patch::Merge(patch.clone()).patched(call, live),
            patch => patch.patched(call, live),
        })
        .await
    }

    async fn write_scale(
        &self,
        call: &Call,
        options: &WriteOptions,
        build: &(dyn Fn(&Value) -> Outcome<Value> + Send + Sync),
    ) -> Outcome<Reply> {
        let target = &call.target;
        let build = |live: Option<&Value>| {
            let live = live.ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
            scaled(target, live, &build(&scale_of(live))?)
        };
        let writer = Writer {
            user: &call.user,
            manager: call.field_manager(options),
            dry_run: options.dry_run,
        };
        let change = Change {
            target,
            subresource: "scale",
            create: false,
            conditional: false,
            track: true,
            build: &build,
        };
        let written = self.change(&change, &writer).await?;
        Ok(Reply::ok(Content::Object(scale_of(&negotiate::parse(&written.value)?))))
    }
}

/// The object with its replicas as the scale says.
fn scaled(target: &Target, live: &Value, scale: &Value) -> Outcome<Value> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error =
            FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(("autoscaling", "Scale"), &target.name, &[error]));
    }
    let mut object = live.clone();
    for field in ["resourceVersion", "uid"] {
        let text = meta::text(scale, field);
        meta::set(&mut object, field, if text.is_empty() { Value::Null } else { text.into() });
    }
    meta::member(&mut object, "spec").insert("replicas".to_owned(), replicas.into());
    Ok(object)
}

/// An object's scale.
fn scale_of(object: &Value) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        let value = &object["metadata"][field];
        if !value.is_null() {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    let selector = selector_text(&object["spec"]["selector"]);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)}, "status": status,
    })
}

/// A selector as one text: a ReplicationController's plain map or a structured one.
fn selector_text(selector: &Value) -> String {
    let structured =
        selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let whole = if structured { selector.clone() } else { json!({"matchLabels": selector}) };
    if selector.is_null() {
        return String::new();
    }
    api::selector::LabelSelector::from_object(&whole)
        .map(|selector| selector.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_selector() {
        let object = json!({"metadata": {"name": "web", "resourceVersion": "4", "labels": {}}, "status": {"replicas": 2},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}}}});
        assert_eq!(
            scale_of(&object),
            json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "web", "resourceVersion": "4"},
                "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "a=1,b=2"}})
        );
        assert_eq!(selector_text(&json!({"app": "x"})), "app=x");
    }
}
