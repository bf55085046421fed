//! Rules for claims of storage.

use super::at::{At, Errors};
use super::{amounts, selectors};

const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// `spec` of a PersistentVolumeClaim or of a template for one.
pub(super) fn claim_spec(at: &At<'_>, out: &mut Errors) {
    let modes = at.get("accessModes");
    if modes.len() == 0 {
        out.required(&modes, "at least 1 access mode is required");
    }
    if at.get("selector").is_set() {
        selectors::label_selector(&at.get("selector"), out);
    }
    let mut once = false;
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            out.not_supported(&mode.at(&modes), &ACCESS_MODES);
        }
        once |= mode.text() == "ReadWriteOncePod";
    }
    if once && modes.len() > 1 {
        let why = "may not use ReadWriteOncePod with other access modes";
        out.forbidden(&modes, why);
    }
    let size = at.get("resources.requests.storage");
    match size.quantity() {
        // Upstream writes this path its own way.
        None => out.required(&at.get("resources").key("storage"), ""),
        Some(amount) if amount.is_negative() || amount.is_zero() => {
            let requests = at.get("resources").key("storage");
            out.invalid_as(&requests, amount.to_string(), "must be greater than zero");
        }
        Some(_) => amounts::value("storage", &size, out),
    }
    out.one_of_if_set(&at.get("volumeMode"), &["Block", "Filesystem"]);
}

/// A claim whose wishes do not change once it is made, but for more storage.
pub(super) fn claim_update(new: &At<'_>, old: &At<'_>, out: &mut Errors) {
    let mut wished = new.get("spec").value.clone();
    let before = old.get("spec");
    for free in ["resources", "volumeAttributesClassName", "volumeName"] {
        let kept = before.get(free);
        let may = free != "volumeName" || kept.text().is_empty();
        if let (true, Some(wished)) = (may, wished.as_object_mut()) {
            match kept.is_set() {
                true => wished.insert(free.to_owned(), kept.value.clone()),
                false => wished.shift_remove(free),
            };
        }
    }
    if wished != *before.value {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        out.forbidden(&new.get("spec"), why);
    }
    let size = |claim: &At<'_>| claim.get("spec.resources.requests.storage").quantity();
    if let (Some(now), Some(then)) = (size(new), size(old))
        && now < then
    {
        let path = new.get("spec.resources.requests.storage");
        out.forbidden(&path, "field can not be less than status.capacity");
    }
}
