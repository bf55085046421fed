//! Rules that follow from a kind's schema, for kinds without rules of their own: texts that have
//! to be there.

use super::at::{At, Errors};
use crate::resource::Resource;
use crate::schema::{Schema, Type};

/// An object of a kind without rules of its own.
pub(super) fn check(resource: &Resource, object: &At<'_>, out: &mut Errors) {
    let version = &resource.storage_version;
    if let Some(schema) = Schema::of(&resource.storage_group, version, &resource.kind) {
        for (name, field) in
            schema.fields().filter(|(name, _)| *name != "metadata" && *name != "status")
        {
            member(schema, name, field, object, out);
        }
    }
}

/// Go cannot tell an absent number, list or flag from an empty one, so upstream asks for texts.
fn walk(schema: Schema<'_>, at: &At<'_>, out: &mut Errors) {
    match schema.kind() {
        Type::Object => {
            schema.fields().for_each(|(name, field)| member(schema, name, field, at, out))
        }
        Type::List => {
            let Some(items) = schema.items() else { return };
            at.items().for_each(|item| walk(items, &item, out));
        }
        Type::Map => {
            let Some(values) = schema.additional() else { return };
            at.entries().for_each(|(_, value)| walk(values, &value, out));
        }
        _ => {}
    }
}

fn member(schema: Schema<'_>, name: &str, field: Schema<'_>, at: &At<'_>, out: &mut Errors) {
    let value = at.get(name);
    let required = schema.required().any(|required| required == name);
    match field.kind() {
        Type::String if required => drop(out.needed(&value)),
        // What is missing but has to be there is looked at as if it were empty.
        Type::Object if required || value.is_set() => walk(field, &value, out),
        _ if value.is_set() => walk(field, &value, out),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn kinds_without_rules_of_their_own() {
        created("serviceaccounts", &[("secrets: [{name: a}]", ""), ("{}", "")]);
    }
}
