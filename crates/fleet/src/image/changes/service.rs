//! Coracle itself: the binary, its unit and configuration, and the board's first start.

use super::super::change::{Change, Content, ROOT};
use super::super::error::ImageError;
use super::super::first_start::{self, FirstStart};
use super::{Draft, Scene};
use crate::board::{self, fstab, paths};

/// Everything that the board needs to join by itself.
pub fn changes(draft: &mut Draft<'_>, scene: &Scene<'_>) -> Result<(), ImageError> {
    let desired = scene.desired;
    let (path, length) = &scene.given.binary;
    let content = Content::Copy(path.clone(), *length);
    draft.push(Change::File {
        path: paths::BINARY.to_owned(),
        content,
        mode: 0o755,
        owner: ROOT,
        secret: false,
        before: None,
    });
    for file in &desired.files {
        let is_secret = file.mode & 0o004 == 0;
        draft.put(&file.path, &file.content, file.mode as u16, ROOT, is_secret);
    }
    for unit in &desired.masked {
        draft.link(format!("{}/{unit}", paths::UNITS), "/dev/null");
    }
    if let Some(service) = desired.service {
        draft.enable(service.unit(), "multi-user.target", &service.path());
        let config = board::render_config(&desired.config);
        draft.put(paths::CONFIG, config, 0o600, ROOT, scene.given.endpoint.is_some());
        if let Some(token) = &scene.given.token {
            draft.secret(paths::TOKEN, format!("{token}\n"));
        }
    }
    if let Some(disk) = &desired.data {
        draft.edit("/etc/fstab", |text| fstab::with_data(text, disk));
        if let Some(service) = desired.service {
            let folder = format!("{}/{}.d", paths::UNITS, service.unit());
            draft.file(format!("{folder}/data.conf"), fstab::requires());
        }
        if !disk.format {
            draft.warn(format!(
                "the board starts its service only once {} is formatted and has the label {} \
                 (data.format: true has the first start do that where it is empty)",
                disk.device, disk.label
            ));
        } else if !draft.layout().has_program("mkfs.ext4") {
            draft.warn("the image has no mkfs.ext4 to format the data's disk with (e2fsprogs)");
        }
    }
    let first = FirstStart {
        data: desired.data.clone(),
        service: desired.service.map(|service| service.unit().to_owned()),
        packages: desired.packages.clone(),
    };
    for (path, text) in first_start::files(&first) {
        draft.file(path, text);
    }
    for (unit, target) in first_start::units(&first) {
        draft.enable(unit, target, &format!("{}/{unit}", paths::UNITS));
    }
    Ok(())
}
