//! Rules that follow from a kind's schema, for kinds without rules of their own: texts that have
//! to be there, and texts that have to be one of a few.

use super::at::{At, Errors};
use crate::resource::Resource;
use crate::schema::{Schema, Type};

/// A collection, a path (`[]` goes through a list), and what may stand there.
type Choice = (&'static str, &'static str, &'static [&'static str]);

const CHOICES: &[Choice] = &[
    ("discovery.k8s.io/endpointslices", "addressType", &["FQDN", "IPv4", "IPv6"]),
    ("networking.k8s.io/networkpolicies", "spec.policyTypes[]", &["Egress", "Ingress"]),
    ("scheduling.k8s.io/priorityclasses", "preemptionPolicy", &["PreemptLowerPriority", "Never"]),
    ("storage.k8s.io/storageclasses", "reclaimPolicy", &["Delete", "Retain"]),
    ("storage.k8s.io/storageclasses", "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
];

/// Collections that are written all the time, by programs only.
const UNCHECKED: [&str; 2] = ["events", "coordination.k8s.io/leases"];

/// An object of a kind without rules of its own.
pub(super) fn check(resource: &Resource, object: &At<'_>, out: &mut Errors) {
    let collection = resource.collection();
    if UNCHECKED.contains(&collection) {
        return;
    }
    let version = &resource.storage_version;
    if let Some(schema) = Schema::of(&resource.storage_group, version, &resource.kind) {
        for (name, field) in
            schema.fields().filter(|(name, _)| *name != "metadata" && *name != "status")
        {
            member(schema, name, field, object, out);
        }
    }
    for (_, path, choices) in CHOICES.iter().filter(|(name, ..)| *name == collection) {
        choice(object, path, choices, out);
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

fn choice(at: &At<'_>, path: &str, choices: &[&str], out: &mut Errors) {
    let Some((list, rest)) = path.split_once("[]") else {
        return out.one_of_if_set(&at.get(path), choices);
    };
    for item in at.get(list).items() {
        match rest.strip_prefix('.') {
            Some(rest) => choice(&item, rest, choices, out),
            None => out.one_of_if_set(&item, choices),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::created;

    #[test]
    fn kinds_without_rules_of_their_own() {
        created(
            "storage.k8s.io/storageclasses",
            &[
                ("provisioner: a", ""),
                (
                    "volumeBindingMode: Later",
                    "provisioner: Required value\nvolumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ),
            ],
        );
        created(
            "networking.k8s.io/networkpolicies",
            &[(
                "spec: {podSelector: {}, policyTypes: [Sideways]}",
                "spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Egress\", \"Ingress\"",
            )],
        );
        created("scheduling.k8s.io/priorityclasses", &[("description: x", "")]);
        created(
            "discovery.k8s.io/endpointslices",
            &[("addressType: IPv4", ""), ("endpoints: []", "addressType: Required value")],
        );
    }
}
