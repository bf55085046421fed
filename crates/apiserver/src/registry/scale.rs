//! The `scale` view: one vocabulary (`autoscaling/v1` Scale) for everything that has replicas.

use api::apply::Manager;
use api::custom::{self, Scale};
use api::resource::Resource;
use api::status::{FieldError, Status};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::call::{Call, Content, Reply, Target};
use super::options::WriteOptions;
use super::patch::{Patch, apply_failure, patch_options};
use super::write::{Change, Writer};
use super::{Outcome, Registry, conversion, decode, meta, names, negotiate};

impl Registry {
    /// GET of a scale.
    pub(super) async fn get_scale(&self, call: &Call) -> Outcome<Reply> {
        let target = &call.target;
        self.context.fresh().await?;
        let entry = self
            .store()
            .get(&target.key())
            .ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
        self.shown(call, &entry.value).await
    }

    /// PUT of a scale.
    pub(super) async fn put_scale(&self, call: &Call) -> Outcome<Reply> {
        let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
        let mut scale = decode::parse(&call.content_type(), &call.body)?;
        decode::drop_nulls(&mut scale);
        check_kind(&scale)?;
        call.check_names(&scale)?;
        self.write_scale(call, &options, &|_| Ok(scale.clone())).await
    }

    /// PATCH of a scale.
    pub(super) async fn patch_scale(&self, call: &Call) -> Outcome<Reply> {
        let options = patch_options(call)?;
        let patch = Patch::parse(call)?;
        if let Patch::Apply(scale) = &patch {
            return self.apply_scale(call, &options, scale).await;
        }
        self.write_scale(call, &options, &|live| match &patch {
            // A Scale has no lists, so that a strategic merge is a plain one.
            Patch::Strategic(patch) => Patch::Merge(patch.clone()).patched(call, live),
            patch => patch.patched(call, live),
        })
        .await
    }

    /// Server-side apply of a scale: its replicas are the object's, and so are their owners.
    async fn apply_scale(
        &self,
        call: &Call,
        options: &WriteOptions,
        scale: &Value,
    ) -> Outcome<Reply> {
        let target = &call.target;
        let mut scale = scale.clone();
        if meta::name(&scale).is_empty() {
            meta::set(&mut scale, "name", target.name.as_str());
        }
        check_applied(call, &scale)?;
        let config = applied_to(target, &scale);
        let (writer, time) = (writer(call, options), names::time(self.now()));
        let api_version = target.api_version();
        let manager = Manager {
            name: &writer.manager,
            api_version: &api_version,
            subresource: "scale",
            time: &time,
        };
        let build = |live: Option<&Value>| {
            let live = live.ok_or_else(|| Status::not_found(&*target.resource, &target.name))?;
            let apply = api::apply::apply;
            apply(&target.resource, Some(live), &config, &manager, options.force)
                .map_err(apply_failure)
        };
        self.change_scale(call, &writer, false, &build).await
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
            scaled(target, live, &build(&scale_of(&target.resource, &target.version, live))?)
        };
        self.change_scale(call, &writer(call, options), true, &build).await
    }

    async fn change_scale(
        &self,
        call: &Call,
        writer: &Writer<'_>,
        track: bool,
        build: &(dyn Fn(Option<&Value>) -> Outcome<Value> + Send + Sync),
    ) -> Outcome<Reply> {
        let change = Change {
            target: &call.target,
            subresource: "scale",
            create: false,
            conditional: false,
            track,
            build,
        };
        let written = self.change(&change, writer).await?;
        self.shown(call, &written.value).await
    }

    /// The scale of a stored object.
    async fn shown(&self, call: &Call, stored: &Bytes) -> Outcome<Reply> {
        let target = &call.target;
        let stored = conversion::translate_stored(&self.context, target, stored).await?;
        let object = target.present(negotiate::parse(&stored)?)?;
        Ok(Reply::ok(Content::Object(scale_of(&target.resource, &target.version, &object))))
    }
}

/// Where a kind has its replicas.
fn places(resource: &Resource, version: &str) -> Scale {
    let defined = resource.custom.as_ref().and_then(|kind| kind.scale(version));
    defined.cloned().unwrap_or_else(|| Scale {
        spec: ".spec.replicas".to_owned(),
        status: ".status.replicas".to_owned(),
        selector: None,
    })
}

