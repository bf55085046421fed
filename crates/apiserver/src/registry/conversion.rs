//! Objects of defined kinds in the version that is asked for, where a webhook translates.
//! Source: `pkg/apiserver/conversion/webhook_converter.go` of apiextensions-apiserver.

use std::sync::Arc;
use std::time::Duration;

use api::resource::Resource;
use api::status::Status;
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Entry, Event};

use super::call::Target;
use super::{Outcome, negotiate};
use crate::server::Context;

/// How long a conversion webhook may take; upstream has no setting for it either.
const PATIENCE: Duration = Duration::from_secs(30);

/// The webhook that translates between the versions of a kind.
pub fn translator(resource: &Resource) -> Option<&Value> {
    resource.custom.as_ref()?.conversion.as_ref()
}

/// Objects in the version that `wanted` (an `apiVersion`) names.
pub async fn translate(
    context: &Context,
    resource: &Resource,
    wanted: &str,
    mut objects: Vec<Value>,
) -> Outcome<Vec<Value>> {
    let Some(webhook) = translator(resource) else { return Ok(objects) };
    let foreign: Vec<usize> =
        (0..objects.len()).filter(|index| objects[*index]["apiVersion"] != wanted).collect();
    if foreign.is_empty() {
        return Ok(objects);
    }
    let sent: Vec<Value> = foreign.iter().map(|index| objects[*index].clone()).collect();
    let uid = base::names::uuid();
    let version = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
    let version = version.filter_map(Value::as_str).find(|v| matches!(*v, "v1" | "v1beta1"));
    let review = json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{}", version.unwrap_or("v1")),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": sent},
    });
    let from = sent[0]["apiVersion"].as_str().unwrap_or_default();
    let kind = &resource.kind;
    let failed = |why: String| {
        let message = format!("conversion webhook for {from}, Kind={kind} failed: {why}");
        Status::new(500, "", message)
    };
    let answer = context.webhooks.call(&webhook["clientConfig"], &review, PATIENCE).await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    let response = &answer["response"];
    if response["uid"] != uid.as_str() {
        let got = response["uid"].as_str().unwrap_or_default();
        return Err(failed(format!("invalid response.uid, expected {uid:?}, got {got:?}")));
    }
    if response["result"]["status"] != "Success" {
        let why = response["result"]["message"].as_str().unwrap_or("no message");
        return Err(failed(why.to_owned()));
    }
    let converted = response["convertedObjects"].as_array().cloned().unwrap_or_default();
    if converted.len() != sent.len() {
        let (wanted, got) = (sent.len(), converted.len());
        return Err(failed(format!(
            "response.convertedObjects: expected {wanted} objects, got {got}"
        )));
    }
    for (index, mut object) in foreign.into_iter().zip(converted) {
        let number = index;
        check(&object, &objects[index], wanted)
            .map_err(|why| failed(format!("response.convertedObjects[{number}] invalid: {why}")))?;
        keep_metadata(&mut object, &objects[index]);
        objects[index] = object;
    }
    Ok(objects)
}

/// The same for one stored value.
pub async fn translate_stored(
    context: &Context,
    target: &Target,
    stored: &Bytes,
) -> Outcome<Bytes> {
    if translator(&target.resource).is_none() {
        return Ok(stored.clone());
    }
    let objects = vec![negotiate::parse(stored)?];
    let objects = translate(context, &target.resource, &target.api_version(), objects).await?;
    Ok(objects[0].to_string().into())
}

/// The same for what a list or a watch shows.
pub async fn translate_entries(
    context: &Context,
    target: &Target,
    entries: &mut [Arc<Entry>],
) -> Outcome<()> {
    if translator(&target.resource).is_none() {
        return Ok(());
    }
    let read = entries.iter().map(|entry| negotiate::parse(&entry.value));
    let objects = read.collect::<Outcome<Vec<Value>>>()?;
    let objects = translate(context, &target.resource, &target.api_version(), objects).await?;
    for (entry, object) in entries.iter_mut().zip(objects) {
        *entry = Arc::new(Entry { value: object.to_string().into(), ..Entry::clone(entry) });
    }
    Ok(())
}

/// The same for a change.
pub async fn translate_event(
    context: &Context,
    target: &Target,
    event: Arc<Event>,
) -> Outcome<Arc<Event>> {
    let mut entries: Vec<Arc<Entry>> =
        [Some(&event.entry), event.previous.as_ref()].into_iter().flatten().cloned().collect();
    translate_entries(context, target, &mut entries).await?;
    let mut entries = entries.into_iter();
    Ok(Arc::new(Event {
        revision: event.revision,
        kind: event.kind,
        entry: entries.next().unwrap_or_else(|| Arc::clone(&event.entry)),
        previous: entries.next(),
        encoded: Default::default(),
    }))
}

fn check(object: &Value, original: &Value, wanted: &str) -> Result<(), String> {
    let same = |path: &str| object.pointer(path) == original.pointer(path);
    if object["apiVersion"] != wanted {
        let got = object["apiVersion"].as_str().unwrap_or_default();
        return Err(format!("expected {wanted}, got {got}"));
    }
    for (path, what) in [("/kind", "kind"), ("/metadata/name", "name"), ("/metadata/uid", "uid")] {
        if !same(path) {
            return Err(format!("must have same {what}"));
        }
    }
    Ok(())
}

/// Of the metadata a webhook may change labels and annotations.
fn keep_metadata(object: &mut Value, original: &Value) {
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        match object["metadata"].get(field) {
            Some(value) => metadata[field] = value.clone(),
            None => drop(metadata.as_object_mut().map(|all| all.shift_remove(field))),
        }
    }
    object["metadata"] = metadata;
}
