//! One change, seen in the versions in which the managers of an object set their fields.

use super::compare::Difference;
use super::place::Place;
use super::set::Set;
use crate::convert::convert;
use crate::resource::{Resource, split_api_version};
use crate::schema::Schema;
use serde_json::Value;

/// The two states of a change, compared once for each version that is asked for.
pub(super) struct Versions<'a> {
    resource: &'a Resource,
    old: &'a Value,
    new: &'a Value,
    /// By `apiVersion`; `None` for versions that are not served.
    known: Vec<(String, Option<Difference>)>,
}

impl<'a> Versions<'a> {
    pub(super) fn new(resource: &'a Resource, old: &'a Value, new: &'a Value) -> Self {
        Self { resource, old, new, known: Vec::with_capacity(1) }
    }

    /// What changed, in the terms of `api_version`; `None` where that version is not served (any
    /// more): nobody can own fields in it.
    pub(super) fn between(&mut self, api_version: &str) -> Option<&Difference> {
        let at = match self.known.iter().position(|(known, _)| known == api_version) {
            Some(at) => at,
            None => {
                let difference = self.compare(api_version);
                self.known.push((api_version.to_owned(), difference));
                self.known.len() - 1
            }
        };
        self.known[at].1.as_ref()
    }

    /// What is new or has another value in the terms of `api_version`.
    pub(super) fn into_set(mut self, api_version: &str) -> Set {
        self.between(api_version);
        let known = self.known.into_iter().find(|(known, _)| known == api_version);
        known.and_then(|(_, difference)| difference).unwrap_or_default().set
    }

    fn compare(&self, api_version: &str) -> Option<Difference> {
        let resource = self.resource;
        let place = Place::of(resource, api_version);
        let base = self.new["apiVersion"].as_str().unwrap_or_default();
        if base == api_version {
            return Some(Difference::between(place, self.old, self.new));
        }
        let (group, version) = split_api_version(api_version);
        let served = group == resource.group && resource.versions.iter().any(|v| v == version);
        if !place.is_typed() && !served {
            return None;
        }
        let converted = |object: &Value| {
            let mut object = object.clone();
            convert(resource, base, api_version, &mut object);
            object
        };
        Some(Difference::between(place, &converted(self.old), &converted(self.new)))
    }
}

impl<'a> Place<'a> {
    /// The place of a whole object.
    pub(super) fn of(resource: &'a Resource, api_version: &str) -> Self {
        let (group, version) = split_api_version(api_version);
        Self::root(match &resource.custom {
            Some(_) => Schema::of_resource(resource, version),
            None => Schema::of(group, version, &resource.kind),
        })
    }
}
