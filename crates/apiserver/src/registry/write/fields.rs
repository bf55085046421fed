//! What a client sent, held against the schema of its kind.

use api::schema::{self, Problem, Schema};
use api::status::Status;
use serde_json::Value;

use crate::registry::call::Target;
use crate::registry::options::{FieldValidation, WriteOptions};
use crate::registry::twice::Twice;
use crate::registry::{Outcome, decode};

/// The definition of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Checks an object against its kind's schema as `fieldValidation` asks, drops what the schema
/// does not know, and gives the warnings.
pub fn check_fields(
    target: &Target,
    options: &WriteOptions,
    duplicates: &Twice,
    object: &mut Value,
) -> Outcome<Vec<String>> {
    let resource = &target.resource;
    let refuse =
        |why: &str| Status::bad_request(schema::decode_error(&resource.kind, &target.version, why));
    let mut unknown: Vec<String> = Vec::new();
    let mut settle = |schema: Schema<'_>, value: &mut Value, below: &str| {
        for problem in schema.check(value) {
            match problem {
                Problem::Type(why) => return Err(refuse(&why)),
                Problem::Unknown(path) => {
                    unknown.push(Problem::Unknown(format!("{below}{path}")).to_string());
                }
            }
        }
        schema.prune(value);
        Ok(())
    };
    if let Some(custom) = &resource.custom {
        if let (Some(schema), Some(metadata)) =
            (Schema::of_definition(OBJECT_META), object.get_mut("metadata"))
        {
            settle(schema, metadata, "metadata.")?;
        }
        let dropped = custom.prune(&target.version, object);
        unknown.extend(dropped.into_iter().map(|path| Problem::Unknown(path).to_string()));
        custom.default(&target.version, object);
    } else if let Some(schema) = Schema::of(&resource.group, &target.version, &resource.kind) {
        settle(schema, object, "")?;
    } else {
        decode::drop_nulls(object);
        return Ok(Vec::new());
    }
    let with = |told: Vec<String>| match resource.custom {
        // Objects of no type are read whole before anybody looks for fields.
        Some(_) => told.into_iter().chain(unknown).collect(),
        None => duplicates.among(told, unknown),
    };
    match options.field_validation {
        FieldValidation::Strict => match with(duplicates.errors()).as_slice() {
            [] => Ok(Vec::new()),
            wrong => Err(refuse(&schema::strict_error(wrong))),
        },
        FieldValidation::Warn => Ok(with(duplicates.warnings())),
        FieldValidation::Ignore => Ok(Vec::new()),
    }
}
