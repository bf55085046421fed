//! Rules for a pod's volumes.

use super::at::{At, Errors};
use super::formats;
use super::source;
use crate::status::FieldError;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

type Rule = fn(&At<'_>, &mut Errors);

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const MODE_MAX: i64 = 0o777;
/// Shortest life of a projected token.
const TOKEN_LEAST_SECONDS: i64 = 10 * 60;
/// Longest life of a projected token.
const TOKEN_MOST_SECONDS: i64 = 1 << 32;
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Sources in the order in which upstream looks at them.
const SOURCES: &[(&str, Rule)] = &[
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", |at, out| needs(at, &["repository"], out)),
    ("gcePersistentDisk", |at, out| needs(at, &["pdName"], out)),
    ("awsElasticBlockStore", |at, out| needs(at, &["volumeID"], out)),
    ("secret", |at, out| key_volume(at, "secretName", out)),
    ("nfs", nfs),
    ("iscsi", |at, out| needs(at, &["targetPortal", "iqn"], out)),
    ("glusterfs", |at, out| needs(at, &["endpoints", "path"], out)),
    ("persistentVolumeClaim", |at, out| needs(at, &["claimName"], out)),
    ("rbd", |at, out| needs(at, &["image"], out)),
    ("cinder", |at, out| needs(at, &["volumeID"], out)),
    ("cephfs", |_, _| {}),
    ("flocker", |_, _| {}),
    ("downwardAPI", downward),
    ("fc", |_, _| {}),
    ("flexVolume", |at, out| needs(at, &["driver"], out)),
    ("configMap", |at, out| key_volume(at, "name", out)),
    ("azureFile", |at, out| needs(at, &["secretName", "shareName"], out)),
    ("vsphereVolume", |at, out| needs(at, &["volumePath"], out)),
    ("photonPersistentDisk", |at, out| needs(at, &["pdID"], out)),
    ("portworxVolume", |at, out| needs(at, &["volumeID"], out)),
    ("azureDisk", |at, out| needs(at, &["diskName", "diskURI"], out)),
    ("storageos", |at, out| needs(at, &["volumeName"], out)),
    ("projected", projected),
    ("scaleIO", |at, out| needs(at, &["gateway", "system", "volumeName"], out)),
    ("csi", |at, out| needs(at, &["driver"], out)),
    ("ephemeral", ephemeral),
    ("image", |at, out| {
        needs(at, &["reference"], out);
        out.one_of_if_set(&at.get("pullPolicy"), &["Always", "IfNotPresent", "Never"]);
    }),
];

/// Checks the list and gives the volumes that mounts may name: those that are legal.
pub(super) fn check<'v>(at: &At<'v>, out: &mut Errors) -> BTreeMap<&'v str, &'v Value> {
    let mut legal = BTreeMap::new();
    for volume in at.items() {
        let mut errors = Errors::default();
        source(&volume, &mut errors);
        let name = volume.get("name");
        if errors.needed(&name) {
            errors.all(&name, formats::dns_label(name.text()));
        }
        if legal.contains_key(name.text()) {
            errors.duplicate(&name, name.text());
        }
        if errors.0.is_empty() {
            legal.insert(name.text(), volume.value);
        }
        out.0.extend(errors.0);
    }
    legal
}

fn source(volume: &At<'_>, out: &mut Errors) {
    let mut found = false;
    for (name, rule) in SOURCES {
        let Some(source) = volume.get(name).set() else { continue };
        if found {
            out.forbidden(&source, "may not specify more than 1 volume type");
        } else {
            rule(&source, out);
        }
        found = true;
    }
    if !found {
        out.required(volume, "must specify a volume type");
    }
}

fn needs(at: &At<'_>, names: &[&str], out: &mut Errors) {
    for name in names {
        out.needed(&at.get(name));
    }
}