fn writer<'a>(call: &'a Call, options: &WriteOptions) -> Writer<'a> {
    Writer { user: &call.user, manager: call.field_manager(options), dry_run: options.dry_run }
}

/// Refuses what says that it is something other than a Scale.
fn check_kind(scale: &Value) -> Outcome<()> {
    let text = |field: &str| scale[field].as_str().filter(|text| !text.is_empty());
    let api_version = text("apiVersion").unwrap_or("autoscaling/v1");
    let kind = text("kind").unwrap_or("Scale");
    if (api_version, kind) == ("autoscaling/v1", "Scale") {
        return Ok(());
    }
    let (_, version) = api::resource::split_api_version(api_version);
    Err(Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a Scale: no kind {kind:?} is registered for version {api_version:?} in scheme \"coracle\""
    )))
}

/// Refuses what is no configuration of a Scale.
fn check_applied(call: &Call, scale: &Value) -> Outcome<()> {
    let given = scale["apiVersion"].as_str().unwrap_or_default();
    if (given, scale["kind"].as_str()) != ("autoscaling/v1", Some("Scale")) {
        return Err(Status::bad_request(format!(
            "incorrect version specified in apply patch. Specified patch version: {given}, expected: autoscaling/v1"
        )));
    }
    call.check_names(scale)?;
    check_replicas(&call.target, scale).map(|_| ())
}

/// A configuration of a Scale as one of the object that it scales.
fn applied_to(target: &Target, scale: &Value) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(value) = scale["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut config = json!({
        "apiVersion": target.api_version(), "kind": target.resource.kind, "metadata": metadata,
    });
    if let Some(replicas) = scale["spec"].get("replicas") {
        custom::set(&mut config, &places(&target.resource, &target.version).spec, replicas.clone());
    }
    config
}

/// The object with its replicas as the scale says.
fn scaled(target: &Target, live: &Value, scale: &Value) -> Outcome<Value> {
    let replicas = check_replicas(target, scale)?;
    let mut object = live.clone();
    for field in ["resourceVersion", "uid"] {
        let text = meta::text(scale, field);
        meta::set(&mut object, field, if text.is_empty() { Value::Null } else { text.into() });
    }
    custom::set(&mut object, &places(&target.resource, &target.version).spec, replicas.into());
    Ok(object)
}

/// What a scale asks for; nothing is zero.
fn check_replicas(target: &Target, scale: &Value) -> Outcome<i64> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas >= 0 {
        return Ok(replicas);
    }
    let error =
        FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
    Err(Status::invalid(("autoscaling", "Scale"), &target.name, &[error]))
}

/// An object's replicas as a Scale that somebody else has changed says.
pub(crate) fn put_scale(resource: &Resource, version: &str, object: &mut Value, scale: &Value) {
    custom::set(object, &places(resource, version).spec, scale["spec"]["replicas"].clone());
}

/// An object's scale.
pub(crate) fn scale_of(resource: &Resource, version: &str, object: &Value) -> Value {
    let places = places(resource, version);
    let count = |path: &str| custom::get(object, path).as_i64().unwrap_or(0);
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        let value = &object["metadata"][field];
        if !value.is_null() {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": count(&places.status)});
    let selector = match (&resource.custom, &places.selector) {
        (_, Some(path)) => custom::get(object, path).as_str().unwrap_or_default().to_owned(),
        (Some(_), None) => String::new(),
        (None, None) => selector_text(&object["spec"]["selector"]),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": count(&places.spec)}, "status": status,
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
        let resource = api::resource::find("apps", "v1", "deployments").unwrap().clone();
        let object = json!({"metadata": {"name": "web", "resourceVersion": "4", "labels": {}}, "status": {"replicas": 2},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"}}}});
        assert_eq!(
            scale_of(&resource, "v1", &object),
            json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "web", "resourceVersion": "4"},
                "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "a=1,b=2"}})
        );
        assert_eq!(selector_text(&json!({"app": "x"})), "app=x");
    }
}