fn empty_dir(at: &At<'_>, out: &mut Errors) {
    let limit = at.get("sizeLimit");
    if limit.quantity().is_some_and(|amount| amount.is_negative()) {
        out.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

fn host_path(at: &At<'_>, out: &mut Errors) {
    let path = at.get("path");
    if out.needed(&path) {
        no_backsteps(&path, out);
    }
    out.one_of_if_set(&at.get("type"), &HOST_PATH_TYPES);
}

fn nfs(at: &At<'_>, out: &mut Errors) {
    needs(at, &["server", "path"], out);
    let path = at.get("path");
    if !path.text().starts_with('/') {
        out.invalid_as(&path, path.text(), "must be an absolute path");
    }
}

fn mode(at: &At<'_>, out: &mut Errors) {
    if !(0..=MODE_MAX).contains(&at.number()) {
        out.invalid(at, MODE);
    }
}

/// A Secret's or a ConfigMap's volume.
fn key_volume(at: &At<'_>, name: &str, out: &mut Errors) {
    out.needed(&at.get(name));
    mode(&at.get("defaultMode"), out);
    at.get("items").items().for_each(|item| key_to_path(&item, out));
}

fn key_to_path(item: &At<'_>, out: &mut Errors) {
    needs(item, &["key", "path"], out);
    local_path(&item.get("path"), out);
    mode(&item.get("mode"), out);
}

/// A relative path below the volume that does not leave it.
pub(super) fn descending(at: &At<'_>, out: &mut Errors) {
    if at.text().starts_with('/') {
        out.invalid(at, "must be a relative path");
    }
    no_backsteps(at, out);
}

fn no_backsteps(at: &At<'_>, out: &mut Errors) {
    if has_backsteps(at.text()) {
        out.invalid(at, "must not contain '..'");
    }
}

pub(super) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// The same, and no name that the kubelet keeps for itself.
pub(super) fn local_path(at: &At<'_>, out: &mut Errors) {
    descending(at, out);
    let text = at.text();
    if text.starts_with("..") && !text.starts_with("../") {
        out.invalid(at, "must not start with '..'");
    }
}

fn downward(at: &At<'_>, out: &mut Errors) {
    mode(&at.get("defaultMode"), out);
    for item in at.get("items").items() {
        // Upstream's paths leave the item's number out here.
        downward_file(&item, at, out);
    }
}

fn downward_file(item: &At<'_>, parent: &At<'_>, out: &mut Errors) {
    let field = |name: &str| item.get(name).named(parent, name);
    out.needed(&field("path"));
    local_path(&field("path"), out);
    let (reference, amount) = (field("fieldRef"), field("resourceFieldRef"));
    if reference.is_set() {
        source::object_field(&reference, &source::VOLUME_FIELDS, out);
        if amount.is_set() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            out.invalid_as(parent, "resource", why);
        }
    } else if amount.is_set() {
        source::resource_field(&amount, true, out);
    } else {
        out.required(parent, "one of fieldRef and resourceFieldRef is required");
    }
    mode(&field("mode"), out);
}

fn projected(at: &At<'_>, out: &mut Errors) {
    mode(&at.get("defaultMode"), out);
    let mut paths = BTreeSet::new();
    for item in at.get("sources").items() {
        let mut count = 0;
        for name in ["secret", "configMap"] {
            let Some(source) = item.get(name).set() else { continue };
            count += 1;
            out.needed(&source.get("name"));
            for key in source.get("items").items() {
                key_to_path(&key, out);
                taken(at, key.get("path").text(), source.get("name").text(), &mut paths, out);
            }
        }
        if let Some(source) = item.get("downwardAPI").set() {
            count += 1;
            for file in source.get("items").items() {
                downward_file(&file, &source, out);
                let path = file.get("path").text();
                taken(at, path, path, &mut paths, out);
            }
        }
        if let Some(token) = item.get("serviceAccountToken").set() {
            count += 1;
            projected_token(&token, at, out);
        }
        for name in ["clusterTrustBundle", "podCertificate"] {
            count += usize::from(item.get(name).is_set());
        }
        if count > 1 {
            out.forbidden(&item, "may not specify more than 1 volume type per source");
        }
    }
}

fn taken<'v>(
    at: &At<'_>,
    path: &'v str,
    shown: &str,
    paths: &mut BTreeSet<&'v str>,
    out: &mut Errors,
) {
    if !path.is_empty() && !paths.insert(path) {
        out.push(FieldError::invalid(&at.path, shown, "conflicting duplicate paths"));
    }
}

fn projected_token(token: &At<'_>, at: &At<'_>, out: &mut Errors) {
    let seconds = token.get("expirationSeconds");
    if seconds.number() < TOKEN_LEAST_SECONDS {
        out.invalid(&seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds.number() > TOKEN_MOST_SECONDS {
        out.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
    }
    // Upstream reports the path at the volume, not at the source.
    let path = token.get("path").named(at, "path");
    if out.needed(&path) {
        local_path(&path, out);
    }
}

fn ephemeral(at: &At<'_>, out: &mut Errors) {
    let template = at.get("volumeClaimTemplate");
    match template.is_set() {
        true => super::storage::claim_spec(&template.get("spec"), out),
        false => out.required(&template, ""),
    }
}
